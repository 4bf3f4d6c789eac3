"""What all rows of a causal model share is computed once: the keys and values of their prefix.

An instruction, a chat template and demonstrations come before every text, and no token of a causal
model sees those that follow it.  So the tokens that all rows begin with pass the layers once, as a
row of their own, and each layer of a batch attends to what they left there.  That lies in the
model's own cache, once: it is expanded to a batch's rows only within the layer that reads it.
"""

import logging
from copy import copy
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache

from raee.errors import cut
from raee.model.backbones import Backbone
from raee.model.room import no_room
from raee.model.structure import is_far_from
from raee.model.walk import Inputs, walk

logger = logging.getLogger("raee")

_WORTH = 8
"""Tokens from which on a prefix is shared: a shorter one costs what its keys' copies do."""

_NAMES = ("cache", "past_key_values")
"""How models call the argument for their cache: newer versions of the library, and older ones."""

_kept: WeakKeyDictionary[nn.Module, tuple[bytes, Inputs | None]] = WeakKeyDictionary()
"""By model, the prefix that its rows have begun with last, and what is kept of it."""


def kept_prefix(backbone: Backbone, prefix: NDArray[np.int32]) -> Inputs | None:
    """What a model is called with, beside the tokens that follow a prefix: its keys and values.

    They are computed once for all batches, which leave them as they are, whatever their size.  None
    if rows have to run whole: the model is not causal, the prefix is short, or the model answers
    otherwise than in a whole pass.
    """
    if backbone.family != "causal-lm" or len(prefix) < _WORTH:
        return None
    model = backbone.stack.model
    own = prefix.tobytes()
    if model not in _kept or _kept[model][0] != own:
        _kept[model] = own, _computed(backbone, prefix)
    return _kept[model][1]


@torch.inference_mode()
def _computed(backbone: Backbone, prefix: NDArray[np.int32]) -> Inputs | None:
    model: Any = backbone.stack.model
    ids = torch.as_tensor(prefix[None].astype(np.int64), device=backbone.device)
    try:
        cache = DynamicCache(config=model.config)
        name = next(name for name in _NAMES if name in signature(model.forward).parameters)
        model(input_ids=ids, use_cache=True, **{name: cache})
        cache.layers = [_shared_by_rows(layer) for layer in cache.layers]
        is_exact = _is_exact(backbone, ids, {name: cache})
    except torch.OutOfMemoryError:
        raise no_room(backbone, len(prefix)) from None
    except Exception as error:  # whatever a model raises that keeps no keys, or others
        logger.info("backbone: rows run whole, with what they share (%s)", cut(error))
        return None
    if not is_exact:
        logger.info("backbone: rows run whole: with kept keys and values it answers otherwise")
        return None
    return {name: cache}


def _shared_by_rows(layer: Any) -> Any:
    """A layer of a cache of one row which batches of any size read and none changes."""

    def update(keys: Tensor, *args: Any, **kwargs: Any) -> Any:
        of_batch = copy(layer)
        of_batch.keys = layer.keys.expand(len(keys), -1, -1, -1)
        of_batch.values = layer.values.expand(len(keys), -1, -1, -1)
        return of_batch.update(keys, *args, **kwargs)

    shared = copy(layer)
    shared.update = update
    return shared


def _is_exact(backbone: Backbone, prefix: Tensor, kept_of_prefix: Inputs) -> bool:
    """Whether rows have the states that a whole pass gives them.

    prefix: (1, tokens).  Of three rows, two have padding, if there is room, and one leaves at
    depth 1.
    """
    size = min(3, backbone.max_tokens - prefix.shape[1])
    own = prefix[0, -size:].repeat(3, 1)
    real = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], device=own.device)[:, :size]
    ids = torch.cat([prefix.repeat(3, 1), own], dim=1)
    attention = torch.cat([torch.ones_like(prefix).repeat(3, 1), real], dim=1)
    found: list[list[Tensor]] = [[], []]
    ways = {"input_ids": ids}, {"input_ids": own, **kept_of_prefix}
    for states_of_way, inputs in zip(found, ways, strict=True):

        def visit(
            depth: int, states: Tensor, rows: Tensor, kept: list[Tensor] = states_of_way
        ) -> Tensor:
            kept.append(states[:, -size:][real[rows] == 1])
            return (rows > 0) | (depth < 1)

        walk(backbone.stack, {**inputs, "attention_mask": attention}, visit)
    rough = backbone.dtype != "float32"
    return not any(is_far_from(kept, whole, rough) for whole, kept in zip(*found, strict=True))
