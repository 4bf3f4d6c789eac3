"""A frozen model with everything that reading it needs."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from raee.config import Family
from raee.model.walk import Stack

Pooling = Literal["mean", "cls", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True)
class Backbone:
    """A loaded model with everything that reading it needs."""

    family: Family
    model: nn.Module
    """The model with its head (a sentence encoder has none)."""
    stack: Stack
    """Its layers, or the lowest of them if no more are read."""
    depth: int
    """How many layers the whole model has: the last depth."""
    deepest: int
    """The deepest depth that can be read; less than the last if upper layers are not loaded."""
    tokenizer: Any
    device: torch.device
    max_tokens: int
    """Longest input in tokens, special ones included."""
    pooling: Pooling
    """How a sentence encoder makes one vector of its tokens."""
    fingerprint: dict[str, str]
    """SHA-256 of config, tokenizer and weights, and the dtype that the weights run in."""
    after_pooling: nn.Sequential | None = None
    """Modules that a sentence encoder has after its pooling, in float32."""
    prefix: str = ""
    """What a sentence encoder's configuration puts before every text."""
    lower_case: bool = False
    """Whether a sentence encoder's configuration has every text lower-cased."""

    @property
    def hidden_size(self) -> int:
        """Width of a state."""
        return self.stack.width

    @property
    def pooled_size(self) -> int:
        """Width of what a sentence encoder makes of a text."""
        linear = [m for m in self.after_pooling or () for m in m.modules()]
        sizes = [m.out_features for m in linear if isinstance(m, nn.Linear)]
        return sizes[-1] if sizes else self.hidden_size

    @property
    def sums_device(self) -> torch.device:
        """Where sums in float64 are kept: Apple's GPUs have no such numbers."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    @property
    def layer_parameters(self) -> int:
        """How many parameters a token meets in one full pass, embeddings left out.

        A decoder's count in full, although it runs one token of a row.
        """
        loaded = sum(
            sum(p.numel() for p in part.layers.parameters()) * part.depth // len(part.layers)
            for part in self.stack.parts
        )
        return loaded * self.depth // self.stack.depth

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
