"""The nearest-neighbour index: a small interface over FAISS, exact search."""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from raee.errors import InputError
from raee.exits import Neighbours


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

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        """The k nearest rows of each query, nearest first; equal distances by row.

        queries: (n, width) float32.  exclude: (n,) a row that the query must not find: itself, for
        leave-one-out.  Raises InputError where the queries have another width than the keys.
        """
        if queries.shape[1] != self._index.d:
            raise InputError(
                f"keys of width {queries.shape[1]} asked of an index of width {self._index.d}"
            )
        found = min(k + (exclude is not None), len(self))
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        _, rows = self._index.search(queries, found)
        # FAISS expands |q - x|^2 for batches, which loses the digits of small distances and makes
        # them depend on the batch: the distances of what was found are worked out directly.
        vectors = self._index.reconstruct_batch(rows.ravel()).reshape(*rows.shape, -1)
        distances = np.square(queries[:, None].astype(np.float64) - vectors.astype(np.float64)).sum(
            axis=2
        )
        if exclude is not None:
            distances[rows == exclude[:, None]] = np.inf
        order = np.lexsort((rows, distances), axis=1)[:, :k]
        rows = np.take_along_axis(rows, order, axis=1).astype(np.int64)
        distances = np.take_along_axis(distances, order, axis=1).astype(np.float32)
        rows[np.isinf(distances)] = -1
        missing = ((0, 0), (0, k - rows.shape[1]))
        return Neighbours(
            np.pad(rows, missing, constant_values=-1),
            np.pad(distances, missing, constant_values=np.inf),
        )

    def write(self, write: Callable[[bytes], object]) -> None:
        """Write in FAISS's own format, piece by piece."""
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))


def new_index(width: int) -> Index:
    """An empty exact index for keys of a width."""
    return Index(faiss.IndexFlatL2(width))


def read_index(read: Callable[[int], bytes]) -> Index:
    """An index from FAISS's own format, read piece by piece (`read(n)` gives at most n bytes)."""
    return Index(faiss.read_index(faiss.PyCallbackIOReader(read)))
