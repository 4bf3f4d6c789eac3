"""Pruning: which rows a database can do without.

A row is worth what it adds to the neighbours' vote on the other rows: KNN-Shapley (arXiv
1908.08619), the exact Shapley value of this game in closed form.
"""

import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.config import PAPER_NEIGHBOURS

Array = NDArray[np.float64]

NEIGHBOURS = 128
"""Neighbours of each row to work values out from: one beyond adds at most 1 / 128."""

_QUERIES_AT_ONCE = 16_384
"""Rows worked on in one step: bounds what their float64 arrays take."""


def values(
    neighbours: Neighbours,
    label: NDArray[np.uint16],
    queries: NDArray[np.int64],
    k: int = PAPER_NEIGHBOURS,
) -> Array:
    """What each row of a database is worth to some of the others, (rows,).

    neighbours: (queries, m) of each query among the other rows, as many as were found; label:
    (rows,); queries: positions of the rows that ask.  A row's value is the mean over the queries of
    what it is worth to each; it is negative if a row misleads.  With all others as
    neighbours (m = rows - 1) the values sum to the share of right votes among the k nearest, the
    mean over queries.

    Copies of one key and label share what one of them would be worth to other rows, but each is
    the other's nearest neighbour, and right: that holds them up, however little the vote would
    miss one.  So copies must be removed first if they are to go.  Copies of one key with different
    labels mislead each other, and go early.
    """
    rows = len(label)
    nearest = neighbours.rows[:, : max(rows - 1, 0)]  # beyond, there are none
    total = np.zeros(rows)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = nearest[start : start + _QUERIES_AT_ONCE]
        there = some >= 0
        right = there & (label[some] == label[queries[start : start + len(some)], None])
        worth = knn_shapley(right, there, rows - 1, k)
        total += np.bincount(some[there], worth[there], minlength=rows)
    return total / max(len(queries), 1)


def knn_shapley(right: NDArray[np.bool_], there: NDArray[np.bool_], others: int, k: int) -> Array:
    """What each neighbour is worth to its query, (queries, m) (arXiv 1908.08619, theorem 1).

    right: (queries, m) whether the m nearest of `others` rows have the query's label, nearest
    first.  there: (queries, m) False (as is then right) if a search that is not exact found no
    more.  The game: some rows are there, and together they are worth the number of right ones among
    the k nearest, divided by k.  From the farthest inwards, with r_i = 1 if the i-th is right,

        s_n = r_n / max(n, k)
        s_i = s_(i+1) + (r_i - r_(i+1)) min(k, i) / (k i)

    If neighbours are missing, the last one's s counts as 0 (theorem 2).  |s_i| is at most
    1 / max(i, k), so all are off by the same number, and it is small.
    """
    hits = right.astype(np.float64)
    known = hits.shape[1]
    rank = np.arange(1, known)
    steps = (hits[:, :-1] - hits[:, 1:]) * (np.minimum(k, rank) / (k * rank))
    worth = np.zeros_like(hits)
    steps[~there[:, 1:]] = 0
    worth[:, :-1] = np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
    if known == others:
        worth += hits[:, -1:] / max(others, k)
    return worth


def keep_rows(values: Array, label: NDArray[np.uint16], share: float) -> NDArray[np.int64]:
    """Positions of the rows that stay when a share of them goes, ascending.

    values, label: (rows,).  The ceil((1 - share) n) most valuable of each label's n rows stay, one
    at least, so that labels keep their balance; of equally valuable rows the first.
    """
    counts = np.bincount(label)
    # The count is rounded first: (1 - 0.7) 10 is a little more than 3.
    stay = np.maximum(np.ceil(np.round((1 - share) * counts, 6)), 1)
    order = np.lexsort((-values, label))  # stable: equal values stay in the rows' order
    rank = np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < np.repeat(stay, counts)])
