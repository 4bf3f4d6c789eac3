"""The closed form is the formula's, and its left-out scores are those of a refit."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from raee.readers.discriminant import SHRINKAGES, left_out_scores, linear_map, scatter_at
from raee.readers.sums import sums_of
from raee.texts import copies_of
from tests.raee.entries import each_once


def _rows(counts, width, spread, seed):
    """(rows, width) unit vectors around one direction, and labels with so many rows each."""
    generator = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), counts).astype(np.uint16)
    generator.shuffle(label)
    x = generator.normal(size=width) + spread * generator.normal(size=(len(label), width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), label


def _straight_scores(x, label, labels, shrinkage, query):
    """The formula for one query, with an inverse; the scatter as a covariance."""
    n, width = x.shape
    x, query = x.astype(np.float64), query.astype(np.float64)
    means, scatter = np.zeros((labels, width)), np.zeros((width, width))
    for c in set(label.tolist()):
        means[c] = x[label == c].mean(axis=0)
        for row in x[label == c] - means[c]:
            scatter += np.outer(row, row)
    k = np.zeros((width, width))
    if np.trace(scatter) > 1e-10 * n:  # states that vary
        ridge = shrinkage * np.trace(scatter) / width * np.eye(width)
        k = n * np.linalg.inv(scatter + ridge)
    scores = np.full(labels, -np.inf)
    for c in set(label.tolist()):
        share = (label == c).sum() / n
        scores[c] = query @ k @ means[c] - means[c] @ k @ means[c] / 2 + np.log(share)
    return scores


def _refit_scores(x, label, labels, shrinkage, query):
    weights, biases = linear_map(scatter_at(sums_of(x[None], label, labels), 0), shrinkage)
    return weights @ query.astype(np.float64) + biases


def _assert_same(found, expected, tolerance):
    """The same scores, up to a constant that softmax and argmax do not see."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    assert (found[~finite] == -np.inf).all()
    found, expected = (
        found[finite] - found[finite].mean(),
        expected[finite] - expected[finite].mean(),
    )
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


_TOLERANCES = {1.0: 1e-9, 0.3: 1e-9, 0.01: 1e-6, 0.001: 1e-4, 0.0: 1e-9}
"""By spread: of a variance v, sums of unit vectors keep the digits to about 1e-16 / v."""


def _left_out(x, label, labels, shrinkage, text=None):
    text = np.arange(len(x)) if text is None else text
    hashes = text.astype(np.uint64)
    scatter = scatter_at(sums_of(x[None], label, labels), 0)
    return left_out_scores(scatter, shrinkage, x, copies_of(hashes, hashes, label, labels))


def _assert_refit(x, label, labels, shrinkage, found, tolerance, text=None):
    """Each row's scores are those of a fit without its text, with the shares of all rows."""
    text = np.arange(len(x)) if text is None else text
    there = np.bincount(label, minlength=labels)
    for row in range(len(x)):
        others = text != text[row]
        if not others.any():
            np.testing.assert_array_equal(found[row], 0)
            continue
        left = np.bincount(label[others], minlength=labels)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = np.where(left > 0, np.log(there / there.sum()) - np.log(left / left.sum()), 0)
        rest = x[others], label[others], labels, shrinkage, x[row]
        _assert_same(found[row], _refit_scores(*rest) + kept, tolerance)
        _assert_same(found[row], _straight_scores(*rest) + kept, tolerance)


@settings(max_examples=80)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(lambda c: sum(c) > 1),
    width=st.integers(1, 24),
    spread=st.sampled_from(list(_TOLERANCES)),
    shrinkage=st.sampled_from(SHRINKAGES[:7]),
    seed=st.integers(0, 999),
)
@example(counts=[1, 5, 4], width=3, spread=1.0, shrinkage=0.01, seed=0)
@example(counts=[2, 5, 4], width=3, spread=1.0, shrinkage=0.01, seed=0)
@example(counts=[0, 5, 4], width=3, spread=1.0, shrinkage=0.01, seed=0)
@example(counts=[1, 1, 1], width=3, spread=1.0, shrinkage=0.1, seed=0)
@example(counts=[9], width=3, spread=1.0, shrinkage=0.1, seed=0)
@example(counts=[3, 4], width=40, spread=1.0, shrinkage=0.003, seed=0)
@example(counts=[3, 4, 1], width=5, spread=0.0, shrinkage=0.1, seed=0)
@example(counts=[30, 40, 3], width=5, spread=0.001, shrinkage=0.003, seed=0)
def test_scores_without_a_row_are_those_of_a_fit_without_it(counts, width, spread, shrinkage, seed):
    x, label = _rows(counts, width, spread, seed)
    found = _left_out(x, label, len(counts), shrinkage)
    _assert_refit(x, label, len(counts), shrinkage, found, _TOLERANCES[spread])


@settings(max_examples=60)
@given(
    texts=st.integers(1, 9),
    labels=st.integers(1, 4),
    width=st.integers(1, 12),
    shrinkage=st.sampled_from(SHRINKAGES),
    seed=st.integers(0, 999),
)
def test_equal_texts_leave_together_whatever_their_labels(texts, labels, width, shrinkage, seed):
    generator = np.random.default_rng(seed)
    own, _ = _rows([texts], width, 1.0, seed)
    text = generator.integers(0, texts, 25)
    label = generator.integers(0, labels, 25).astype(np.uint16)
    found = _left_out(own[text], label, labels, shrinkage, text)
    _assert_refit(own[text], label, labels, shrinkage, found, 1e-6, text)


def test_rows_of_which_a_sample_is_asked_leave_with_all_their_equals():
    own, _ = _rows([6], 4, 1.0, seed=7)
    text = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    label = (text % 3).astype(np.uint16)
    label[::4] = 0
    hashes, x = text.astype(np.uint64), own[text]
    scatter = scatter_at(sums_of(x[None], label, 3), 0)
    some = np.array([0, 4, 20])
    copies = copies_of(hashes[some], hashes, label, 3)
    np.testing.assert_allclose(
        left_out_scores(scatter, 0.1, x[some], copies),
        _left_out(x, label, 3, 0.1, text)[some],
        atol=1e-9,
    )


def test_states_that_say_nothing_are_answered_with_the_commonest_label():
    # With the shares of the other rows alone, of two equal labels a row's own would be the rarer.
    x, label = _rows([10, 10], width=4, spread=0.0, seed=2)
    found = _left_out(x, label, 2, 0.1)
    np.testing.assert_allclose(found[:, 0], found[:, 1])


@pytest.mark.parametrize("counts", [[5, 4], [5, 1]])
def test_the_only_row_that_differs_may_be_the_one_that_is_left_out(counts):
    x, label = _rows(counts, width=3, spread=0.0, seed=6)
    for odd in range(len(x)):
        changed = x.copy()
        changed[odd] = [0.6, 0.0, -0.8]
        _assert_refit(changed, label, 2, 0.1, _left_out(changed, label, 2, 0.1), 1e-9)


@pytest.mark.parametrize("width", [1, 4, 30])
def test_the_map_is_the_formulas(width):
    x, label = _rows([7, 0, 5, 1], width, 1.0, seed=1)
    for shrinkage in SHRINKAGES:
        for query in x[:3]:
            rest = x, label, 4, shrinkage, query
            _assert_same(_refit_scores(*rest), _straight_scores(*rest), 1e-9)


def test_states_that_do_not_vary_leave_the_decision_to_the_labels_shares():
    x, label = _rows([2, 6], width=4, spread=0.0, seed=2)
    weights, biases = linear_map(scatter_at(sums_of(x[None], label, 2), 0), 0.1)
    np.testing.assert_array_equal(weights, 0)
    np.testing.assert_allclose(np.exp(biases), [0.25, 0.75])


def test_a_row_that_nothing_is_left_without_fits_every_label_as_well():
    x, label = _rows([0, 1], width=4, spread=1.0, seed=3)
    np.testing.assert_array_equal(_left_out(x, label, 2, 0.1), [[0, 0]])


@pytest.mark.parametrize("seed", range(10))
def test_one_text_that_every_row_has_fits_every_label_as_well(seed):
    # Without it no row is left, and of the scatter what was rounded.
    own, _ = _rows([1], width=8, spread=1.0, seed=seed)
    text, label = np.zeros(100, np.int64), (np.arange(100) % 3).astype(np.uint16)
    np.testing.assert_array_equal(_left_out(own[text], label, 3, 0.1, text), np.zeros((100, 3)))


def test_some_of_the_rows_have_the_scores_that_they_have_among_all():
    x, label = _rows([3_000, 2_500], width=3, spread=1.0, seed=4)  # more than one step's
    scatter = scatter_at(sums_of(x[None], label, 2), 0)
    some = slice(4_000, 4_200)
    everything = left_out_scores(scatter, 0.1, x, each_once(label))
    assert everything.shape == (5_500, 2)
    np.testing.assert_allclose(
        left_out_scores(scatter, 0.1, x[some], each_once(label[some])),
        everything[some],
        atol=1e-12,
    )


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("counts", [[20, 20, 20], [40, 15, 5]], ids=["equal", "unequal"])
def test_scores_are_scikit_learns(counts, shrinkage):
    # There the shrunk covariance is (1 - s) V + s tr(V) / d I, here it is V + lambda tr(V) / d I:
    # with lambda = s / (1 - s) ours is 1 / (1 - s) of theirs, and so are the scores less the log
    # of the labels' shares.
    x, label = _rows(counts, width=6, spread=1.0, seed=5)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, label)
    weights, biases = linear_map(
        scatter_at(sums_of(x[None], label, 3), 0), shrinkage / (1 - shrinkage)
    )
    log_shares = np.log(np.array(counts) / sum(counts))
    ours = (x @ weights.T + biases - log_shares) / (1 - shrinkage)
    for mine, other in zip(ours, theirs.decision_function(x) - log_shares, strict=True):
        _assert_same(mine, other, 1e-6)
    np.testing.assert_allclose(
        softmax(ours + log_shares, axis=1), theirs.predict_proba(x), atol=1e-6
    )
