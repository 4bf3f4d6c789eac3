"""The nearest-neighbour index: a small interface over FAISS's flat, IVF and HNSW indexes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.errors import InputError

Nearest = Callable[
    [NDArray[np.float32], int],
    tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]],
]
"""`nearest(queries, k)` returns three arrays (queries, k): approximate squared distances, rows, and
squared distances as exact as can be."""

_QUERIES_AT_ONCE = 1_000
"""Queries searched in one step: bounds what the vectors of their neighbours take."""

_SPARE = 8

_ROUNDING = 1e-3
"""Far more than FAISS's own distances are off by, as a share of what they are made of."""
"""Rows asked of FAISS beyond those wanted: one may be the query itself, and FAISS's order is
inexact if distances nearly agree."""

# Queries times width from which FAISS multiplies matrices, 7 to 10 times as fast as comparing one
# by one already at 64 queries; its own threshold (128,000) leaves out a walk's batches.
faiss.cvar.distance_compute_blas_threshold = 8_000

_KINDS = (
    faiss.IndexFlat,
    faiss.IndexScalarQuantizer,
    faiss.IndexPQ,
    faiss.IndexIVFFlat,
    faiss.IndexIVFScalarQuantizer,
    faiss.IndexIVFPQ,
    faiss.IndexHNSWFlat,
    faiss.IndexHNSWSQ,
    faiss.IndexHNSWPQ,
)
"""Kinds that search by L2, take rows bit by bit and give them back."""

_FLAT_HEADER = 45
"""Bytes of a flat index's file before its keys, the last 8 of them how many numbers follow."""


class Index:
    """Keys in the order in which they were added; row n of the index is entry n."""

    def __init__(self, index: Any) -> None:
        self.nearest: Nearest | None = None
        """Searches instead of FAISS, among the keys that there are."""
        self._index = index
        self._core = core_of(index)
        if self._of_lists:
            self._core.make_direct_map(True)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """How many numbers a key has."""
        return int(self._index.d)

    @property
    def exact(self) -> bool:
        """True if a search finds the nearest rows for sure."""
        return isinstance(self._index, faiss.IndexFlat)

    @property
    def searched(self) -> int | None:
        """How widely a search looks: an IVF's nprobe, an HNSW's efSearch; None: at all rows."""
        if self._of_lists:
            return int(self._core.nprobe)
        if isinstance(self._core, faiss.IndexHNSW):
            return int(self._core.hnsw.efSearch)
        return None

    @searched.setter
    def searched(self, value: int) -> None:
        if self._of_lists:
            self._core.nprobe = value
        else:
            self._core.hnsw.efSearch = value

    @property
    def widths(self) -> list[int]:
        """Values of `searched` worth trying, powers of two; none if it looks at all rows."""
        if self.searched is None:
            return []
        # Below 16 an HNSW meets fewer rows than are asked of it.
        first, last = (1, self._core.nlist) if self._of_lists else (16, max(16, len(self)))
        return [2**n for n in range(first.bit_length() - 1, last.bit_length())]

    @property
    def _of_lists(self) -> bool:
        return isinstance(self._core, faiss.IndexIVF)

    def add(self, keys: NDArray[np.float32]) -> None:
        """Append keys (n, width).

        The same keys in the same order give the same bytes; an HNSW's only if the calls are the
        same, too.
        """
        assert self.nearest is None, "what searches instead of FAISS would not see these keys"
        with on_one_thread(isinstance(self._core, faiss.IndexHNSW)):
            self._index.add(np.ascontiguousarray(keys, dtype=np.float32))

    def keys(self, start: int, stop: int) -> NDArray[np.float32]:
        """The keys of rows start to stop, (stop - start, width); see `keys_of`."""
        return self.keys_of(np.arange(start, stop))

    def keys_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The keys of some rows, (n, width), as the index holds them.

        They are as they were added if the index is `Flat`, `IVF..,Flat` or `HNSW..`, and rounded if
        it holds codes (SQ, PQ) or transforms keys (OPQ, PCA).
        """
        return self._index.reconstruct_batch(rows)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: NDArray[np.int64] | None = None,
        within: NDArray[np.float32] | None = None,
    ) -> Neighbours:
        """The k nearest rows of each query, nearest first; equal distances by row.

        queries: (n, width) float32.  exclude: (n,) a row that the query must not find: itself, for
        leave-one-out.  If many more than k rows have one distance, FAISS chooses among them.
        Distances are to the keys as the index holds them (`keys_of`).  An index that is not exact
        misses some rows, and finds fewer than k if it meets no more.  within: (n,) squared
        distances that matter; rows beyond may be left out.
        Raises InputError if the queries have another width than the keys.
        """
        if queries.shape[1] != self.width:
            raise InputError(
                f"keys of width {queries.shape[1]} asked of an index of width {self.width}"
            )
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        distances = np.full((len(queries), k), np.inf, dtype=np.float32)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            but = None if exclude is None else exclude[some]
            up_to = None if within is None else within[some]
            found, squared = self._nearest(
                np.asarray(queries[some], dtype=np.float32), k, but, up_to
            )
            rows[some, : found.shape[1]] = found
            distances[some, : found.shape[1]] = squared
        return Neighbours(rows, distances, exclude)

    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: NDArray[np.int64] | None,
        within: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows and squared distances of some queries' neighbours, (n, at most k)."""
        asked = min(k + _SPARE, len(self))
        if self.nearest is None:
            nearly, rows = self._index.search(np.ascontiguousarray(queries), asked)
            distances = None
        else:
            nearly, rows, distances = self.nearest(queries, asked)
        if within is not None:
            slack = _ROUNDING * (within + np.square(queries).sum(axis=1))
            rows[nearly > (within + slack)[:, None]] = -1
        # FAISS expands |q - x|^2 for batches, which loses the digits of small distances and makes
        # them depend on the batch: the distances of what was found are worked out directly.
        if distances is None:
            distances = squared_distances(queries, self, rows)
        distances[rows < 0] = np.inf
        if exclude is not None:
            distances[rows == exclude[:, None]] = np.inf
        order = np.lexsort((rows, distances), axis=1)[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        rows = np.where(np.isinf(distances), -1, np.take_along_axis(rows, order, axis=1))
        return rows, distances

    def write(self, write: Callable[[bytes], object]) -> None:
        """Write in FAISS's own format, piece by piece; not for an index that was opened mapped."""
        if self._of_lists:
            assert isinstance(
                faiss.downcast_InvertedLists(self._core.invlists), faiss.ArrayInvertedLists
            ), "mapped lists would be written as the name of their file"
            # The location of each row is found anew on reading: files stay small, and a damaged
            # one cannot point outside the lists.
            self._core.make_direct_map(False)
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))  # type: ignore[attr-defined]
        if self._of_lists:
            self._core.make_direct_map(True)


def squared_distances(
    queries: NDArray[np.float32], index: Index, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared L2 distances (n, k) from queries (n, width) to rows (n, k); inf to row -1."""
    distances = np.full(rows.shape, np.inf)
    precise = queries.astype(np.float64)
    for i in range(rows.shape[1]):
        asked = np.flatnonzero(rows[:, i] >= 0)
        vectors = index.keys_of(rows[asked, i])
        distances[asked, i] = np.square(precise[asked] - vectors).sum(axis=1)
    return distances


def new_index(width: int) -> Index:
    """An empty exact index for keys of a width."""
    return Index(faiss.IndexFlatL2(width))


def index_from(data: bytes) -> Index:
    """An index out of what `Index.write` has written, in memory."""
    return Index(faiss.deserialize_index(np.frombuffer(data, np.uint8)))


def open_index(path: Path) -> Index:
    """An index from a local file, for searching; its keys stay in the file, mapped.

    The keys of a flat index and the lists of an IVF are mapped; the graph of an HNSW and codes
    without lists are read into memory.  Raises InputError if the file is missing, is no whole
    FAISS index, or holds a kind that is not read here.
    """
    if not path.is_file():
        raise InputError(f"there is no index {path}; fetch its version again")
    size = path.stat().st_size
    try:
        # A mapped flat index is read without a check that the file is as long as it says, and
        # FAISS's mapped reader crashes in files that end too early: it is for this kind alone.
        flags = faiss.IO_FLAG_MMAP_IFC if _is_whole_flat(path, size) else faiss.IO_FLAG_MMAP
        with _allocating_at_most(size):
            index = faiss.read_index(str(path), flags | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)
        return Index(_checked(index, path))
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"{path} is no whole index; `raee verify` says which files of a version are damaged"
        ) from error


def _is_whole_flat(path: Path, size: int) -> bool:
    with path.open("rb") as file:
        header = file.read(_FLAT_HEADER)
    numbers = int.from_bytes(header[-8:], "little")
    return header[:4] == b"IxF2" and size == _FLAT_HEADER + 4 * numbers


def _checked(index: Any, path: Path) -> Any:
    """An index that was read, if it can be searched; raises RuntimeError or InputError."""
    core = core_of(index)
    if not is_supported(index):
        raise InputError(
            f"{path} is an index of a kind that is not read here ({type(core).__name__}); "
            "write it as Flat, IVF or HNSW, by L2"
        )
    rows = core.ntotal
    if isinstance(core, faiss.IndexIVF):
        if core.invlists is None or not 1 <= core.nprobe <= core.nlist:
            raise RuntimeError("lists or nprobe are missing")
        lists: Any = faiss.downcast_InvertedLists(core.invlists)
        rows = lists.compute_ntotal()
        # FAISS would have 32 threads read the lists that each search is about to read.
        lists.prefetch_nthread = 0
    elif isinstance(core, faiss.IndexHNSW):
        rows = core.storage.ntotal
    if not rows == core.ntotal == index.ntotal or not index.is_trained:
        raise RuntimeError("rows or training are missing")
    if len(_widths(index)) > 1:
        raise RuntimeError("the parts are of several widths")
    return index


def _widths(index: Any) -> set[int]:
    """What the parts of an index say of the width of its keys: FAISS trusts that they agree."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        steps: Any = index.chain
        chain = [steps.at(i) for i in range(steps.size())]
        given = [index.d, *[step.d_out for step in chain]]
        taken = [*[step.d_in for step in chain], *_widths(index.index)]
        return {int(index.d)} if given == taken else {int(index.d), 0}
    widths = {int(index.d)}
    if isinstance(index, faiss.IndexIVF):
        widths |= _widths(index.quantizer)
    if isinstance(index, faiss.IndexHNSW):
        widths |= _widths(index.storage)
    if isinstance(index, faiss.IndexPQ | faiss.IndexIVFPQ):
        widths |= {int(index.pq.d)}
    if isinstance(index, faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer):
        widths |= {int(index.sq.d)}
    if isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat):
        widths |= {int(index.code_size) // 4}
    return widths


def core_of(index: Any) -> Any:
    """The FAISS index that searches, behind the transforms of keys before it."""
    index = faiss.downcast_index(index)
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


def is_supported(index: Any) -> bool:
    """True if rows can be added to a FAISS index, found by L2 and given back."""
    return isinstance(core_of(index), _KINDS) and index.metric_type == faiss.METRIC_L2


_reading = threading.Lock()


@contextmanager
def _allocating_at_most(size: int) -> Iterator[None]:
    """While this lasts, FAISS refuses to read vectors of more bytes, or more lists, than a file's.

    The limits are global to the process, so only one thread reads at a time.
    """
    with _reading:
        before = (
            faiss.get_deserialization_vector_byte_limit(),
            faiss.get_deserialization_loop_limit(),
        )
        faiss.set_deserialization_vector_byte_limit(size + 1)
        faiss.set_deserialization_loop_limit(size + 1)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])


@contextmanager
def on_one_thread(pinned: bool) -> Iterator[None]:
    """Within this context FAISS runs on one thread, if pinned.

    An HNSW's graph would depend on which of several threads comes first.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if pinned else threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
