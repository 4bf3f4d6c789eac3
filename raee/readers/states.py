"""What is read of a row at a depth: unit vectors made of the states of its tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.errors import InputError, cut
from raee.model.backbones import Backbone
from raee.readers.fit import StateName


def pooled(backbone: Backbone, depth: int, states: Tensor, attention: Tensor) -> Tensor:
    """One float32 unit vector a row, (n, hidden): the mean over its real tokens, or its first.

    The sentence encoder's configuration says which; other models get the mean.  states:
    (n, tokens, hidden) of a depth; attention: (n, tokens), 1 at real tokens.
    """
    if backbone.pooling == "cls":
        return normalised(backbone.normed(states[:, 0], depth).float())
    return token_mean(backbone, depth, states, attention)


def token_mean(backbone: Backbone, depth: int, states: Tensor, attention: Tensor) -> Tensor:
    """One float32 unit vector a row, (n, hidden): the mean over its real tokens.

    states: (n, tokens, hidden) of a depth; attention: (n, tokens), 1 at real tokens.
    """
    states = backbone.normed(states, depth).float()
    # The direction of the mean is that of the sum.
    return normalised(torch.einsum("ntd,nt->nd", states, attention.float()))


def probe_state(
    backbone: Backbone,
    state: StateName,
    depth: int,
    states: Tensor,
    attention: Tensor,
    answer_positions: Tensor,
) -> Tensor:
    """What fitted readers read of rows: float32 unit vectors (n, hidden).

    `mean`: the mean over a row's real tokens.  `answer`: what the family's head reads, the state
    at the answer position or the sentence encoder's own pooling.  states: (n, tokens, hidden) of a
    depth; attention: (n, tokens), 1 at real tokens; answer_positions: (n,).
    """
    if state == "mean":
        return token_mean(backbone, depth, states, attention)
    if backbone.family == "sentence-encoder":
        return pooled(backbone, depth, states, attention)
    return normalised(answer_state(backbone, depth, states, answer_positions).float())


def answer_state(
    backbone: Backbone, depth: int, states: Tensor, answer_positions: Tensor
) -> Tensor:
    """(n, hidden) the state at each row's answer position, as a language model's head expects it.

    states: (n, tokens, hidden) of a depth; answer_positions: (n,).
    """
    rows = torch.arange(states.shape[0], device=states.device)
    return backbone.normed(states[rows, answer_positions], depth)


def probe_states(backbone: Backbone) -> tuple[StateName, ...]:
    """The states among which a database's fitted readers choose theirs."""
    pools_mean = backbone.family == "sentence-encoder" and backbone.pooling == "mean"
    return ("mean",) if pools_mean else ("mean", "answer")


def normalised(vectors: Tensor) -> Tensor:
    """Vectors (n, hidden) scaled to length 1; vectors of length 0 stay."""
    return torch.nn.functional.normalize(vectors, dim=-1)


def check_numbers(
    backbone: Backbone, texts: Sequence[str], rows: NDArray[np.int64], read: NDArray[np.floating]
) -> None:
    """Raises InputError if a model has answered texts with values that are no numbers.

    rows: (n,) positions of the texts that were read; read: (n, ..) what was read of them.
    """
    wrong = ~np.isfinite(read).all(axis=tuple(range(1, read.ndim)))
    if wrong.any():
        raise InputError(
            f"{type(backbone.model).__name__} answers {cut(repr(texts[rows[wrong][0]]))} with what "
            f"are no numbers: its weights are damaged, or leave the range of "
            f"{backbone.fingerprint['dtype']}"
        )
