"""The nearest-neighbour index: a small interface over FAISS, exact search."""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from raee.errors import InputError
from raee.exits import Neighbours

_QUERIES_AT_ONCE = 1_000
"""Queries searched in one step: bounds what the vectors of their neighbours take."""

_SPARE = 8
"""Rows asked of FAISS beyond those wanted: one may be the query itself, and FAISS's order is
inexact where distances nearly agree."""

# Queries times width from which FAISS multiplies matrices, 7 to 10 times as fast as comparing one
# by one already at 64 queries; its own threshold (128,000) leaves out a walk's batches.
faiss.cvar.distance_compute_blas_threshold = 8_000


class Index:
    """Keys in the order in which they were added; row n of the index is entry n."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, keys: NDArray[np.float32]) -> None:
        """Append keys (n, width)."""
        self._index.add(np.ascontiguousarray(keys, dtype=np.float32))

    def keys(self, start: int, stop: int) -> NDArray[np.float32]:
        """The keys of rows start to stop, (stop - start, width)."""
        return self._index.reconstruct_n(start, stop - start)

    def keys_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The keys of some rows, (n, width)."""
        return self._index.reconstruct_batch(rows)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        """The k nearest rows of each query, nearest first; equal distances by row.

        queries: (n, width) float32.  exclude: (n,) a row that the query must not find: itself, for
        leave-one-out.  Of many more than k rows at one distance, FAISS chooses which are found.
        Raises InputError where the queries have another width than the keys.
        """
        if queries.shape[1] != self._index.d:
            raise InputError(
                f"keys of width {queries.shape[1]} asked of an index of width {self._index.d}"
            )
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        distances = np.full((len(queries), k), np.inf, dtype=np.float32)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            but = None if exclude is None else exclude[some]
            found, squared = self._nearest(np.asarray(queries[some], dtype=np.float32), k, but)
            rows[some, : found.shape[1]] = found
            distances[some, : found.shape[1]] = squared
        return Neighbours(rows, distances, exclude)

    def _nearest(
        self, queries: NDArray[np.float32], k: int, exclude: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows and squared distances of some queries' neighbours, (n, at most k)."""
        _, rows = self._index.search(np.ascontiguousarray(queries), min(k + _SPARE, len(self)))
        # FAISS expands |q - x|^2 for batches, which loses the digits of small distances and makes
        # them depend on the batch: the distances of what was found are worked out directly.
        vectors = self._index.reconstruct_batch(rows.ravel()).reshape(*rows.shape, -1)
        exact = queries.astype(np.float64)
        distances = np.stack(
            [np.square(exact - vectors[:, i]).sum(axis=1) for i in range(rows.shape[1])], axis=1
        )
        if exclude is not None:
            distances[rows == exclude[:, None]] = np.inf
        order = np.lexsort((rows, distances), axis=1)[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        rows = np.where(np.isinf(distances), -1, np.take_along_axis(rows, order, axis=1))
        return rows, distances

    def write(self, write: Callable[[bytes], object]) -> None:
        """Write in FAISS's own format, piece by piece."""
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))  # type: ignore[attr-defined]


def new_index(width: int) -> Index:
    """An empty exact index for keys of a width."""
    return Index(faiss.IndexFlatL2(width))


def read_index(read: Callable[[int], bytes]) -> Index:
    """An index from FAISS's own format, read piece by piece (`read(n)` gives at most n bytes)."""
    return Index(faiss.read_index(faiss.PyCallbackIOReader(read)))  # type: ignore[attr-defined]
