"""The sweep: one pass a row, and every exit's answer with its confidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.answers import answers_of
from raee.config import KeySpec
from raee.model.backbones import Backbone
from raee.model.batches import Batch, Batches, Encoded, encode
from raee.model.prompts import Prompt
from raee.model.walk import walk
from raee.neighbours.keys import check_key, layer_key, retriever_keys
from raee.readers.fit import StateName
from raee.readers.head import HeadReader, SentenceHead, pooled_state
from raee.readers.states import check_numbers, probe_state, probe_states, width_of
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
    """(rows, depths) the head's answer at each depth; (rows, 0) if the sweep had no head."""
    confidences: NDArray[np.float32]
    """(rows, depths) the answer's probability."""
    keys: tuple[NDArray[np.float32], ...]
    """(rows, width) for each key."""
    hashes: TextHashes
    """(rows,) the hashes of their texts."""
    token_ids: NDArray[np.object_]
    """(rows,) the token ids of each row, special ones included; arrays of int32."""
    sums: dict[StateName, Sums] = field(default_factory=dict)
    """The sums of labelled rows, for each state that probes may read."""
    states: dict[StateName, NDArray[np.float32]] = field(default_factory=dict)
    """(depths, sampled rows, width) the sampled rows' states, for each that probes may read."""
    heads: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    """(depths, sampled rows, labels) the head's distributions; of no depth if it had no head."""


def sweep(
    backbone: Backbone,
    prompt: Prompt,
    head: HeadReader | None,
    key: KeySpec,
    retriever: Backbone | None,
    texts: Sequence[str],
    labelled: Labelled | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
    encoded: Encoded | None = None,
) -> Sweep:
    """Read every head of every text, its keys and, if texts are labelled, what probes need.

    head: None if there is none yet; `labelled` keeps the states of all rows then, of which
    `with_head` reads it.  retriever: the key's model if that is not the backbone.  on_rows is told
    of rows as they are done.  encoded: the texts, if they are tokenized already.  Raises InputError
    if a key's layer is deeper than the backbone, or the model answers a text with values that are
    no numbers.
    """
    check_key(key, backbone)
    assert head is not None or (labelled is not None and labelled.sample.all()), "nothing is read"
    rows, width = len(texts), backbone.hidden_size
    depths = 0 if head is None else backbone.depth + 1
    answers = np.zeros((rows, depths), dtype=np.uint16)
    confidences = np.zeros((rows, depths), dtype=np.float32)
    collected = None if labelled is None else _Collected(backbone, labelled)
    if retriever is None:
        keys = tuple(np.zeros((rows, width), dtype=np.float32) for _ in key.depths)
    else:
        keys = (retriever_keys(retriever, texts),)
    if encoded is None:
        encoded = encode(backbone, prompt, texts)
    hashes = text_hashes(encoded.token_ids)
    batches = Batches(backbone, encoded)
    for batch in batches:
        with batches.room():
            read = torch.zeros(2, depths, len(batch.rows), device=backbone.device)

            def visit(
                depth: int,
                states: Tensor,
                rows: Tensor,
                batch: Batch = batch,
                read: Tensor = read,
            ) -> None:
                at = batch.rows
                attention, positions = backbone.tokens_at(depth, batch.own, batch.answer_positions)
                if head is not None:
                    distributions = head(depth, states, attention, positions)
                    read[1, depth], answer = distributions.max(dim=1)
                    read[0, depth] = answer.float()
                    if collected is not None:
                        collected.add_heads(depth, at, distributions)
                if collected is not None:
                    for name in collected.states:
                        vectors = probe_state(backbone, name, depth, states, attention, positions)
                        collected.add(name, depth, at, vectors)
                if retriever is None and depth in key.depths:
                    own_key = layer_key(backbone, depth, states, attention)
                    keys[key.depths.index(depth)][at] = own_key

            walk(backbone.stack, batch.inputs, visit)
            answer, confidence = read.cpu().numpy()
            if head is not None:
                check_numbers(backbone, texts, batch.rows, confidence.T)
            elif collected is not None:
                check_numbers(backbone, texts, batch.rows, collected.means_of(batch.rows))
            answers[batch.rows] = answer.T.astype(np.uint16)
            confidences[batch.rows] = confidence.T
            on_rows(len(batch.rows))
    of_row = np.empty(rows, object)
    of_row[:] = encoded.own_ids
    if collected is None:
        return Sweep(answers, confidences, keys, hashes, of_row)
    sums, states = collected.sums(), collected.states
    return Sweep(answers, confidences, keys, hashes, of_row, sums, states, collected.heads[:depths])


def with_head(bare: Sweep, head: SentenceHead, sampled: NDArray[np.bool_]) -> Sweep:
    """What a sweep would have read with a head, of one that had none.

    sampled: (rows,) True if a row's states are kept.
    """
    distributions = head.distributions(bare.states[pooled_state(head.backbone)])
    read = answers_of(distributions)
    return replace(
        bare,
        answers=read.answers,
        confidences=read.confidences,
        states={name: by_depth[:, sampled] for name, by_depth in bare.states.items()},
        heads=np.stack([each[sampled] for each in distributions]),
    )


def joined(
    some: Sweep, others: Sweep, is_some: NDArray[np.bool_], sampled: NDArray[np.bool_]
) -> Sweep:
    """The sweep of labelled rows of which some were swept apart from the others.

    is_some: (rows,) True for these.  sampled: (rows,) True if a row's states are kept.
    """
    keys = zip(some.keys, others.keys, strict=True)
    return Sweep(
        answers=_rows(some.answers, others.answers, is_some),
        confidences=_rows(some.confidences, others.confidences, is_some),
        keys=tuple(_rows(own, of_others, is_some) for own, of_others in keys),
        hashes=_rows(some.hashes, others.hashes, is_some),
        token_ids=_rows(some.token_ids, others.token_ids, is_some),
        sums={name: own + others.sums[name] for name, own in some.sums.items()},
        states={
            name: _rows(own, others.states[name], is_some[sampled], axis=1)
            for name, own in some.states.items()
        },
        heads=_rows(some.heads, others.heads, is_some[sampled], axis=1),
    )


def _rows(
    some: NDArray[Any], others: NDArray[Any], is_some: NDArray[np.bool_], axis: int = 0
) -> NDArray[Any]:
    """The rows of two arrays in one.  is_some: (rows,) True for those of the first."""
    shape = list(some.shape)
    shape[axis] = len(is_some)
    both = np.empty(shape, some.dtype)
    by_row = both.swapaxes(0, axis)
    by_row[is_some], by_row[~is_some] = some.swapaxes(0, axis), others.swapaxes(0, axis)
    return both


class _Collected:
    """Sums of states by label, and the states of the sampled rows, as batches come in."""

    def __init__(self, backbone: Backbone, labelled: Labelled) -> None:
        depths = backbone.depth + 1
        widths = {name: width_of(backbone, name) for name in probe_states(backbone)}
        self._labelled = labelled
        self._position = np.cumsum(labelled.sample) - 1
        self.states: dict[StateName, NDArray[np.float32]] = {
            name: np.zeros((depths, int(labelled.sample.sum()), width), dtype=np.float32)
            for name, width in widths.items()
        }
        size = depths, int(labelled.sample.sum()), labelled.labels
        self.heads = np.zeros(size, dtype=np.float32)
        nothing = torch.zeros((), dtype=torch.float64, device=backbone.sums_device)
        self._first = {n: nothing.new_zeros(depths, labelled.labels, w) for n, w in widths.items()}
        self._second = {n: nothing.new_zeros(depths, w, w) for n, w in widths.items()}
        self._one_hot = torch.eye(labelled.labels, dtype=torch.float64, device=nothing.device)
        # By state and row, the deepest depth that is in the sums: a batch that found no room on its
        # way comes again.
        self._added = {name: np.full(len(labelled.label), -1) for name in widths}

    def add(self, name: StateName, depth: int, rows: NDArray[np.int64], vectors: Tensor) -> None:
        """Take the vectors (n, width) of some rows at a depth."""
        sampled = self._labelled.sample[rows]
        if sampled.any():
            kept = vectors[torch.as_tensor(sampled, device=vectors.device)]
            self.states[name][depth, self._position[rows[sampled]]] = kept.cpu().numpy()
        missing = self._added[name][rows] < depth
        if not missing.all():
            rows, vectors = rows[missing], vectors[torch.as_tensor(missing, device=vectors.device)]
        exact = vectors.to(self._one_hot.device).double()
        label = torch.as_tensor(self._labelled.label[rows].astype(np.int64), device=exact.device)
        first, second = self._one_hot[label].T @ exact, exact.T @ exact
        self._first[name][depth] += first
        self._second[name][depth] += second
        self._added[name][rows] = depth

    def add_heads(self, depth: int, rows: NDArray[np.int64], distributions: Tensor) -> None:
        """Take the head's distributions (n, labels) of some rows at a depth."""
        sampled = self._labelled.sample[rows]
        if sampled.any():
            kept = distributions[torch.as_tensor(sampled, device=distributions.device)]
            self.heads[depth, self._position[rows[sampled]]] = kept.cpu().numpy()

    def means_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, depths, width) the mean states of some sampled rows."""
        return self.states["mean"][:, self._position[rows]].swapaxes(0, 1)

    def sums(self) -> dict[StateName, Sums]:
        """The sums of all rows."""
        labels = self._labelled.labels
        counts = np.bincount(self._labelled.label, minlength=labels).astype(np.float64)
        return {
            name: Sums(counts, self._first[name].cpu().numpy(), self._second[name].cpu().numpy())
            for name in self._first
        }
