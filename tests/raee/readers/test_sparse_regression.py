"""The regression on sparse rows is scikit-learn's, at its optimum."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from raee.readers import sparse_regression
from raee.readers.sparse_regression import SparseMap, regress_sparse

_ALIKE = 2e-3
"""The search ends if Newton's decrement is below 1e-3: the mean loss may still fall by 5e-7.  For a
row of chance p that is a difference of about the root of 2 p (1 - p) 5e-7, up to 5e-4; a few rows
may be three times as far from it."""


def _rows(labels, rows=400, columns=300, seed=0):
    """Unit rows of which few columns are not 0, most of them rare, and labels that hang on them."""
    generator = np.random.default_rng(seed)
    common = (1 / np.arange(1, columns + 1)) / (1 / np.arange(1, columns + 1)).sum()
    there = generator.random((rows, columns)) < np.minimum(12 * common, 0.9)
    values = there * generator.uniform(0.5, 2, (rows, columns))
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    leaning = 4 * values @ generator.normal(size=(columns, labels))
    leaning += 0.5 * np.log(np.arange(1, labels + 1)) + generator.gumbel(size=(rows, labels))
    label = leaning.argmax(axis=1)
    return sp.csr_matrix(values.astype(np.float32)), label.astype(np.uint16)


def _theirs(rows, label, penalty):
    """scikit-learn's probabilities, by another search in float64."""
    model = LogisticRegression(C=penalty, solver="lbfgs", tol=1e-9, max_iter=20_000)
    exact = rows.astype(np.float64)
    return model.fit(exact, label).predict_proba(exact)


def _probabilities(found, rows):
    return softmax(found.scores(rows), axis=1)


@pytest.mark.parametrize("labels", [2, 3, 12])
@pytest.mark.parametrize("penalty", [0.3, 3.0, 30.0])
def test_it_says_what_scikit_learn_says(labels, penalty):
    rows, label = _rows(labels)
    assert len(np.unique(label)) == labels
    found = regress_sparse(rows, label, labels, penalty)
    expected = _theirs(rows, label, penalty)
    np.testing.assert_allclose(_probabilities(found, rows), expected, atol=_ALIKE)


def test_a_label_without_rows_is_never_the_answer_and_changes_nothing():
    rows, label = _rows(3)
    plain = regress_sparse(rows, label, 3, 3.0)
    found = regress_sparse(rows, np.array([0, 2, 3])[label], 5, 3.0)
    assert found.biases[[1, 4]].tolist() == [-np.inf] * 2
    said = _probabilities(found, rows)
    np.testing.assert_array_equal(said[:, [1, 4]], 0)
    np.testing.assert_array_equal(said[:, [0, 2, 3]], _probabilities(plain, rows))


def test_a_single_label_is_certain():
    rows, _ = _rows(2)
    found = regress_sparse(rows, np.full(rows.shape[0], 1, np.uint16), 3, 3.0)
    np.testing.assert_array_equal(_probabilities(found, rows), [[0, 1, 0]] * rows.shape[0])
    assert not found.weights.any()


def test_without_columns_labels_have_their_shares():
    label = np.array([0, 0, 0, 1], np.uint16)
    found = regress_sparse(sp.csr_matrix((4, 0), dtype=np.float32), label, 2, 3.0)
    said = _probabilities(found, sp.csr_matrix((1, 0), dtype=np.float32))
    np.testing.assert_allclose(said, [[0.75, 0.25]], atol=1e-6)


@pytest.mark.parametrize("labels", [2, 5])
def test_a_search_that_begins_near_ends_at_the_same_optimum(labels):
    rows, label = _rows(labels)
    expected = _theirs(rows, label, 10.0)
    cold = regress_sparse(rows, label, labels, 10.0)
    fewer = regress_sparse(rows[:300], label[:300], labels, 3.0)
    generator = np.random.default_rng(0)
    astray = SparseMap(
        generator.normal(size=fewer.weights.shape).astype(np.float32), generator.normal(size=labels)
    )
    for near in (cold, fewer, astray):
        found = regress_sparse(rows, label, labels, 10.0, near)
        np.testing.assert_allclose(_probabilities(found, rows), expected, atol=_ALIKE)


def test_a_map_that_has_not_seen_a_label_is_no_place_to_begin():
    rows, label = _rows(3)
    two = label < 2
    near = regress_sparse(rows[two], label[two], 3, 3.0)
    assert near.biases[2] == -np.inf
    found = regress_sparse(rows, label, 3, 3.0, near)
    np.testing.assert_array_equal(found.weights, regress_sparse(rows, label, 3, 3.0).weights)


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("begin", ["nothing", "near"])
def test_columns_of_one_row_are_joined_without_a_difference(labels, begin, monkeypatch):
    rows, label = _rows(labels, rows=200, columns=3_000)
    assert (np.bincount(rows.indices, minlength=3_000) == 1).sum() > 300
    monkeypatch.setattr(sparse_regression, "_DECREMENT", 1e-5)
    near = regress_sparse(rows[:150], label[:150], labels, 3.0) if begin == "near" else None
    joined = regress_sparse(rows, label, labels, 10.0, near)
    monkeypatch.setattr(sparse_regression, "_joined", lambda rows: sp.eye_array(3_000, dtype="f4"))
    plain = regress_sparse(rows, label, labels, 10.0, near)
    np.testing.assert_allclose(joined.weights, plain.weights, atol=1e-3)
    np.testing.assert_allclose(joined.biases, plain.biases, atol=1e-4)
    np.testing.assert_allclose(_probabilities(joined, rows), _probabilities(plain, rows), atol=1e-4)


def test_a_row_acts_through_one_column_instead_of_those_that_it_alone_has():
    rows = np.zeros((4, 7), np.float32)
    rows[[0, 3], 0] = rows[[1, 3], 1] = 1
    rows[0, 2:5], rows[2, 5] = [3, 0, 4], 2  # columns 3 and 6 are nobody's
    basis = sparse_regression._joined(sp.csr_matrix(rows))
    np.testing.assert_allclose((basis.T @ basis).toarray(), np.eye(4), atol=1e-6)
    expected = [[1, 0, 5, 0], [0, 1, 0, 0], [0, 0, 0, 2], [1, 1, 0, 0]]
    np.testing.assert_allclose(rows @ basis.toarray(), expected, atol=1e-6)
