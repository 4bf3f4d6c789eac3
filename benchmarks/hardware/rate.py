"""The machine's rate of matrix products in a number format: what a layer could reach at best."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch.nn.functional import linear

from benchmarks.repeats import timed
from raee.model.linears import Int8, Packed
from raee.model.native import can_pack

WIDTHS = ((1_024, 1_024), (1_024, 4_096), (4_096, 1_024))
"""In and out of the linear layers of BERT large."""
TOKENS = (1_024, 4_096)
SECONDS = 0.5
"""How long a product is tried for its best time."""


@dataclass(frozen=True)
class Product:
    """A matrix product of the kind of a linear layer's."""

    title: str
    run: Callable[[], Any]
    operations: int

    @torch.inference_mode()
    def rate(self, seconds: float = SECONDS) -> float:
        """Operations a second, the best of as many tries as there is time for."""
        begun, best = time.perf_counter(), timed(self.run)
        while time.perf_counter() - begun < seconds:
            best = min(best, timed(self.run))
        return self.operations / best


def fastest(dtype: str) -> Product:
    """The fastest of products of several shapes, by packed layers and by plain PyTorch."""
    best, rate = None, 0.0
    for each in products(dtype):
        each.rate(0)  # a first call prepares
        found = each.rate()
        if found > rate:
            best, rate = each, found
    assert best is not None, "plain PyTorch has products in each format"
    return best


def products(dtype: str) -> Iterator[Product]:
    """What is tried, one after the other."""
    dice = torch.Generator().manual_seed(0)
    for (width, out), tokens in product(WIDTHS, TOKENS):
        weight = torch.randn(out, width, generator=dice) / width**0.5
        states = torch.randn(tokens, width, generator=dice)
        for way, run in _ways(dtype, weight, states).items():
            title = f"{tokens:,} x {width:,} by {width:,} x {out:,}, {way}"
            yield Product(title, run, 2 * tokens * width * out)


def _ways(
    dtype: str, weight: torch.Tensor, states: torch.Tensor
) -> dict[str, Callable[[], torch.Tensor]]:
    """Ways to the same product.  weight: (out, in); states: (tokens, in); both float32."""
    if dtype == "int8":
        # Without the rounding of states at each call, which is what our layers add to it.
        small, by = ((_LEVELS * t / t.abs().max()).to(torch.int8) for t in (states, weight))
        turned = by.t()
        packed = Int8(weight, None, native=True)
        return {"packed": lambda: packed(states), "plain": lambda: torch._int_mm(small, turned)}
    number = getattr(torch, dtype)
    weight, states = weight.to(number), states.to(number)
    ways: dict[str, Callable[[], torch.Tensor]] = {"plain": lambda: linear(states, weight)}
    if can_pack():
        layer = Packed(weight, None)
        ways["packed"] = lambda: layer(states)
    return ways


_LEVELS = 127
"""Steps of int8 from nought to the largest value."""
