"""Models of which only the lower layers are loaded.

The library makes a model as it always does, on no memory; the upper layers are taken out of it
before weights are read, and of the checkpoint it reads what the model asks for.  Nothing here knows
an architecture, or what its configuration calls its layers.
"""

from typing import Any

import torch
from torch import nn


def layers_of(model: nn.Module) -> nn.ModuleList | None:
    """A model's list of layers: the longest of those that are in no other list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inner = {part for each in lists for part in each.modules() if part is not each}
    return max((each for each in lists if each not in inner), key=len, default=None)


def lower_part(auto: Any, config: Any, deepest: int, **settings: Any) -> tuple[Any, int] | None:
    """A class that loads as the library's own does but for the layers that are not needed.

    auto: the library's class by which the model is found; config: the model's own; deepest: the
    deepest depth that is read.  Returns the class, and how many layers the whole model has; None
    if all of them are needed, or it is an encoder with a decoder.
    """
    if config.is_encoder_decoder:
        return None
    with torch.device("meta"):
        whole = auto.from_config(config, **settings)
    # What comes after a layer is seen as it is in the whole only if another layer follows: with one
    # layer, DeBERTa's convolution between the first two would look like a final norm.
    kind, found, kept = type(whole), layers_of(whole.base_model), max(deepest, 1) + 1
    if found is None or len(found) <= kept:
        return None

    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        del layers_of(self.base_model)[kept:]

    # The library looks up the source of a class by its name and module.
    own = {"__init__": begin, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), own), len(found)
