"""The index finds the exact nearest rows, in any batch, and survives writing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raee.neighbours.index import new_index
from tests.raee.clusters import unit_vectors
from tests.raee.errors import refused


def _index(keys):
    index = new_index(keys.shape[1])
    index.add(keys)
    return index


def _brute_force(keys, queries, k, exclude=None):
    """Rows and squared distances, nearest first and equal ones by row."""
    keys, queries = keys.astype(float), queries.astype(float)
    distances = np.array([((keys - query) ** 2).sum(axis=1) for query in queries])
    if exclude is not None:
        distances[np.arange(len(queries)), exclude] = np.inf
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distances, rows, axis=1)


@pytest.mark.parametrize("queries_at_once", [1, 1_200])
def test_neighbours_are_those_of_brute_force(queries_at_once):
    keys, queries = unit_vectors(500), unit_vectors(1_200, seed=1)
    # As near to a key as float32 can say: FAISS's own distances of these are noise.
    queries[::3] = keys[:400] * np.float32(1 + 1e-6)
    index = _index(keys)
    found = [
        index.search(queries[i : i + queries_at_once], 12)
        for i in range(0, len(queries), queries_at_once)
    ]
    rows, distances = _brute_force(keys, queries, 12)
    np.testing.assert_array_equal(np.concatenate([f.rows for f in found]), rows)
    np.testing.assert_allclose(np.concatenate([f.distances for f in found]), distances, rtol=1e-5)


def test_leave_one_out_never_finds_the_row_itself():
    keys = unit_vectors(1_100)
    own = np.arange(len(keys))
    found = _index(keys).search(keys, 12, exclude=own)
    rows, distances = _brute_force(keys, keys, 12, exclude=own)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


@given(
    keys=arrays(np.float32, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 2)),
    k=st.integers(1, 15),
    leave_out=st.booleans(),
)
def test_equal_distances_come_by_row_and_missing_neighbours_are_marked(keys, k, leave_out):
    own = np.arange(len(keys)) if leave_out else None
    found = _index(keys).search(keys, k, exclude=own)
    rows, distances = _brute_force(keys, keys, k, exclude=own)
    rows = np.where(np.isinf(distances), -1, rows)
    there = rows.shape[1]
    np.testing.assert_array_equal(found.rows[:, :there], rows)
    np.testing.assert_array_equal(found.distances[:, :there], distances.astype(np.float32))
    assert found.rows.shape == found.distances.shape == (len(keys), k)
    assert (found.rows[:, there:] == -1).all()
    assert np.isinf(found.distances[:, there:]).all()


@pytest.mark.parametrize("width", [8, 384])
def test_many_duplicates_find_k_others_at_distance_zero(width):
    keys = unit_vectors(100, width)
    keys[10:70] = keys[10]
    twins = np.arange(10, 70)
    found = _index(keys).search(keys[twins], 5, exclude=twins)
    assert (found.distances == 0).all()
    assert np.isin(found.rows, twins).all()
    assert (found.rows != twins[:, None]).all()
    assert all(len(set(row)) == 5 for row in found.rows.tolist())


def test_near_duplicates_are_told_apart_in_a_large_batch():
    # FAISS's own distances for a large batch are rounded at about 1e-7: it cannot order these.
    keys, queries = unit_vectors(200), unit_vectors(300, seed=1)
    lengths = np.sqrt(np.linspace(1e-8, 2e-8, 16, dtype=np.float32))
    keys[50:66] = queries[0] + unit_vectors(16, seed=2) * lengths[:, None]
    rows, _ = _brute_force(keys, queries[:1], 12)
    np.testing.assert_array_equal(_index(keys).search(queries, 12).rows[:1], rows)


def test_a_key_that_is_asked_for_is_found_at_distance_zero_in_a_large_batch():
    keys = unit_vectors(1_200)
    found = _index(keys).search(keys, 1)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(1_200))
    assert (found.distances == 0).all()


def test_no_queries_find_nothing():
    found = _index(unit_vectors(5)).search(np.zeros((0, 128), np.float32), 3)
    assert found.rows.shape == found.distances.shape == (0, 3)


def test_keys_come_back_in_the_order_in_which_they_were_added():
    keys = unit_vectors(20, 8)
    index = _index(keys[:7])
    index.add(keys[7:])
    assert len(index) == 20
    np.testing.assert_array_equal(index.keys(3, 12), keys[3:12])


def test_queries_of_another_width_are_refused():
    with refused("width 7 asked of an index of width 8"):
        _index(unit_vectors(5, 8)).search(np.zeros((1, 7), np.float32), 1)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_within_a_distance_nothing_is_missing_whatever_the_keys_length(scale):
    chooser = np.random.default_rng(3)
    keys = (scale * (5 + chooser.normal(size=(200, 16)))).astype(np.float32)
    index = new_index(16)
    index.add(keys)
    queries = keys[:50] + np.float32(scale * 1e-3)
    whole = index.search(queries, 12)
    limit = whole.distances[np.arange(50), np.arange(50) % 12]

    found = index.search(queries, 12, within=limit)

    for i in range(50):
        near = whole.distances[i] <= limit[i]
        assert set(whole.rows[i, near]) <= set(found.rows[i])
        there = found.rows[i] >= 0
        assert np.isin(found.rows[i, there], whole.rows[i]).all()
