"""Lists of neighbours: of other texts only, and in a database that changes.

A changed database keeps what is still right of its lists, and searches only for the rest.
"""

import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.neighbours.index import Index
from raee.texts import TextHashes, Texts


def nearest_other_texts(
    index: Index,
    keys: NDArray[np.float32],
    k: int,
    hashes: TextHashes,
    texts: Texts,
    within: NDArray[np.float32] | None = None,
) -> Neighbours:
    """The k nearest rows of each query that have another text, nearest first.

    keys: (queries, width); hashes: (queries,) of their texts; texts: of the index's rows.  within:
    as in `Index.search`.  Queries with the same text are searched for once: their keys differ only
    by rounding.  Raises InputError if the keys have another width than the index's.
    """
    copies = texts.counts(hashes)
    _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
    if within is not None:
        # If queries with one text have different limits, all are searched up to the farthest.
        farthest = np.full(len(first), -np.inf, within.dtype)
        np.maximum.at(farthest, number, within)
        within = farthest[number]
    few = np.flatnonzero(copies <= 1)
    rows = np.full((len(keys), k), -1, np.int64)
    distances = np.full((len(keys), k), np.inf, np.float32)

    def near(some: NDArray[np.int64]) -> NDArray[np.float32] | None:
        return None if within is None else within[some]

    found = index.search(keys[few], k, texts.first_row(hashes[few]), near(few))
    rows[few], distances[few] = found.rows, found.distances
    repeated = first[copies[first] > 1]
    # A text's own copies come before all others: so many more are asked for, at most twice that.
    for more in np.unique(_power_of_two(copies[repeated])):
        some = repeated[_power_of_two(copies[repeated]) == more]
        found = index.search(keys[some], min(k + int(more), len(index)), within=near(some))
        own = (found.rows >= 0) & (texts.hashes[found.rows] == hashes[some, None])
        order = np.argsort(own | (found.rows < 0), axis=1, kind="stable")[:, :k]
        nearest = np.where(own, -1, found.rows)
        size = order.shape[1]
        rows[some, :size] = np.take_along_axis(nearest, order, axis=1)
        far = np.where(own, np.inf, found.distances)
        distances[some, :size] = np.take_along_axis(far, order, axis=1)
    same = np.flatnonzero(copies > 1)
    rows[same], distances[same] = rows[first[number[same]]], distances[first[number[same]]]
    return Neighbours(rows, distances)


def _power_of_two(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The least power of two that is no less than each count."""
    return 2 ** np.ceil(np.log2(counts)).astype(np.int64)


def reach(before: Neighbours) -> NDArray[np.float32]:
    """(queries,) squared distance to the farthest row of each list; -inf if the list has none."""
    known = np.where(before.rows >= 0, before.distances, np.float32(-np.inf))
    return known.max(axis=1, initial=-np.inf)


def updated(
    before: Neighbours, now: NDArray[np.int64], came: Neighbours, length: int
) -> Neighbours:
    """The nearest rows after some have left the database and others have come.

    before: (queries, any) what was nearest.  now: (rows before,) the position of each row now, -1
    for a row that left.  came: (queries, any) the nearest of the rows that came, by their positions
    now.  The result, (queries, length), is right as far as it goes: beyond the farthest row of
    `before` nobody knows what else there is, so a list may be short, and its rest is -1.
    """
    stayed = np.where(before.rows >= 0, now[before.rows], -1)
    within = (came.rows >= 0) & (came.distances <= reach(before)[:, None])
    rows = np.column_stack([stayed, np.where(within, came.rows, -1)])
    distances = np.column_stack([before.distances, came.distances])
    distances = np.where(rows >= 0, distances, np.inf).astype(np.float32)
    order = np.lexsort((rows, distances), axis=1)[:, :length]
    rows = np.take_along_axis(rows, order, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    missing = length - rows.shape[1]
    if missing > 0:
        rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
        distances = np.pad(distances, ((0, 0), (0, missing)), constant_values=np.inf)
    return Neighbours(rows, distances)
