"""What stays of lists of neighbours is what a search from nothing would find, as far as it goes."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raee.answers import Neighbours
from raee.neighbours.lists import updated

_COORDINATES = st.integers(0, 4)
_POINTS = st.lists(st.tuples(_COORDINATES, _COORDINATES), min_size=2, max_size=24)
"""On a small grid: distances are exact, and many agree."""


@st.composite
def _histories(draw):
    """Points, and which of them, in which order, were the database's rows at each time."""
    points = np.array(draw(_POINTS), float)
    rows = st.lists(st.integers(0, len(points) - 1), unique=True, min_size=1)
    return points, [np.array(r) for r in draw(st.lists(rows, min_size=2, max_size=5))]


def _search(keys, queries, length, exclude):
    """By comparing each query with every key."""
    distances = np.square(queries[:, None] - keys[None]).sum(axis=2)
    distances[np.arange(len(keys)) == exclude[:, None]] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")[:, :length]
    found = np.full((len(queries), length), np.inf)
    found[:, : order.shape[1]] = np.take_along_axis(distances, order, axis=1)
    rows = np.full((len(queries), length), -1)
    rows[:, : order.shape[1]] = order
    rows[np.isinf(found)] = -1
    return Neighbours(rows, found.astype(np.float32))


def _changed(points, before, now, lists, length):
    """The lists of a database's rows after a change; before, now: its points then and since."""
    place_before = {point: place for place, point in enumerate(before)}
    place_now = {point: place for place, point in enumerate(now)}
    source = np.array([place_before.get(point, -1) for point in now])
    moved = np.array([place_now.get(point, -1) for point in before])
    came = np.flatnonzero(source < 0)
    known = Neighbours(
        np.where(source[:, None] < 0, -1, lists.rows[source]), lists.distances[source]
    )
    itself = np.where(source < 0, np.searchsorted(came, np.arange(len(now))), -2)
    new = _search(points[now[came]], points[now], length, itself)
    new.rows[new.rows >= 0] = came[new.rows[new.rows >= 0]]
    return known, moved, updated(known, moved, new, length)


@given(history=_histories(), widths=st.tuples(*[st.integers(0, 8)] * 5))
def test_lists_after_changes_are_those_of_a_search_from_nothing_as_far_as_they_go(history, widths):
    points, databases = history
    everybody = [np.arange(len(rows)) for rows in databases]
    lists = _search(points[databases[0]], points[databases[0]], widths[0], everybody[0])
    for number, (before, now) in enumerate(pairwise(databases), 1):
        length = widths[number]
        known, moved, lists = _changed(points, before, now, lists, length)
        keys = points[now]
        whole = _search(keys, keys, len(now), everybody[number])
        assert lists.rows.shape == lists.distances.shape == (len(now), length)
        assert (lists.rows.dtype, lists.distances.dtype) == (np.int64, np.float32)
        for row, (found, distances) in enumerate(zip(lists.rows, lists.distances, strict=True)):
            there = int((found >= 0).sum())
            assert (found[there:] == -1).all(), "what is not known stands last"
            assert np.isinf(distances[there:]).all()
            # The nearest, in order; of equals any.
            np.testing.assert_array_equal(distances[:there], whole.distances[row, :there])
            really = np.square(keys[found[:there]] - keys[row]).sum(axis=1)
            np.testing.assert_array_equal(distances[:there], really)
            assert len({*found[:there], row}) == there + 1, "each once, and not itself"
            stayed = (moved[known.rows[row][known.rows[row] >= 0]] >= 0).sum()
            assert there >= min(stayed, length), "nothing that is known is forgotten"


def _one(rows, distances):
    return Neighbours(np.array([rows]), np.array([distances], np.float32))


def test_rows_that_left_are_not_named_and_those_that_stayed_have_their_new_places():
    now = np.array([3, -1, 0, -1])
    found = updated(_one([1, 2, 0, -1], [1, 2, 3, np.inf]), now, _one([], []), 4)
    assert found.rows.tolist() == [[0, 3, -1, -1]]
    assert found.distances.tolist() == [[2, 3, np.inf, np.inf]]


def test_of_the_rows_that_came_those_count_that_are_as_near_as_what_was_known():
    """Beyond it a row that was never listed may be nearer; the farthest may have left itself."""
    before, now = _one([0, 1], [1, 4]), np.array([0, -1])
    found = updated(before, now, _one([5, 6, 7], [2, 4, 5]), 4)
    assert found.rows.tolist() == [[0, 5, 6, -1]]
    assert found.distances.tolist() == [[1, 2, 4, np.inf]]


def test_of_a_row_of_which_nothing_was_known_nothing_is_known():
    found = updated(_one([-1, -1], [1, 4]), np.array([0]), _one([5, 6], [0, 1]), 2)
    assert found.rows.tolist() == [[-1, -1]]
    assert np.isinf(found.distances).all()


def test_equal_distances_are_in_the_order_of_the_rows():
    found = updated(_one([2, 0], [1, 1]), np.array([9, 1, 4]), _one([3], [1]), 3)
    assert found.rows.tolist() == [[3, 4, 9]]


def test_lists_may_grow_and_shrink():
    before, now = _one([0, 1, 2], [1, 2, 3]), np.array([0, 1, 2])
    nobody = _one([], [])
    assert updated(before, now, nobody, 2).rows.tolist() == [[0, 1]]
    assert updated(before, now, nobody, 5).rows.tolist() == [[0, 1, 2, -1, -1]]
    assert updated(before[:0], now, before[:0], 5).rows.shape == (0, 5)
