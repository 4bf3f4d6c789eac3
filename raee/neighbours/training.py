"""Indexes that are not exact: whether one can be built, training it, and how much it finds."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.config import PAPER_NEIGHBOURS
from raee.errors import InputError
from raee.neighbours.choice import FLAT, IndexRecord, lists_of, recall_rows, training_rows
from raee.neighbours.index import Index, core_of, new_index, on_one_thread, squared_distances

RECALL = 0.95
"""Share of the nearest rows that a search should find."""

_PLATEAU = 0.001
"""Recall that looking twice as widely must gain: if it gains less, codes lose the rest."""

_ROWS_AT_ONCE = 65_536
"""Keys compared in one step: bounds what a copy of them takes."""

_CODE = r"(Flat|SQ4|SQ6|SQ8|SQfp16|PQ[1-9]\d{0,3}(x([4-9]|1[0-2]))?)"
_GRAPH = r"HNSW([4-9]|[1-9]\d|1[01]\d|12[0-8])"
_SPEC = re.compile(
    rf"((OPQ[1-9]\d{{0,3}}(_[1-9]\d{{0,4}})?|PCA[1-9]\d{{0,4}}),)?"
    rf"(IVF[1-9]\d{{0,6}}(_{_GRAPH})?,{_CODE}|{_GRAPH}(,{_CODE})?|{_CODE})"
)
"""Factory strings that make sense here: FAISS has more, but those cannot give rows back or take
them bit by bit, and it accepts some that end badly, such as IVF0 or HNSW1."""


_PRODUCT = (faiss.IndexPQ, faiss.IndexIVFPQ)


def check_index_spec(spec: str, width: int, rows: int) -> None:
    """Raises InputError if an index by this FAISS factory string cannot hold such keys.

    width: of a key.  rows: how many keys there are to train it on.
    """
    if _SPEC.fullmatch(spec) is None:
        raise InputError(
            f"index {spec!r} is none that is built here; write a FAISS factory string such as "
            "'Flat', 'HNSW32', 'IVF4096,Flat', 'IVF4096,SQ8' or 'OPQ48,IVF4096,PQ48'"
        )
    needed = lists_of(spec)  # FAISS takes memory for them at once
    if needed <= rows:
        needed = _rows_to_train(_empty(spec, width), width)
    if rows < needed:
        raise InputError(
            f"index {spec!r} is trained on at least {needed:,} rows, the database has {rows:,}; "
            f"use one with fewer lists, or {FLAT!r}"
        )


def built_index(
    spec: str,
    rows: int,
    width: int,
    keys_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    chunks: Iterable[NDArray[np.float32]],
) -> tuple[Index, IndexRecord]:
    """An index by its FAISS factory string with all keys, tuned, and its record for a manifest.

    keys_of: the keys of some rows, ascending, (n, width).  chunks: all keys in the order of their
    rows, (m, width) each: no more than one is in memory besides the index and its sample.
    Raises InputError if `check_index_spec` does.
    """
    index = trained_index(spec, width, keys_of(training_rows(spec, rows, width)))

    def added() -> Iterator[NDArray[np.float32]]:
        for keys in chunks:
            index.add(keys)
            yield keys

    asked = recall_rows(spec, rows)
    queries = keys_of(asked)
    exact = exact_neighbours(queries, added(), exclude=asked)
    return index, tune_index(index, spec, queries, exact)


def trained_index(spec: str, width: int, sample: NDArray[np.float32]) -> Index:
    """An empty index by its FAISS factory string, trained and ready for `add`.

    sample: (n, width) the keys of `training_rows`.  The same sample gives the same index, on any
    number of threads; if an HNSW is part of it, it is trained on one.
    Raises InputError if `check_index_spec` does.
    """
    if spec == FLAT:
        return new_index(width)
    check_index_spec(spec, width, len(sample))
    index = _empty(spec, width)
    coder = _coder(index)
    if hasattr(coder, "do_polysemous_training"):
        # By default codes are ordered for a search by Hamming distance, which nobody runs: that
        # takes nearly all of the time of training.
        coder.do_polysemous_training = False
    if isinstance(coder, faiss.IndexIVFPQ):
        # A table for each list and code would take gigabytes; it saves a quarter of a search.
        coder.use_precomputed_table = -1
    with on_one_thread("HNSW" in spec):
        index.train(np.ascontiguousarray(sample, dtype=np.float32))
    return Index(index)


def exact_neighbours(
    queries: NDArray[np.float32],
    chunks: Iterable[NDArray[np.float32]],
    k: int = PAPER_NEIGHBOURS,
    exclude: NDArray[np.int64] | None = None,
) -> Neighbours:
    """The k nearest of all keys to each query, nearest first; equal distances by row.

    queries: (n, width).  chunks: all keys in the order of their rows, (m, width) each.  All of them
    are read, even without queries: they may be added to an index on their way.
    exclude: (n,) a row that the query must not find.
    It takes the memory of a chunk, of 65,536 of its keys, and of what was found.
    """
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    distances = np.full((len(queries), k), np.inf, dtype=np.float32)
    begin = 0
    for chunk in chunks:
        for start in range(0, len(chunk) if len(queries) else 0, _ROWS_AT_ONCE):
            some = chunk[start : start + _ROWS_AT_ONCE]
            part = new_index(some.shape[1])
            part.add(some)
            found = part.search(queries, k, None if exclude is None else exclude - begin)
            # At the same distance, rows of an earlier part come before those of a later one: the
            # stable order keeps it so.
            both = np.concatenate([distances, found.distances], axis=1)
            order = np.argsort(both, axis=1, kind="stable")[:, :k]
            moved = np.where(found.rows < 0, -1, found.rows + begin)
            rows = np.take_along_axis(np.concatenate([rows, moved], axis=1), order, axis=1)
            distances = np.take_along_axis(both, order, axis=1)
            begin += len(some)
    return Neighbours(rows, distances, exclude)


def tune_index(
    index: Index,
    spec: str,
    queries: NDArray[np.float32],
    exact: Neighbours,
    target: float = RECALL,
) -> IndexRecord:
    """Let searches look as widely as it takes to find a share of the nearest rows; its record.

    queries: (n, width).  exact: their `exact_neighbours`.  The index then searches with the
    smallest power of two as nprobe or efSearch that reaches the target; if none does, with the
    one beyond which twice as much gains no more than 0.001.  It is written with the index.
    An exact index needs no queries.
    """
    recall = None
    if not index.exact:
        recall = _widened(index, queries, exact, target)
    return IndexRecord(
        spec=spec, rows=len(index), exact=index.exact, recall=recall, searched=index.searched
    )


def recall_of(index: Index, queries: NDArray[np.float32], exact: Neighbours) -> float:
    """Share of the exact neighbours that the index finds, from 0 to 1; 1 if there are none.

    A row counts if the index cannot tell it from an exact neighbour: any of many duplicates does.
    """
    own = squared_distances(queries, index, exact.rows).astype(np.float32)
    found = index.search(queries, own.shape[1], exact.own).distances
    hits = (found[:, :, None] == own[:, None, :]).any(axis=2) & np.isfinite(found)
    there = int((exact.rows >= 0).sum())
    return float(hits.sum() / there) if there else 1.0


def _widened(index: Index, queries: NDArray[np.float32], exact: Neighbours, target: float) -> float:
    before = 0.0
    for value in index.widths:
        index.searched = value
        recall = recall_of(index, queries, exact)
        if recall >= target:
            return recall
        if value > index.widths[0] and recall < before + _PLATEAU:
            index.searched = value // 2
            return before
        before = recall
    return before if index.widths else recall_of(index, queries, exact)


def _empty(spec: str, width: int) -> Any:
    """FAISS's index by a factory string; raises InputError if it does not go with the keys."""
    try:
        index = faiss.index_factory(width, spec)
    except RuntimeError as error:
        raise InputError(
            f"index {spec!r} does not go with keys of width {width}; OPQ and PQ must divide it"
        ) from error
    if core_of(index).d > width:
        raise InputError(f"index {spec!r} makes keys wider than they are, {width}; use fewer")
    return index


def _rows_to_train(index: Any, width: int) -> int:
    core = core_of(index)
    coder = _coder(index)
    return max(
        core.nlist if isinstance(core, faiss.IndexIVF) else 1,
        coder.pq.ksub if isinstance(coder, _PRODUCT) else 1,
        # OPQ fits product codes of 256 centroids; PCA fits as many directions as keys have numbers.
        max(width, 256) if isinstance(index, faiss.IndexPreTransform) else 1,
    )


def _coder(index: Any) -> Any:
    """The FAISS index that holds the codes of keys."""
    core = core_of(index)
    return faiss.downcast_index(core.storage) if isinstance(core, faiss.IndexHNSW) else core
