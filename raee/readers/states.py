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
    """One float32 unit vector a row, (n, pooled size): what a sentence encoder makes of its states.

    The encoder's configuration says what: the mean over the row's real tokens, its first or its
    last one, and the modules that follow.  states: (n, tokens, hidden) of a depth; attention:
    (n, tokens), 1 at real tokens.
    """
    after = backbone.after_pooling
    if backbone.pooling == "mean":
        if after is None:
            return token_mean(backbone, depth, states, attention)
        real = attention.float()
        sums = torch.einsum("ntd,nt->nd", backbone.normed(states, depth).float(), real)
        vectors = sums / real.sum(dim=1, keepdim=True)
    else:
        # Of equal ones, the first is found.
        first = attention.argmax(dim=1)
        last = attention.shape[1] - 1 - attention.flip(1).argmax(dim=1)
        rows = torch.arange(states.shape[0], device=states.device)
        read = states[rows, first if backbone.pooling == "cls" else last]
        vectors = backbone.normed(read, depth).float()
    return normalised(vectors if after is None else after(vectors))


def token_mean(backbone: Backbone, depth: int, states: Tensor, attention: Tensor) -> Tensor:
    """One float32 unit vector a row, (n, hidden): the mean over its own tokens.

    states: (n, tokens, hidden) of a depth; attention: (n, tokens), 1 at a row's own tokens.
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

    `mean`: the mean over a row's own tokens.  `answer`: what the family's head reads, the state at
    the answer position, or what the sentence encoder's own pooling and the modules after it make of
    the states; its width is `width_of`.  states: (n, tokens, hidden) of a depth; attention:
    (n, tokens), 1 at a row's own tokens; answer_positions: (n,).
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
    encodes = backbone.family == "sentence-encoder"
    plain = backbone.pooling == "mean" and backbone.after_pooling is None
    return ("mean",) if encodes and plain else ("mean", "answer")


def width_of(backbone: Backbone, state: StateName) -> int:
    """Width of a state."""
    encodes = backbone.family == "sentence-encoder"
    return backbone.pooled_size if encodes and state == "answer" else backbone.hidden_size


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
            f"{backbone.dtype}"
        )
