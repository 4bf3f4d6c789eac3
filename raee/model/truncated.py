"""Models of which only the lower layers are loaded.

The library makes a model as it always does, on no memory; the upper layers are taken out of it
before weights are read, and of the checkpoint it reads what the model asks for.  Nothing here knows
an architecture, or what its configuration calls its layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raee.model.structure import outer_lists


@dataclass(frozen=True)
class LowerPart:
    """The lower layers of a model, before any weight is read."""

    kind: Any
    """The class that loads them."""
    layers: int
    """How many they are."""
    depth: int
    """How many the whole model has."""
    deepest: int
    """The deepest depth that can be read."""


def lower_part(auto: Any, config: Any, deepest: int, **settings: Any) -> LowerPart | None:
    """What of a model is needed to read it up to a depth; None if all of it is.

    auto: the library's class by which the model is found; config: the model's own.
    """
    with torch.device("meta"):
        whole = auto.from_config(config, **settings)
    sizes = [len(layers) for layers in layer_lists(whole)]
    kept = _kept(sizes, deepest)
    if kept == sizes:
        return None
    kind = type(whole)

    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        for layers, few in zip(layer_lists(self), kept, strict=True):
            del layers[few:]

    # The library looks up the source of a class by its name and module.
    own = {"__init__": begin, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    cut = next(i for i, few in enumerate(kept) if few < sizes[i])
    below = sum(sizes[:cut])
    return LowerPart(
        kind=type(kind.__name__, (kind,), own),
        layers=sum(kept),
        depth=sum(sizes),
        deepest=below + (kept[cut] if cut == 0 or deepest > below else 0),
    )


def _kept(sizes: Sequence[int], deepest: int) -> list[int]:
    """How many layers are kept of each list; one after the other they are the model's layers.

    There are two at least: of one alone, what is only between the first two (DeBERTa's convolution)
    would look like a final norm.  Of a list that is not read, one stays: a pass goes through it.
    """
    kept: list[int] = []
    below = 0
    for size in sizes:
        reads = not kept or deepest > below
        kept.append(min(size, max(deepest - below, 2) if reads else 1))
        below += size
    return kept


def layer_lists(model: Any) -> list[nn.ModuleList]:
    """A model's lists of layers in the order in which they run: an encoder's, then a decoder's."""
    base = model.base_model
    parts = [base.get_encoder(), base.get_decoder()] if base.config.is_encoder_decoder else [base]
    return [max(outer_lists(part), key=len, default=nn.ModuleList()) for part in parts]
