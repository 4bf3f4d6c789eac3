"""What a device has room for: how many tokens pass a model's layers at once."""

import logging
from typing import Any
from weakref import WeakKeyDictionary

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raee.errors import InputError
from raee.model.backbones import Backbone, Outline

logger = logging.getLogger("raee")

_TOKENS = {"cpu": 4_096, "cuda": 65_536, "mps": 16_384}
"""Tokens of one batch, padding included: enough to fill the device, small enough for its caches.

On a CPU, rows in full batches run a tenth to a third faster with 1,024; as soon as some leave, what
is left of such a batch is too little: rows with exits run a tenth to a third faster with 4,096."""

_SHARE = 0.5
"""Of a GPU's free memory that a layer's answers may take; the rest is for what else comes up."""

_BYTES = 4
"""Of a number in a layer's answers: norms and products may be in float32."""

_found: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""By model, the tokens to which batches keep since its device had no room for more."""


def budget_of(backbone: Backbone) -> int:
    """Tokens of a batch, padding included."""
    device = backbone.device
    most = _found.get(backbone.model, _TOKENS[device.type])
    if device.type != "cuda":
        return most
    free, _ = torch.cuda.mem_get_info(device)
    # What PyTorch holds and does not use is free, too.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(most, tokens_for(free, backbone))


def tokens_for(free: int, outline: Outline) -> int:
    """Tokens for which a layer has room in so many bytes, at least one.

    It is as if all that its linear layers answer with were there at the same time.
    """
    answers = outline.layer_parameters / outline.depth / outline.hidden_size
    return max(1, int(_SHARE * free / (_BYTES * answers)))


def keep_to(backbone: Backbone, tokens: int) -> None:
    """Keep the model's batches to so many tokens from now on, if they do not keep to fewer."""
    if tokens < _found.get(backbone.model, tokens + 1):
        _found[backbone.model] = tokens
        less = "%s has no room for a larger batch: batches have %d tokens at most from now on"
        logger.warning(less, backbone.device, tokens)
    if backbone.device.type == "cuda":
        torch.cuda.empty_cache()


def no_room(backbone: Backbone, tokens: int) -> InputError:
    """The error for a row of so many tokens that does not fit alone."""
    return InputError(
        f"{backbone.device} has no room for a row of {tokens} tokens beside the model: free some "
        "of its memory, or take a smaller model or dtype"
    )


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device; a GPU copies it while the CPU goes on."""
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
