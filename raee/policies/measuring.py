"""Measures a cost table: what each part of classifying a row takes on this machine."""

import platform
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from raee.config import ReaderName
from raee.cores import single_threaded_products
from raee.exits import Exit
from raee.model.batches import Batches, encode
from raee.model.walk import walk
from raee.neighbours.keys import retriever_keys
from raee.policies.costs import Costs
from raee.reading import BatchReader, Database

_TEXTS = {"cpu": 256, "cuda": 4_096, "mps": 1_024}
"""Texts that a table is measured on; enough to fill batches."""

_TRIES = 3
"""Passes, of which the fastest counts: what the machine takes when nothing else runs on it."""


def texts_measured(database: Database) -> int:
    """How many texts a table is measured on."""
    return _TEXTS[database.backbone.device.type]


def machine(database: Database) -> str:
    """The device that a table is measured on, in words."""
    device = database.backbone.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def measure_costs(database: Database, texts: Sequence[str]) -> Costs:
    """The cost table of a database's readers, measured on some of its texts, in seconds a row.

    Raises InputError if the key's own model answers a text with values that are no numbers.
    """
    retriever = 0.0
    if database.retriever is not None:
        begun = time.perf_counter()
        retriever_keys(database.retriever, texts)
        retriever = (time.perf_counter() - begun) / len(texts)
    with single_threaded_products():
        tries = [_one_pass(database, texts) for _ in range(_TRIES)]
    # The search by an encoder's key is left out: the encoder's pass takes far longer.
    best = {part: min(t[part] for t in tries) / len(texts) for part in tries[0]}
    reads: dict[ReaderName, float] = {e.reader: best[str(e)] for e in _read(database)}
    there = {e.reader: e.of for e in database.entries.exits}
    for name, of in there.items():
        if of.costs_as:
            reads[name] = sum(reads.get(other, 0.0) for other in of.costs_as)
    fits = {} if database.fits is None else database.fits.parameters
    once = {name: of.asks_once(fits[name]) for name, of in there.items() if of.adds_up}
    return Costs(best["encode"], best["layer"], reads, retriever, best["enter"], once)


def _read(database: Database) -> list[Exit]:
    """One exit of each reader: the time of a reading hardly depends on the depth."""
    exits: dict[ReaderName, Exit] = {}
    for exit in database.entries.exits:
        asked = database.retriever is None or exit.of.source != "neighbours"
        if asked and not exit.of.costs_as:
            exits.setdefault(exit.reader, exit)
    return list(exits.values())


def _one_pass(database: Database, texts: Sequence[str]) -> dict[str, float]:
    """Seconds of one pass over all texts.

    They are `encode`, `enter`, `layer` (the mean of one), and each exit's.
    """
    entries, backbone = database.entries, database.backbone
    exits = _read(database)
    seconds: dict[str, float] = defaultdict(float)
    begun = time.perf_counter()
    encoded = encode(backbone, database.prompt, texts)
    mark = time.perf_counter()
    seconds["encode"] = mark - begun

    def lap(part: str) -> None:
        nonlocal mark
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        elif backbone.device.type == "mps":
            torch.mps.synchronize()
        now = time.perf_counter()
        seconds[part] += now - mark
        mark = now

    batches = Batches(backbone, encoded)
    for batch in batches:
        reader = BatchReader(database, batch, [])

        def visit(depth: int, states: Tensor, rows: Tensor, reader: BatchReader = reader) -> None:
            lap("layer" if depth else "enter")
            for exit in exits:
                if exit.depth == depth:
                    reader.enter(depth, states, rows)
                    lap("between")
                    reader.read(entries.exits.index(exit))
                    lap(str(exit))

        with batches.room():
            walk(backbone.stack, batch.inputs, visit)
    seconds.pop("between", None)
    seconds["layer"] /= backbone.depth
    return seconds
