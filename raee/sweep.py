"""The sweep: one pass a row, and every exit's answer with its confidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.config import KeySpec
from raee.model.backbones import Backbone
from raee.model.batches import encode, token_batches
from raee.model.prompts import Prompt
from raee.model.walk import walk
from raee.neighbours.keys import check_key, layer_key, retriever_keys
from raee.readers.fit import StateName
from raee.readers.head import HeadReader
from raee.readers.states import check_numbers, probe_state, probe_states
from raee.readers.sums import Sums
from raee.texts import TextHashes, text_hashes


@dataclass(frozen=True)
class Labelled:
    """What a sweep needs to know of its rows to collect what probes are fitted on."""

    label: NDArray[np.uint16]
    """(rows,) the index of each label."""
    labels: int
    sample: NDArray[np.bool_]
    """(rows,) True if the states are kept, for figures without the text."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep read of its rows."""

    answers: NDArray[np.uint16]
    """(rows, depths) the head's answer at each depth."""
    confidences: NDArray[np.float32]
    """(rows, depths) the answer's probability."""
    keys: tuple[NDArray[np.float32], ...]
    """(rows, width) for each key."""
    hashes: TextHashes
    """(rows,) the hashes of their texts."""
    sums: dict[StateName, Sums] = field(default_factory=dict)
    """The sums of labelled rows, for each state that probes may read."""
    states: dict[StateName, NDArray[np.float32]] = field(default_factory=dict)
    """(depths, sampled rows, width) the sampled rows' states, for each that probes may read."""


def sweep(
    backbone: Backbone,
    prompt: Prompt,
    head: HeadReader,
    key: KeySpec,
    retriever: Backbone | None,
    texts: Sequence[str],
    labelled: Labelled | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Sweep:
    """Read every head of every text, its keys and, if texts are labelled, what probes need.

    retriever: the key's model if that is not the backbone.  on_rows is told of rows as they
    are done.  Raises InputError if a key's layer is deeper than the backbone, or the model
    answers a text with values that are no numbers.
    """
    check_key(key, backbone)
    rows, depths, width = len(texts), backbone.depth + 1, backbone.hidden_size
    answers = np.zeros((rows, depths), dtype=np.uint16)
    confidences = np.zeros((rows, depths), dtype=np.float32)
    collected = None if labelled is None else _Collected(backbone, labelled)
    if retriever is None:
        keys = tuple(np.zeros((rows, width), dtype=np.float32) for _ in key.depths)
    else:
        keys = (retriever_keys(retriever, texts),)
    encoded = encode(backbone, prompt, texts)
    hashes = text_hashes(encoded.token_ids)
    for batch in token_batches(backbone, encoded):
        attention, positions = batch.inputs["attention_mask"], batch.mask_positions
        read = torch.zeros(2, depths, len(batch.rows), device=backbone.device)

        def visit(
            depth: int,
            states: Tensor,
            rows: Tensor,
            at: NDArray[np.int64] = batch.rows,
            attention: Tensor = attention,
            positions: Tensor = positions,
            read: Tensor = read,
        ) -> None:
            read[1, depth], answer = head(depth, states, attention, positions).max(dim=1)
            read[0, depth] = answer.float()
            if collected is not None:
                for name in collected.states:
                    vectors = probe_state(backbone, name, states, attention, positions)
                    collected.add(name, depth, at, vectors)
            if retriever is None and depth in key.depths:
                keys[key.depths.index(depth)][at] = layer_key(backbone, states, attention)

        walk(backbone.stack, batch.inputs, visit)
        answer, confidence = read.cpu().numpy()
        check_numbers(backbone, texts, batch.rows, confidence.T)
        answers[batch.rows] = answer.T.astype(np.uint16)
        confidences[batch.rows] = confidence.T
        on_rows(len(batch.rows))
    if collected is None:
        return Sweep(answers, confidences, keys, hashes)
    return Sweep(answers, confidences, keys, hashes, collected.sums(), collected.states)


class _Collected:
    """Sums of states by label, and the states of the sampled rows, as batches come in."""

    def __init__(self, backbone: Backbone, labelled: Labelled) -> None:
        depths, width = backbone.depth + 1, backbone.hidden_size
        names = probe_states(backbone)
        self._labelled = labelled
        self._position = np.cumsum(labelled.sample) - 1
        self.states: dict[StateName, NDArray[np.float32]] = {
            name: np.zeros((depths, int(labelled.sample.sum()), width), dtype=np.float32)
            for name in names
        }
        nothing = torch.zeros((), dtype=torch.float64, device=backbone.device)
        self._first = {n: nothing.new_zeros(depths, labelled.labels, width) for n in names}
        self._second = {n: nothing.new_zeros(depths, width, width) for n in names}
        self._one_hot = torch.eye(labelled.labels, dtype=torch.float64, device=backbone.device)

    def add(self, name: StateName, depth: int, rows: NDArray[np.int64], vectors: Tensor) -> None:
        """Take the vectors (n, width) of some rows at a depth."""
        exact = vectors.double()
        label = torch.as_tensor(self._labelled.label[rows].astype(np.int64), device=exact.device)
        self._first[name][depth] += self._one_hot[label].T @ exact
        self._second[name][depth] += exact.T @ exact
        sampled = self._labelled.sample[rows]
        if sampled.any():
            kept = vectors[torch.as_tensor(sampled, device=exact.device)]
            self.states[name][depth, self._position[rows[sampled]]] = kept.cpu().numpy()

    def sums(self) -> dict[StateName, Sums]:
        """The sums of all rows."""
        labels = self._labelled.labels
        counts = np.bincount(self._labelled.label, minlength=labels).astype(np.float64)
        return {
            name: Sums(counts, self._first[name].cpu().numpy(), self._second[name].cpu().numpy())
            for name in self._first
        }
