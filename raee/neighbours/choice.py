"""Which index keys get, by how many there are, and the record of it in a version's manifest.

This module is light on purpose: importing it does not load faiss.
"""

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from raee.errors import InputError

FLAT = "Flat"
"""The exact index's FAISS factory string."""

EXACT_ROWS = 200_000
"""Rows up to which search is exact.

A query takes one core (x86, AVX2; width 384, batches of 512) 0.3 ms at 30,000 rows, 1.0 at 100,000,
2.9 at 300,000, 9.6 at 1,000,000.  Here it is 2 ms, what a few layers of a small encoder take on a
short text.  At 250,000 rows of overlapping clusters (benchmarks/index.py) an IVF finds 0.95 in
1.2 ms against 2.5: below, giving up exactness would save little.
"""

MEMORY = 8_000_000_000
"""Bytes that building an index may take by default."""

_GROWTH = 1.5
"""Memory of an IVF's lists as they grow, as a multiple of what they hold (measured: 1.5)."""

_SAMPLE_COPIES = 2
"""The training sample's memory while centroids are fitted: itself and what k-means makes of it."""

_ROWS_PER_CENTROID = 40
"""Sampled rows for each centroid: FAISS's own lower limit is 39, and time grows with it."""

_NUMBERS_PER_CODE = (4, 8, 16)
"""Numbers of a key that one byte of a PQ code encodes, in the order in which they are tried."""

_CODE_ROWS = 65_536
"""Sampled rows for quantizers: FAISS uses no more than 256 for each of a PQ's 256 centroids."""

_SAMPLE_BYTES = 2_000_000_000
"""Bytes that a training sample takes at most."""

_RECALL_ROWS = 1_000
"""Rows on which recall is measured: its standard error at 0.95 is below 0.003."""

_SEED = 20_240_515
"""Seed of the samples."""


class IndexRecord(BaseModel):
    """What a manifest records of an index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: str = Field(description="FAISS factory string.")
    rows: int = Field(description="Keys in it.")
    exact: bool = Field(description="Whether a search finds the nearest rows for sure.")
    recall: float | None = Field(
        description="Share of the 12 nearest rows that a search finds, measured; none if exact."
    )
    searched: int | None = Field(
        description="nprobe of an IVF, efSearch of an HNSW; none if a search looks at all rows."
    )


def choose_index(rows: int, width: int, memory: int = MEMORY) -> str:
    """The FAISS factory string for a number of keys of a width.

    It is `Flat` up to EXACT_ROWS; then an IVF whose lists hold the keys themselves, bytes for their
    numbers (SQ8) or product codes (PQ): the first that can be built in `memory` bytes.  There are
    about 4 sqrt(rows) lists.  Their centroids are compared one by one: a graph over 2,048 of them
    took longer than multiplying matrices, and keys that it filed wrongly were found at no width.
    Raises InputError if no index can be built in that memory.
    """
    if rows <= EXACT_ROWS and 4 * rows * width <= memory:
        return FLAT
    lists = 2 ** round(math.log2(4 * math.sqrt(rows)))
    product = [width // n for n in _NUMBERS_PER_CODE if width % n == 0]
    codes = {"Flat": 4 * width, "SQ8": width} | {f"PQ{size}": size for size in product}
    sample = 4 * width * _sample_rows(rows, width, lists)
    for code, size in codes.items():
        # A row's id takes 8 bytes in its list, and the row's location another 8.
        held = rows * (_GROWTH * (size + 8) + 8) + 4 * width * lists
        if max(held, _SAMPLE_COPIES * sample) <= memory:
            return f"IVF{lists},{code}"
    raise InputError(
        f"no index of {rows:,} keys of width {width} can be built in {memory:,} bytes; "
        "give it more memory or the database fewer rows"
    )


def training_rows(spec: str, rows: int, width: int) -> NDArray[np.int64]:
    """The rows on whose keys an index is trained, (n,) ascending; none for `Flat`.

    They are drawn with a fixed seed, and their keys take at most 2 GB.
    """
    if spec == FLAT:
        return np.empty(0, dtype=np.int64)
    return _drawn(rows, _sample_rows(rows, width, lists_of(spec)), _SEED)


def recall_rows(spec: str, rows: int) -> NDArray[np.int64]:
    """The rows on which an index's recall is measured, (n,) ascending; none for `Flat`."""
    return _drawn(rows, 0 if spec == FLAT else min(rows, _RECALL_ROWS), _SEED + 1)


def lists_of(spec: str) -> int:
    """How many lists an index has by its factory string; 0 if it is no IVF."""
    parts = [part for part in spec.split(",") if part.startswith("IVF")]
    return int(parts[0].removeprefix("IVF").partition("_")[0]) if parts else 0


def _sample_rows(rows: int, width: int, lists: int) -> int:
    most = _SAMPLE_BYTES // (4 * width)
    return min(rows, max(lists, min(most, max(_ROWS_PER_CENTROID * lists, _CODE_ROWS))))


def _drawn(rows: int, n: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).choice(rows, n, replace=False, shuffle=False))
