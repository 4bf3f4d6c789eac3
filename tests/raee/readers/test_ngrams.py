"""N-grams are counted as a loop over a row's tokens counts them, and weighted as others do it."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfTransformer

from raee.readers.ngrams import count_known, count_ngrams, idf_of, token_ids, weighted
from tests.raee.ngrams import code_of, plain_ngrams

_LARGEST = 2**31 - 2
"""More than any vocabulary has."""
_ROWS = st.lists(st.lists(st.one_of(st.integers(0, 4), st.just(_LARGEST)), max_size=8), max_size=6)
"""Rows of few different tokens, so that n-grams occur again; some rows have none."""


def _ids(rows):
    return token_ids([np.array(row, np.int32) for row in rows])


def _random_rows(rows=60, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 30, generator.integers(0, 14)).tolist() for _ in range(rows)]


@given(_ROWS)
def test_counts_are_those_of_a_loop_over_the_tokens(rows):
    codes, counts = count_ngrams(_ids(rows))
    plain = [plain_ngrams(row) for row in rows]
    assert codes.tolist() == sorted({code_of(ngram) for row in plain for ngram in row})
    assert counts.shape == (len(rows), len(codes))
    place = {code: i for i, code in enumerate(codes.tolist())}
    expected = np.zeros(counts.shape)
    for i, row in enumerate(plain):
        for ngram, count in row.items():
            expected[i, place[code_of(ngram)]] = count
    np.testing.assert_array_equal(counts.toarray(), expected)


@given(_ROWS, _ROWS)
def test_ngrams_that_are_not_known_are_left_out(known, rows):
    codes, _ = count_ngrams(_ids(known))
    found = count_known(_ids(rows), codes)
    assert found.shape == (len(rows), len(codes))
    there = {code_of(ngram) for row in known for ngram in plain_ngrams(row)}
    place = {code: i for i, code in enumerate(sorted(there))}
    expected = np.zeros(found.shape)
    for i, row in enumerate(rows):
        for ngram, count in plain_ngrams(row).items():
            if code_of(ngram) in there:
                expected[i, place[code_of(ngram)]] = count
    np.testing.assert_array_equal(found.toarray(), expected)


def test_no_two_ngrams_have_one_number():
    tokens = (0, 1, 2, 30_521, _LARGEST - 1, _LARGEST)
    rows = [[one, other] for one in tokens for other in tokens]
    codes, _ = count_ngrams(_ids(rows))
    assert len(codes) == len(tokens) + len(tokens) ** 2
    assert codes.dtype == np.int64
    assert codes.min() == 0


@given(_ROWS, st.data())
def test_some_of_the_rows_are_the_rows_themselves(rows, data):
    positions = st.lists(st.integers(0, len(rows) - 1)) if rows else st.just([])
    some = data.draw(positions)
    found, expected = _ids(rows)[np.array(some, np.int64)], _ids([rows[i] for i in some])
    assert len(found) == len(some)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.starts, expected.starts)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_scikit_learns_tfidf(seed):
    _, counts = count_ngrams(_ids(_random_rows(seed=seed)))
    theirs = TfidfTransformer(sublinear_tf=True).fit(counts)
    idf = idf_of(counts)
    np.testing.assert_allclose(idf, theirs.idf_, rtol=1e-6)
    found = weighted(counts, idf)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), theirs.transform(counts).toarray(), atol=1e-6)


def test_fresh_rows_are_weighted_by_what_the_others_have():
    known, fresh = _random_rows(seed=3), _random_rows(rows=20, seed=4)
    codes, counts = count_ngrams(_ids(known))
    theirs = TfidfTransformer(sublinear_tf=True).fit(counts)
    own = count_known(_ids(fresh), codes)
    found = weighted(own, idf_of(counts)).toarray()
    np.testing.assert_allclose(found, theirs.transform(own).toarray(), atol=1e-6)
    length = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(length[length > 0], 1, atol=1e-6)


def test_a_row_without_a_known_ngram_has_no_weights():
    codes, counts = count_ngrams(_ids([[1, 2], [2]]))
    own = count_known(_ids([[], [7, 8], [2]]), codes)
    found = weighted(own, idf_of(counts))
    assert np.diff(found.indptr).tolist() == [0, 0, 1]
    assert np.isfinite(found.data).all()


def test_without_rows_there_is_nothing():
    codes, counts = count_ngrams(_ids([]))
    assert (len(codes), counts.shape) == (0, (0, 0))
    assert count_known(_ids([[1, 2]]), codes).shape == (1, 0)
    empty = sp.csr_matrix((2, 0), dtype=np.float32)
    assert weighted(empty, idf_of(empty)).shape == (2, 0)
