"""A frozen model with everything that reading it needs."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raee.config import Family
from raee.model.walk import Stack

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class Backbone:
    """A loaded model with everything that reading it needs."""

    family: Family
    model: nn.Module
    """The model with its head (a sentence encoder has none)."""
    stack: Stack
    tokenizer: Any
    device: torch.device
    max_tokens: int
    """Longest input in tokens, special ones included."""
    pooling: Pooling
    """How a sentence encoder makes one vector of its tokens."""
    fingerprint: dict[str, str]
    """SHA-256 of config, tokenizer and weights, and the dtype that the weights run in."""

    @property
    def depth(self) -> int:
        """How many layers there are: the last depth."""
        return self.stack.depth

    @property
    def hidden_size(self) -> int:
        """Width of a state."""
        return self.stack.width

    @property
    def layer_parameters(self) -> int:
        """How many parameters a token meets in one full pass, embeddings left out.

        A decoder's count in full, although it runs one token of a row.
        """
        return sum(
            sum(p.numel() for p in part.layers.parameters()) * part.depth // len(part.layers)
            for part in self.stack.parts
        )

    def normed(self, states: Tensor, depth: int) -> Tensor:
        """States (.., hidden) of a depth as the head expects them: after the final norm, if any.

        In an encoder it is the encoder's own norm, in a decoder the decoder's.  It applies once, at
        every depth: the walk shows even the last depth's states from before it.
        """
        return self.stack.part_at(depth).normed(states)

    def tokens_at(
        self, depth: int, attention: Tensor, answer_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which of the tokens that a walk shows at a depth are real, and where rows are read.

        attention: (n, tokens), 1 at a row's real tokens; answer_positions: (n,); both as a batch
        has them.  They are returned as they are, but a decoder has one token a row: its first step.
        """
        if depth <= self.stack.ends[0]:
            return attention, answer_positions
        return torch.ones_like(attention[:, :1]), torch.zeros_like(answer_positions)
