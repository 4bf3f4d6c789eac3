"""A frozen model with everything that reading it needs."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from raee.config import Family
from raee.model.walk import Stack

Pooling = Literal["mean", "cls", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a model's small files say of it, and how its texts become tokens."""

    family: Family
    tokenizer: Any
    depth: int
    """How many layers the whole model has: the last depth."""
    hidden_size: int
    """Width of a state."""
    pooled_size: int
    """Width of what a sentence encoder makes of a text."""
    layer_parameters: int
    """How many parameters a token meets in one full pass, embeddings left out.

    A decoder's count in full, although it runs one token of a row.
    """
    max_tokens: int
    """Longest input in tokens, special ones included."""
    fingerprint: dict[str, str]
    """SHA-256 of config, tokenizer and weights."""
    prefix: str = ""
    """What a sentence encoder's configuration puts before every text."""
    lower_case: bool = False
    """Whether a sentence encoder's configuration has every text lower-cased."""


@dataclass(frozen=True, kw_only=True)
class Backbone(Outline):
    """A loaded model with everything that reading it needs."""

    model: nn.Module
    """The model with its head (a sentence encoder has none)."""
    stack: Stack
    """Its layers, or the lowest of them if no more are read."""
    deepest: int
    """The deepest depth that can be read; less than the last if upper layers are not loaded."""
    device: torch.device
    dtype: str
    """The number format that it runs in."""
    pooling: Pooling
    """How a sentence encoder makes one vector of its tokens."""
    after_pooling: nn.Sequential | None = None
    """Modules that a sentence encoder has after its pooling, in float32."""

    @property
    def identity(self) -> dict[str, str]:
        """What decides its answers: fingerprints and number format."""
        return self.fingerprint | {"dtype": self.dtype}

    @property
    def sums_device(self) -> torch.device:
        """Where sums in float64 are kept: Apple's GPUs have no such numbers."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def normed(self, states: Tensor, depth: int) -> Tensor:
        """States (.., hidden) of a depth as the head expects them: after the final norm, if any.

        In an encoder it is the encoder's own norm, in a decoder the decoder's.  It applies once, at
        every depth: the walk shows even the last depth's states from before it.
        """
        return self.stack.part_at(depth).normed(states)

    def tokens_at(
        self, depth: int, attention: Tensor, answer_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which of the tokens that a walk shows at a depth are a row's, and where rows are read.

        attention: (n, tokens), 1 at a row's own tokens; answer_positions: (n,); both as a batch
        has them.  They are returned as they are, but a decoder has one token a row: its first step.
        """
        if depth <= self.stack.ends[0]:
            return attention, answer_positions
        return torch.ones_like(attention[:, :1]), torch.zeros_like(answer_positions)
