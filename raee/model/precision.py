"""In which number format a model runs: one that the hardware multiplies natively, the fastest.

A model's lowest layers are loaded in each format that the processor has, and a batch runs through
one of them in each.  What costs precision has to be worth it: a format is taken only if it is
faster by a tenth than the ones before it.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from raee.config import BackboneSpec
from raee.model.backbones import Backbone
from raee.model.batches import pad, padding_of
from raee.model.loading import device_of, load_lowest
from raee.model.native import Dtype, has_bfloat16, native_formats
from raee.model.walk import Inputs, walk

logger = logging.getLogger("raee")

_WORTH = 0.9
"""Share of the time of a more precise format that another may take to be chosen."""

_SECONDS, _TRIES = 1.0, 20
"""Most seconds of a trial, all formats together, and passes in each; there are three at least."""

_ROWS = 16
_TOKENS = 512
_OPERATIONS = 2e10
"""Most tokens of a trial's batch, in so many rows; and about how much arithmetic it may be."""


@dataclass(frozen=True)
class Precision:
    """The number format that a model runs in, and why."""

    dtype: Dtype
    why: str
    milliseconds: Mapping[str, float]
    """By format, how long a batch took in one layer on one core; empty if there was no trial."""

    @property
    def record(self) -> dict[str, Any]:
        """The record of a manifest."""
        return asdict(self)


@lru_cache(maxsize=8)
def precision_of(spec: BackboneSpec) -> Precision:
    """The format of a model on this machine: the job's own, or what `auto` is here.

    Raises InputError as `load_backbone` does.
    """
    if spec.dtype != "auto":
        return Precision(spec.dtype, "the job names it", {})
    device = device_of(spec)
    if has_bfloat16(device):
        return Precision("bfloat16", "the GPU has it", {})
    formats = native_formats()
    if device.type != "cpu" or spec.device_map is not None or len(formats) == 1:
        return Precision("float32", "nothing faster is known here", {})
    found = _trial(spec, formats)
    chosen = formats[0]
    for name in formats[1:]:
        if found[name] < _WORTH * found[chosen]:
            chosen = name
    why = ", ".join(f"{name} {found[name]:.1f} ms" for name in formats)
    logger.info(
        "backbone %s runs in %s (a batch in one layer on one core: %s)", spec.model, chosen, why
    )
    return Precision(
        chosen, f"the fastest: {why}", {str(name): taken for name, taken in found.items()}
    )


def settled(spec: BackboneSpec) -> BackboneSpec:
    """A model with its number format named, as `precision_of` finds it."""
    return in_precision(spec, precision_of(spec).dtype)


def in_precision(spec: BackboneSpec, dtype: str) -> BackboneSpec:
    """A model that runs in some number format."""
    return spec.model_copy(update={"dtype": dtype})


def _trial(spec: BackboneSpec, formats: Sequence[Dtype]) -> dict[Dtype, float]:
    """By format, the milliseconds that a batch takes in the lowest layer, on one core."""
    threads = torch.get_num_threads()
    try:
        # On one thread: several wait for each other, the longer the more else the machine does.
        torch.set_num_threads(1)
        # One model after the other: a large one's embeddings are held once.
        return {
            name: _milliseconds(load_lowest(in_precision(spec, name)), len(formats))
            for name in formats
        }
    finally:
        torch.set_num_threads(threads)


def _milliseconds(model: Backbone, formats: int) -> float:
    batch = _batch(model)
    tries: list[float] = []
    begun = time.perf_counter()
    while len(tries) < 3 or (
        len(tries) < _TRIES and time.perf_counter() - begun < _SECONDS / formats
    ):
        started = time.perf_counter()
        walk(model.stack, batch, lambda depth, states, rows: None, 1)
        tries.append(time.perf_counter() - started)
    return 1_000 * min(tries)


def _batch(model: Backbone) -> Inputs:
    """Rows of two lengths, as many tokens as a trial has time for."""
    of_layer = model.layer_parameters / model.depth
    tokens = max(_ROWS, min(_TOKENS, int(_OPERATIONS / (2 * of_layer))))
    longest = min(model.max_tokens, tokens // _ROWS)
    ids = np.random.default_rng(0).integers(0, len(model.tokenizer), (_ROWS, longest))
    rows = [row[: longest - i % 2] if longest > 1 else row for i, row in enumerate(ids)]
    return pad(rows, padding_of(model.tokenizer), model.device)
