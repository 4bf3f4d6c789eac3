"""Readers: from a row's state at a depth to a distribution over the labels."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.backbones import Backbone, LabelColumns, label_tokens
from raee.batches import encode, token_batches
from raee.errors import InputError, cut
from raee.exits import Neighbours, neighbour_weights
from raee.probes import StateName
from raee.prompts import Prompt
from raee.walk import walk

COSINE_SCALE = 20.0
"""Cosines are multiplied by this before the softmax (DESIGN.md section 2)."""

HeadReader = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`read(depth, states, attention, mask_positions) -> (n, labels) float32 probabilities`.

states: (n, tokens, hidden) as the walk shows them; attention: (n, tokens), 1 at real tokens;
mask_positions: (n,) int64.
"""


def head_reader(backbone: Backbone, prompt: Prompt, centre: Tensor | None) -> HeadReader:
    """The reader `head` of a backbone: the model's own head, restricted to the labels.

    centre: (depths, hidden) the database's mean at each depth, for sentence encoders.
    Raises InputError where a label word is not one token.
    """
    if backbone.family == "masked-lm":
        return _masked_lm_head(backbone, prompt)
    assert centre is not None, "a sentence encoder is read against its database's centre"
    return _sentence_encoder_head(backbone, prompt, centre.to(backbone.device))


def pooled(backbone: Backbone, states: Tensor, attention: Tensor) -> Tensor:
    """One float32 unit vector a row, (n, hidden): of the mean over its real tokens, or its first.

    Which of them is what the sentence encoder's configuration says; other models get the mean.
    """
    if backbone.pooling == "cls":
        return _normalised(backbone.normed(states[:, 0]).float())
    return token_mean(backbone, states, attention)


def token_mean(backbone: Backbone, states: Tensor, attention: Tensor) -> Tensor:
    """One float32 unit vector a row, (n, hidden): of the mean over its real tokens."""
    states = backbone.normed(states).float()
    # The direction of the mean is that of the sum.
    return _normalised(torch.einsum("ntd,nt->nd", states, attention.float()))


def probe_state(
    backbone: Backbone, state: StateName, states: Tensor, attention: Tensor, mask_positions: Tensor
) -> Tensor:
    """What a probe reads of rows: float32 unit vectors (n, hidden).

    `mean`: of the mean over a row's real tokens.  `answer`: what the family's head reads, the
    state at the mask token or the sentence encoder's own pooling.
    """
    if state == "mean":
        return token_mean(backbone, states, attention)
    if backbone.family == "sentence-encoder":
        return pooled(backbone, states, attention)
    rows = torch.arange(states.shape[0], device=states.device)
    return _normalised(backbone.normed(states[rows, mask_positions]).float())


def check_numbers(
    backbone: Backbone, texts: Sequence[str], rows: NDArray[np.int64], read: NDArray[np.floating]
) -> None:
    """Raises InputError where a model has answered texts with what are no numbers.

    texts: of which rows were read.  read: (rows, ..) what was read of them.
    """
    wrong = ~np.isfinite(read).reshape(len(read), -1).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{type(backbone.model).__name__} answers {cut(repr(texts[rows[wrong][0]]))} with what "
            f"are no numbers: its weights are damaged, or leave the range of "
            f"{backbone.fingerprint['dtype']}"
        )


def probe_states(backbone: Backbone) -> tuple[StateName, ...]:
    """The states among which a database's probes choose theirs."""
    pools_mean = backbone.family == "sentence-encoder" and backbone.pooling == "mean"
    return ("mean",) if pools_mean else ("mean", "answer")


def read_centre(
    backbone: Backbone,
    prompt: Prompt,
    texts: list[str],
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """The mean of the texts' pooled states at each depth, (depths, hidden) float32.

    on_rows is told of rows as they are done.
    """
    return _pooled_by_depth(backbone, prompt, texts, on_rows).mean(dim=1).float()


def vote(neighbours: Neighbours, labels: NDArray[np.uint16], n_labels: int) -> NDArray[np.float32]:
    """The neighbours' labels, weighted by 1 / d: (queries, labels) probabilities.

    labels: (rows,) the database's.  Without any neighbour the labels are equally likely.
    """
    weights = neighbour_weights(neighbours)
    of_neighbour = labels[np.maximum(neighbours.rows, 0)]
    votes = np.zeros((len(weights), n_labels))
    np.add.at(votes, (np.arange(len(weights))[:, None], of_neighbour), weights)
    total = votes.sum(axis=1, keepdims=True)
    uniform = np.full_like(votes, 1.0 / n_labels)
    return np.divide(votes, total, out=uniform, where=total > 0).astype(np.float32)


def _masked_lm_head(backbone: Backbone, prompt: Prompt) -> HeadReader:
    head = LabelColumns(backbone, label_tokens(backbone.tokenizer, prompt.words))

    def read(depth: int, states: Tensor, attention: Tensor, mask_positions: Tensor) -> Tensor:
        rows = torch.arange(states.shape[0], device=states.device)
        answer_states = backbone.normed(states[rows, mask_positions])
        return head(answer_states).float().softmax(dim=1)

    return read


def _sentence_encoder_head(backbone: Backbone, prompt: Prompt, centre: Tensor) -> HeadReader:
    described = _pooled_by_depth(backbone, Prompt(prompt.labels, prompt.words), [*prompt.words])
    descriptions = _normalised(described.float() - centre[:, None])

    def read(depth: int, states: Tensor, attention: Tensor, mask_positions: Tensor) -> Tensor:
        vectors = _normalised(pooled(backbone, states, attention) - centre[depth])
        return (COSINE_SCALE * vectors @ descriptions[depth].T).softmax(dim=1)

    return read


def _normalised(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _pooled_by_depth(
    backbone: Backbone,
    prompt: Prompt,
    texts: list[str],
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """(depths, texts, hidden) float64: the texts' pooled states at each depth."""
    result = torch.zeros(
        backbone.depth + 1,
        len(texts),
        backbone.hidden_size,
        dtype=torch.float64,
        device=backbone.device,
    )
    for batch in token_batches(backbone, encode(backbone, prompt, texts)):
        places = torch.as_tensor(batch.rows, device=backbone.device)
        attention = batch.inputs["attention_mask"]

        def visit(
            depth: int,
            states: Tensor,
            rows: Tensor,
            places: Tensor = places,
            attention: Tensor = attention,
        ) -> None:
            result[depth, places] = pooled(backbone, states, attention).double()

        walk(backbone.stack, batch.inputs, visit)
        check_numbers(backbone, texts, batch.rows, result[-1, places].cpu().numpy())
        on_rows(len(batch.rows))
    return result
