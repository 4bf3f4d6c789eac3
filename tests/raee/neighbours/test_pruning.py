"""Rows go that the neighbours' vote can do without: KNN-Shapley values, and what stays."""

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raee.answers import Neighbours
from raee.neighbours.index import new_index
from raee.neighbours.pruning import keep_rows, knn_shapley, values


def _neighbours(orders) -> Neighbours:
    rows = np.array(orders, np.int64)
    return Neighbours(rows, np.ones(rows.shape, np.float32))


def _values(neighbours, label, k):
    """With every row as a query."""
    return values(neighbours, label, np.arange(len(label)), k)


@st.composite
def _databases(draw, most=7):
    """Every row's others, in any order, and labels: orders (rows, rows - 1)."""
    rows = draw(st.integers(2, most))
    others = [[i for i in range(rows) if i != row] for row in range(rows)]
    orders = [draw(st.permutations(some)) for some in others]
    label = draw(arrays(np.uint16, rows, elements=st.integers(0, 2)))
    return np.array(orders), label


def _vote(order, present, label, query, k) -> float:
    """The game, straight: right votes among the k nearest of those present, as a share of k."""
    nearest = [row for row in order if row in present][:k]
    return sum(label[row] == label[query] for row in nearest) / k


def _by_subsets(orders, label, k):
    """Shapley's formula: a row's marginal worth to each set of the others, by the set's size."""
    rows = len(label)
    worth = np.zeros(rows)
    for query, order in enumerate(orders.tolist()):
        for row in order:
            rest = [i for i in order if i != row]
            for size in range(len(rest) + 1):
                for some in combinations(rest, size):
                    gain = _vote(order, {*some, row}, label, query, k) - _vote(
                        order, set(some), label, query, k
                    )
                    worth[row] += gain / (len(order) * comb(len(rest), size))
    return worth / rows


@settings(max_examples=60)
@given(database=_databases(most=6), k=st.integers(1, 7))
def test_values_are_shapleys_by_definition(database, k):
    orders, label = database
    assert _values(_neighbours(orders), label, k) == pytest.approx(_by_subsets(orders, label, k))


def test_values_are_the_mean_of_marginals_over_all_orders_of_arrival():
    orders = np.array([[1, 2, 3, 4], [0, 4, 2, 3], [3, 0, 1, 4], [2, 4, 0, 1], [1, 3, 0, 2]])
    label, k = np.array([0, 0, 1, 1, 0], np.uint16), 2
    worth = np.zeros(5)
    for query, order in enumerate(orders.tolist()):
        for arrival in permutations(order):
            for i, row in enumerate(arrival):
                before = set(arrival[:i])
                worth[row] += _vote(order, {*before, row}, label, query, k)
                worth[row] -= _vote(order, before, label, query, k)
    assert _values(_neighbours(orders), label, k) == pytest.approx(worth / (5 * 24))


@given(database=_databases(most=12), k=st.integers(1, 14))
def test_values_sum_to_the_share_of_right_votes(database, k):
    orders, label = database
    rows = range(len(label))
    votes = [_vote(orders[q].tolist(), set(rows), label, q, k) for q in rows]
    assert _values(_neighbours(orders), label, k).sum() == pytest.approx(np.mean(votes))


@given(
    right=arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(2, 40))),
    m=st.integers(1, 39),
    k=st.integers(1, 12),
)
def test_missing_neighbours_move_a_querys_values_alike_and_little(right, m, k):
    others = right.shape[1]
    m = min(m, others - 1)
    there = np.ones_like(right)
    exact = knn_shapley(right, there, others, k)
    cut = knn_shapley(right[:, :m], there[:, :m], others, k)
    off = exact[:, :m] - cut
    assert np.ptp(off, axis=1) == pytest.approx(0)
    assert np.abs(off).max() <= 1 / max(m, k) + 1e-12
    assert np.abs(exact[:, m:]).max() <= 1 / max(m + 1, k) + 1e-12
    assert (cut[:, -1] == 0).all()


@given(database=_databases(most=9), data=st.data(), k=st.integers(1, 7))
def test_a_query_that_found_fewer_neighbours_is_as_if_asked_for_so_many(database, data, k):
    orders, label = database
    found = data.draw(arrays(np.int64, len(label), elements=st.integers(1, orders.shape[1])))
    short = np.where(np.arange(orders.shape[1]) < found[:, None], orders, -1)
    alone = [
        values(_neighbours(orders[[query], :m]), label, np.array([query]), k)
        for query, m in enumerate(found)
    ]
    assert _values(_neighbours(short), label, k) == pytest.approx(np.mean(alone, axis=0))


@given(database=_databases(most=9), data=st.data())
def test_values_follow_the_rows_whatever_their_order(database, data):
    orders, label = database
    moved = np.array(data.draw(st.permutations(range(len(label)))))
    back = np.argsort(moved)
    renamed = back[orders][moved]
    assert _values(_neighbours(renamed), label[moved], 3) == pytest.approx(
        _values(_neighbours(orders), label, 3)[moved]
    )


def test_more_rows_than_are_worked_on_at_once_have_the_same_values(monkeypatch):
    random = np.random.default_rng(0)
    label = random.integers(0, 3, 50).astype(np.uint16)
    found = _neighbours([random.permutation(np.delete(np.arange(50), i))[:20] for i in range(50)])
    whole = _values(found, label, 5)
    monkeypatch.setattr("raee.neighbours.pruning._QUERIES_AT_ONCE", 7)
    assert _values(found, label, 5) == pytest.approx(whole)


def test_places_without_a_neighbour_count_for_nothing():
    orders, label = np.array([[1, 2], [2, 0], [1, 0]]), np.array([0, 0, 1], np.uint16)
    missing = np.full((3, 2), -1)
    asked_for_four = _values(_neighbours(np.hstack([orders, missing])), label, 2)
    assert asked_for_four.tolist() == _values(_neighbours(orders), label, 2).tolist()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_row_without_others_is_worth_nothing(rows):
    found = Neighbours(np.full((rows, 5), -1), np.full((rows, 5), np.inf, np.float32))
    assert _values(found, np.zeros(rows, np.uint16), 3).tolist() == [0.0] * rows


def _values_of(keys, label, k=3):
    index = new_index(keys.shape[1])
    index.add(keys)
    rows = np.arange(len(keys))
    return _values(index.search(keys, len(keys) - 1, exclude=rows), label, k)


def test_a_wrongly_labelled_row_amid_others_is_worth_least():
    random = np.random.default_rng(1)
    keys = random.normal(size=(60, 2)).astype(np.float32) + np.repeat([[0], [8]], 30, axis=0)
    label = np.repeat([0, 1], 30).astype(np.uint16)
    label[7] = 1
    worth = _values_of(keys.astype(np.float32), label)
    assert worth.argmin() == 7
    assert worth[7] < 0
    assert 7 not in keep_rows(worth, label, 0.05)


def test_copies_hold_each_other_up_and_share_the_rest():
    # What the docstring says of copies, so that whoever prunes knows to remove them first.
    random = np.random.default_rng(2)
    keys = random.normal(size=(30, 3)).astype(np.float32)
    label = random.integers(0, 2, 30).astype(np.uint16)
    twice = np.concatenate([keys, keys[4:5]])
    alone = _values_of(keys, label) * 30
    both = _values_of(twice, np.append(label, label[4])) * 31
    assert both[30] == pytest.approx(both[4])
    assert both[4] > alone[4]
    disputed = _values_of(twice, np.append(label, 1 - label[4]).astype(np.uint16)) * 31
    assert max(disputed[4], disputed[30]) < both[4]
    assert disputed[4] < alone[4]


_VALUED = st.integers(1, 40).flatmap(
    lambda rows: st.tuples(
        arrays(np.float64, rows, elements=st.sampled_from([-1.0, -0.25, 0.0, 0.5, 2.0])),
        arrays(np.uint16, rows, elements=st.integers(0, 4)),
    )
)
_SHARES = st.integers(0, 100).map(lambda percent: percent / 100)


@given(valued=_VALUED, share=_SHARES)
def test_each_label_keeps_its_share_and_its_most_valuable_rows(valued, share):
    worth, label = valued
    kept = keep_rows(worth, label, share)
    assert kept.tolist() == sorted(set(kept.tolist()))
    percent = round(share * 100)
    for one in np.unique(label):
        rows = np.flatnonzero(label == one)
        stay = max(-(-(100 - percent) * len(rows) // 100), 1)
        best = sorted(rows.tolist(), key=lambda row: (-worth[row], row))[:stay]
        assert [row for row in kept if label[row] == one] == sorted(best)


@given(valued=_VALUED, shares=st.tuples(_SHARES, _SHARES))
def test_a_larger_share_keeps_some_of_the_rows_that_a_smaller_one_keeps(valued, shares):
    less, more = sorted(shares)
    assert set(keep_rows(*valued, more).tolist()) <= set(keep_rows(*valued, less).tolist())


def test_seven_tenths_of_ten_rows_are_seven():
    # (1 - 0.7) 10 is a little more than 3 in floating point.
    assert len(keep_rows(np.arange(10.0), np.zeros(10, np.uint16), 0.7)) == 3


def test_no_rows_are_no_rows():
    assert keep_rows(np.zeros(0), np.zeros(0, np.uint16), 0.5).tolist() == []


@given(_databases())
def test_queries_value_by_themselves_and_their_mean_is_the_value_by_all(database):
    orders, label = database
    found = _neighbours(orders)
    rows = np.arange(len(label))
    one_by_one = [values(found[rows[i : i + 1]], label, rows[i : i + 1], 3) for i in rows]
    assert np.mean(one_by_one, axis=0) == pytest.approx(_values(found, label, 3))
