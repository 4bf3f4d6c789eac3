"""Indexes that are not exact: forced or chosen, they find what they say they find."""

import io

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raee.neighbours.index import new_index
from raee.neighbours.training import (
    check_index_spec,
    exact_neighbours,
    recall_of,
    trained_index,
    tune_index,
)
from tests.raee.clusters import clustered
from tests.raee.errors import refused

KEYS = clustered(3_000)

INEXACT = [
    "IVF32,Flat",
    "IVF32,SQ8",
    "IVF32,PQ8x6",
    "IVF32_HNSW16,Flat",
    "OPQ2,IVF32,PQ2x6",
    "PCA12,IVF32,Flat",
    "HNSW16",
    "HNSW16,SQ8",
    "HNSW16,PQ8x6",
    "SQ8",
    "PQ8x6",
]


def _built(spec, keys=KEYS, at_once=1_000, sample=2_000):
    index = trained_index(spec, keys.shape[1], keys[:sample])
    for start in range(0, len(keys), at_once):
        index.add(keys[start : start + at_once])
    return index


def _bytes(index):
    file = io.BytesIO()
    index.write(file.write)
    return file.getvalue()


@pytest.fixture(scope="module", params=INEXACT)
def built(request):
    """A factory string and its index of KEYS."""
    return request.param, _built(request.param)


def test_each_row_comes_back_near_to_what_was_added(built):
    spec, index = built
    assert len(index) == len(KEYS)
    assert not index.exact
    back = index.keys_of(np.array([2_999, 0, 17]))
    np.testing.assert_array_equal(back[1:], np.stack([index.keys(0, 1)[0], index.keys(17, 18)[0]]))
    off = np.square(back - KEYS[[2_999, 0, 17]]).sum(axis=1).max()
    if "SQ" in spec or "PQ" in spec or "PCA" in spec:
        assert 0 < off < 0.5
    else:
        assert off == 0


def test_distances_are_those_to_the_keys_as_held_nearest_first(built):
    _, index = built
    found = index.search(KEYS[:50], 12)
    held = index.keys_of(np.maximum(found.rows, 0).ravel()).reshape(50, 12, -1)
    direct = np.square(KEYS[:50, None] - held).sum(axis=2)
    there = found.rows >= 0
    np.testing.assert_allclose(found.distances[there], direct[there], rtol=1e-4, atol=1e-7)
    assert (np.diff(np.where(there, found.distances, 9), axis=1) >= 0).all()
    assert np.isinf(found.distances[~there]).all()


def test_a_row_that_is_left_out_is_not_found(built):
    _, index = built
    own = np.arange(1_200)
    found = index.search(KEYS[own], 5, exclude=own)
    assert (found.rows != own[:, None]).all()
    assert (found.rows[:, 0] >= 0).all()


def test_the_same_keys_give_the_same_bytes(built):
    spec, index = built
    before = _bytes(index)
    index.search(KEYS[:5], 3)
    assert _bytes(index) == before == _bytes(_built(spec))


def test_what_is_found_reaches_the_target_and_is_accounted_for(built):
    spec, index = built
    own = np.arange(0, 3_000, 10)
    exact = exact_neighbours(KEYS[own], [KEYS], exclude=own)
    account = tune_index(index, spec, KEYS[own], exact)
    assert account.spec == spec
    assert account.rows == 3_000
    assert not account.exact
    assert account.searched == index.searched
    assert account.recall == recall_of(index, KEYS[own], exact)
    if "PQ" not in spec and "PCA" not in spec and "SQ" not in spec:
        assert account.recall >= 0.95
        if index.searched > index.widths[0]:
            index.searched //= 2
            assert recall_of(index, KEYS[own], exact) < 0.95


@pytest.mark.parametrize("spec", ["IVF32,Flat", "IVF32,SQ8", "IVF8,PQ2x4"])
def test_chunks_and_threads_do_not_matter_to_lists(spec):
    threads = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1)
        alone = _bytes(_built(spec, at_once=3_000))
        assert _bytes(_built(spec, at_once=7)) == alone
        faiss.omp_set_num_threads(2)
        assert _bytes(_built(spec)) == alone
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(threads)


@pytest.mark.parametrize("spec", ["IVF4,Flat", "HNSW8"])
def test_fewer_rows_than_are_asked_for(spec):
    index = _built(spec, KEYS[:6])
    index.searched = 4
    found = index.search(KEYS[:6], 12, exclude=np.arange(6))
    assert (np.sort(found.rows, axis=1)[:, -5:] >= 0).all()
    assert (found.rows[:, 5:] == -1).all()
    assert np.isinf(found.distances[:, 5:]).all()


def test_an_exact_index_is_accounted_for_without_queries():
    index = new_index(16)
    index.add(KEYS)
    none = np.empty((0, 16), np.float32)
    passing = iter([KEYS])
    account = tune_index(index, "Flat", none, exact_neighbours(none, passing))
    assert next(passing, None) is None
    assert account.model_dump() == {
        "spec": "Flat",
        "rows": 3_000,
        "exact": True,
        "recall": None,
        "searched": None,
    }
    assert _bytes(trained_index("Flat", 16, none)) == _bytes(new_index(16))


def test_of_duplicates_any_count_as_found():
    keys = np.repeat(KEYS[:30], 100, axis=0)
    index = _built("IVF8,Flat", keys)
    index.searched = 8
    own = np.arange(0, 3_000, 100)
    assert recall_of(index, keys[own], exact_neighbours(keys[own], [keys], exclude=own)) == 1


def test_codes_that_cannot_reach_the_target_are_not_searched_without_end():
    index = _built("IVF256,PQ2x6")
    exact = exact_neighbours(KEYS[:200], [KEYS], exclude=np.arange(200))
    account = tune_index(index, "IVF256,PQ2x6", KEYS[:200], exact)
    assert account.recall < 0.95
    assert account.searched < 128


@given(
    keys=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.integers(0, 3)),
    cut=st.integers(1, 30),
    k=st.integers(1, 8),
    leave_out=st.booleans(),
)
def test_neighbours_over_chunks_are_those_over_all(keys, cut, k, leave_out):
    own = np.arange(len(keys)) if leave_out else None
    whole = new_index(2)
    whole.add(keys)
    expected = whole.search(keys, len(keys), exclude=own)
    chunks = (keys[i : i + cut] for i in range(0, len(keys), cut))
    found = exact_neighbours(keys, chunks, k, exclude=own)
    there = min(k, len(keys))
    np.testing.assert_array_equal(found.distances[:, :there], expected.distances[:, :there])
    assert (found.rows[:, there:] == -1).all()
    # At one distance, rows go up, and none comes twice.
    for rows, distances in zip(found.rows, found.distances, strict=True):
        assert [row for row in rows if row >= 0] == [
            row for _, row in sorted(zip(distances, rows, strict=True)) if row >= 0
        ]
        assert len({row for row in rows if row >= 0}) == (rows >= 0).sum()


@pytest.mark.parametrize(
    "spec",
    ["", "flat", "IVF0,Flat", "IVF64", "HNSW1", "IVF16,Flat,RFlat", "L2norm,Flat", "LSH",
     "IDMap,Flat", "NSG32", "IVF16,PQ4x4fs", "IVF99999999999,Flat", "IVF64,Flat\n", "PQ8x24"],
)  # fmt: skip
def test_what_is_no_index_here_is_refused(spec):
    with refused(r"is none that is built here; write a FAISS factory string such as 'Flat'"):
        check_index_spec(spec, 16, 10**6)


def test_what_does_not_go_with_the_keys_is_refused():
    with refused(r"index 'IVF16,PQ5' does not go with keys of width 16; OPQ and PQ must divide it"):
        check_index_spec("IVF16,PQ5", 16, 10**6)
    with refused(r"index 'PCA17,Flat' makes keys wider than they are, 16; use fewer"):
        check_index_spec("PCA17,Flat", 16, 10**6)


@pytest.mark.parametrize(
    ("spec", "needed"),
    [
        ("IVF1001,Flat", "1,001"),
        ("IVF8,PQ4x10", "1,024"),
        ("HNSW8,PQ4x10", "1,024"),
        ("IVF9999999,Flat", "9,999,999"),
    ],
)
def test_what_needs_more_rows_than_there_are_is_refused(spec, needed):
    with refused(f"index '{spec}' is trained on at least {needed} rows, the database has 1,000"):
        trained_index(spec, 16, KEYS[:1_000])
