"""`head`: the model's own head, restricted to the labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.model.backbones import Backbone
from raee.model.batches import Batches, encode
from raee.model.frames import frame_of
from raee.model.heads import LabelColumns, label_tokens
from raee.model.prompts import Prompt
from raee.model.walk import walk
from raee.readers.fit import StateName
from raee.readers.reader import Due, Here, Look, Reader, Reading
from raee.readers.states import answer_state, check_numbers, normalised, pooled, probe_states

COSINE_SCALE = 20.0
"""Cosines are multiplied by this before the softmax."""

HeadReader = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`read(depth, states, attention, answer_positions) -> (n, labels) float32 probabilities`.

states: (n, tokens, hidden) as the walk shows them; attention: (n, tokens), 1 at real tokens;
answer_positions: (n,) int64; the latter two as `Backbone.tokens_at` says them.
"""


def head_reader(backbone: Backbone, prompt: Prompt, centre: Tensor | None) -> HeadReader:
    """The reader `head` of a backbone: the model's own head, restricted to the labels.

    centre: (depths, hidden) the database's mean at each depth, for sentence encoders.
    Raises InputError as `raee.model.heads.label_tokens` does.
    """
    if backbone.family != "sentence-encoder":
        return _language_head(backbone, prompt)
    assert centre is not None, "a sentence encoder is read against its database's centre"
    return sentence_head(backbone, prompt, centre)


@dataclass(frozen=True)
class SentenceHead:
    """A sentence encoder's `head`: a `HeadReader` that reads pooled states, too."""

    backbone: Backbone
    centre: Tensor
    """(depths, hidden)."""
    descriptions: Tensor
    """(depths, labels, hidden) unit vectors, less the centre."""

    def __call__(
        self, depth: int, states: Tensor, attention: Tensor, answer_positions: Tensor
    ) -> Tensor:
        """(n, labels) float32 probabilities; see `HeadReader`."""
        return self.of_pooled(depth, pooled(self.backbone, depth, states, attention))

    def of_pooled(self, depth: int, vectors: Tensor) -> Tensor:
        """(n, labels) float32 probabilities.  vectors: (n, hidden), as `pooled` makes them."""
        vectors = normalised(vectors - self.centre[depth])
        return (COSINE_SCALE * vectors @ self.descriptions[depth].T).softmax(dim=1)

    def distributions(self, states: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """By depth, (rows, labels) what the head says of pooled states, (depths, rows, hidden)."""
        device = self.backbone.device
        with torch.inference_mode():
            return [
                self.of_pooled(depth, torch.as_tensor(vectors, device=device)).cpu().numpy()
                for depth, vectors in enumerate(states)
            ]


def sentence_head(backbone: Backbone, prompt: Prompt, centre: Tensor) -> SentenceHead:
    """The head of a sentence encoder.  centre: (depths, hidden)."""
    centre = centre.to(backbone.device)
    described = _pooled_by_depth(backbone, Prompt(prompt.labels, prompt.words), [*prompt.words])
    descriptions = normalised(described.float() - centre[:, None])
    return SentenceHead(backbone, centre, descriptions)


def pooled_state(backbone: Backbone) -> StateName:
    """Which of a sentence encoder's states its head reads: its own pooling."""
    return probe_states(backbone)[-1]


class Head(Reader):
    """The model's own head at every depth."""

    name = "head"
    clause = "the model's own head"
    description = "the model's own head"
    look = Look("c4", "D", ":")
    source = "sweep"
    is_the_models = True
    is_tempered = True
    learns_shares = False

    def read(self, here: Here, due: Due) -> Reading:
        """What the head says."""
        return Reading(here.head(due))


def read_centre(backbone: Backbone, prompt: Prompt, texts: list[str]) -> Tensor:
    """The mean of the texts' pooled states at each depth, (depths, hidden) float32.

    Of texts of which nothing else is read: a build sweeps them, and takes the mean of what it read.
    """
    return _pooled_by_depth(backbone, prompt, texts).mean(dim=1).float()


def _language_head(backbone: Backbone, prompt: Prompt) -> HeadReader:
    frame = frame_of(prompt, backbone.tokenizer, backbone.family)
    head = LabelColumns(backbone, label_tokens(backbone.tokenizer, prompt.words, frame))

    def read(depth: int, states: Tensor, attention: Tensor, answer_positions: Tensor) -> Tensor:
        answers = answer_state(backbone, depth, states, answer_positions)
        return head(answers).float().softmax(dim=1)

    return read


def _pooled_by_depth(backbone: Backbone, prompt: Prompt, texts: list[str]) -> Tensor:
    """(depths, texts, hidden) float64: the texts' pooled states at each depth."""
    result = torch.zeros(
        backbone.depth + 1,
        len(texts),
        backbone.pooled_size,
        dtype=torch.float64,
        device=backbone.sums_device,
    )
    batches = Batches(backbone, encode(backbone, prompt, texts))
    for batch in batches:
        at = torch.as_tensor(batch.rows, device=result.device)
        attention = batch.own

        def visit(
            depth: int,
            states: Tensor,
            rows: Tensor,
            at: Tensor = at,
            attention: Tensor = attention,
        ) -> None:
            vectors = pooled(backbone, depth, states, attention)
            result[depth, at] = vectors.to(result.device).double()

        with batches.room():
            walk(backbone.stack, batch.inputs, visit)
            check_numbers(backbone, texts, batch.rows, result[-1, at].cpu().numpy())
    return result


READER = Head()
