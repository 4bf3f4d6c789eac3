"""What is measured of a shape in a number format; figures are computed of it in `tables`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel

from benchmarks.forward import Sweeping
from benchmarks.hardware.rate import Product
from benchmarks.hardware.shapes import Shape, evenly, layer_operations
from benchmarks.repeats import in_turn, timed
from raee.config import BackboneSpec, KeySpec
from raee.model.backbones import Backbone
from raee.model.batches import Batch, Batches, encode
from raee.model.loading import load_backbone
from raee.model.prompts import Prompt
from raee.model.walk import Visit, walk
from raee.readers.head import head_reader, read_centre

PROMPT = Prompt(("bad", "good"), ("a terrible film", "a great film"))
CENTRE_ROWS = 8
"""Rows that a head's centre is read of; random weights have no better one."""
FULL, EXITS = "full", "exits"
SWEEP, LOADED, PLAIN = "sweep", "loaded", "plain"

Found = dict[str, Any]
"""What `measured` writes down."""


def measured(
    shape: Shape, folder: Path, dtype: str, texts: Sequence[str], product: Product
) -> Found:
    """Take a model of random weights through its layers.

    folder: the model's.  product: the machine's fastest in this format, which takes turns.
    """
    spec = BackboneSpec.model_validate(
        {"family": "sentence-encoder", "model": str(folder), "dtype": dtype}
    )
    backbone = load_backbone(spec, torch.device("cpu"))
    walks, rows = _walks(shape, backbone, texts, product)
    sweeps = _sweeps(shape, backbone, [texts[row] for row in rows[: shape.swept]], folder)
    return {"shape": shape.title, "dtype": dtype, "target": shape.useful, **walks, **sweeps}


def _walks(
    shape: Shape, backbone: Backbone, texts: Sequence[str], product: Product
) -> tuple[Found, NDArray[np.int64]]:
    """Full depth, rows that leave evenly and the machine's product in turns; and the rows walked.

    The batches are those that the product makes of all the texts, or some of them: rows of one
    length side by side, those that leave together next to each other.
    """
    encoded = encode(backbone, PROMPT, texts)
    lengths = encoded.lengths
    plan = evenly(lengths, backbone.depth)
    batches = spaced([*Batches(backbone, encoded, plan)], shape.batches)
    rows = np.concatenate([batch.rows for batch in batches])
    ran: dict[str, int] = {}

    def walked(name: str, depths: NDArray[np.int64]) -> None:
        ran[name] = sum(
            walk(backbone.stack, batch.inputs, leaving(torch.from_numpy(depths[batch.rows])))
            for batch in batches
        )

    whole = np.full_like(plan, backbone.depth)
    # A first pass through the lowest layer: memory is there, and so are threads.
    walk(backbone.stack, batches[-1].inputs, leaving(torch.from_numpy(plan)), 1)
    rates: list[float] = []
    seconds: dict[str, list[float]] = {FULL: [], EXITS: []}
    for _ in range(shape.repeats):
        rates.append(product.rate())
        seconds[FULL].append(timed(lambda: walked(FULL, whole)))
        seconds[EXITS].append(timed(lambda: walked(EXITS, plan)))
    each = layer_operations(shape.config, lengths[rows])
    useful = {FULL: int((each * backbone.depth).sum()), EXITS: int((each * plan[rows]).sum())}
    assert ran[EXITS] == plan[rows].sum(), "rows have left where they were to leave"
    padded = sum(batch.inputs["input_ids"].numel() for batch in batches)
    found = {
        "rows": len(rows),
        "tokens": int(lengths[rows].sum()),
        "padded_tokens": padded,
        "layers_run": ran,
        "operations": useful,
        "rate": rates,
        "seconds": seconds,
    }
    return found, rows


def _sweeps(shape: Shape, backbone: Backbone, texts: Sequence[str], folder: Path) -> Found:
    """The sweep, the forward of its own model and that of the plain one, in turns."""
    head = head_reader(backbone, PROMPT, read_centre(backbone, PROMPT, [*texts[:CENTRE_ROWS]]))
    label = np.arange(len(texts), dtype=np.uint16) % len(PROMPT.labels)
    read = backbone, PROMPT, head, KeySpec()
    sweeping = Sweeping(*read, texts, label, len(PROMPT.labels))
    ways = {LOADED: sweeping.forward, SWEEP: sweeping.sweep}
    if backbone.dtype != "int8":  # transformers has no plain model in int8
        number = getattr(torch, backbone.dtype)
        plain = AutoModel.from_pretrained(folder, dtype=number).eval().requires_grad_(False)
        ways[PLAIN] = lambda: sweeping.forward(plain)
    return {
        "swept_rows": len(texts),
        "sweep_seconds": in_turn(ways, shape.repeats, warm_up=False),
    }


def leaving(depths: Tensor) -> Visit:
    """A visitor that lets rows leave at depths that were known before: (rows of the batch,)."""

    def visit(depth: int, states: Tensor, rows: Tensor) -> Tensor | None:
        stay = depths[rows] > depth
        return None if stay.all() else stay

    return visit


def spaced(batches: Sequence[Batch], count: int) -> list[Batch]:
    """So many of the batches, spread over them; the middle one if it is one."""
    count = min(count, len(batches))
    return [batches[int((i + 0.5) * len(batches) / count)] for i in range(count)]
