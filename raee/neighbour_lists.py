"""Lists of neighbours in a database that changes: what stays of them is not searched for again."""

import numpy as np
from numpy.typing import NDArray

from raee.exits import Neighbours


def reach(before: Neighbours) -> NDArray[np.float32]:
    """(queries,) how far each list reaches: its farthest row's distance, -inf where it has none."""
    known = np.where(before.rows >= 0, before.distances, np.float32(-np.inf))
    return known.max(axis=1, initial=-np.inf)


def updated(
    before: Neighbours, now: NDArray[np.int64], came: Neighbours, length: int
) -> Neighbours:
    """The nearest rows after some have left the database and others have come.

    before: (queries, any) what was nearest.  now: (rows before,) where each row is now, -1 for one
    that left.  came: (queries, any) the nearest of the rows that came, by their places now.  The
    result, (queries, length), is right as far as it goes: beyond the farthest row of `before`
    nobody knows what else there is, so a list may be short, and its rest is -1.
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
