"""Left-out distances are a refit's, and fresh rows are flagged at the nominal rate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.readers.discriminant import scatter_at
from raee.readers.sums import sums_of
from raee.statistics.far import SHRINKAGE, distances, far_of, left_out, p_values, scores, space_of
from raee.texts import copies_of
from tests.raee.entries import each_once


def _rows(rows, labels, width, seed, apart=0.5, steep=0.5):
    """(rows, width) unit vectors with some spread by direction, and labels."""
    generator = np.random.default_rng(seed)
    means = np.random.default_rng(seed + 1).normal(size=(labels, width)) * apart
    label = np.arange(rows) % labels
    spread = (1.0 + np.arange(width)) ** -steep
    x = 3 + means[label] + generator.normal(size=(rows, width)) * spread
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), label


def _scatter(x, label, labels):
    return scatter_at(sums_of(x[None], label.astype(np.uint16), labels), 0)


def _straight(x, label, labels, ridge, query):
    """The docstring's formulas for one query, with inverses."""
    x, query = x.astype(np.float64), query.astype(np.float64)
    n, width = x.shape
    within, to_labels = np.zeros((width, width)), np.full(labels, np.inf)
    means = {c: x[label == c].mean(axis=0) for c in set(label.tolist())}
    for row, c in zip(x, label, strict=True):
        within += np.outer(row - means[c], row - means[c])
    centred = x - x.mean(axis=0)
    inverse = np.linalg.inv(within + ridge * np.eye(width))
    for c, mean in means.items():
        to_labels[c] = n * (query - mean) @ inverse @ (query - mean)
    apart = query - x.mean(axis=0)
    total = centred.T @ centred + ridge * np.eye(width)
    return to_labels, n * apart @ np.linalg.solve(total, apart)


def _nearest(fresh, x, hashes=None):
    """(fresh,) squared distances, to the nearest of another text where hashes are given."""
    squared = 2.0 - 2.0 * (fresh @ x.T)
    if hashes is not None:
        squared[hashes[:, None] == hashes] = np.inf
    return np.maximum(squared.min(axis=1), 0.0).astype(np.float32)


def _database(x, label, labels):
    nearest = _nearest(x, x, np.arange(len(x)))
    return far_of(_scatter(x, label, labels), x, label, each_once(label), nearest)


def _copied(seed=0):
    """Rows of which some have equal texts, of one label or of several, and a label of its own."""
    x, label = _rows(60, 3, 12, seed)
    x = np.concatenate([x, x[:6], x[:3], x[59:], x[59:]])
    hashes = np.concatenate([np.arange(60), np.arange(6), np.arange(3), [59, 59]]).astype(np.uint64)
    label = np.concatenate([label, label[:6], (label[:3] + 1) % 3, [4, 4]])
    label[59] = 4  # of label 4 one text is all there is; label 3 has no rows
    return x, label, hashes


def test_distances_are_the_formulas():
    x, label = _rows(50, 3, 12, 0)
    scatter = _scatter(x, label, 4)
    ridge = SHRINKAGE * scatter.values.sum() / 12
    fresh = _rows(5, 3, 12, 5)[0]
    to_labels, to_all = distances(space_of(scatter), fresh)
    for row in range(5):
        expected = _straight(x, label, 4, ridge, fresh[row])
        np.testing.assert_allclose(to_labels[row], expected[0], rtol=1e-3)
        assert to_all[row] == pytest.approx(expected[1], rel=1e-3)


def test_left_out_distances_are_those_of_a_refit_without_the_text(monkeypatch):
    monkeypatch.setattr("raee.statistics.far._ROWS_AT_ONCE", 32)
    x, label, hashes = _copied()
    scatter = _scatter(x, label, 5)
    ridge = SHRINKAGE * scatter.values.sum() / 12
    to_labels, to_all = left_out(space_of(scatter), x, copies_of(hashes, hashes, label, 5))
    for row in range(len(x)):
        rest = hashes != hashes[row]
        expected = _straight(x[rest], label[rest], 5, ridge, x[row])
        np.testing.assert_allclose(to_labels[row], expected[0], rtol=1e-3)
        assert to_all[row] == pytest.approx(expected[1], rel=1e-3)
    assert np.isinf(to_labels[59, 4])
    assert np.isinf(to_labels[:, 3]).all()


@pytest.mark.parametrize("rows", [100, 350, 1_000])
def test_as_many_fresh_rows_are_far_as_the_level_says(rows):
    found = []
    for seed in range(8):
        x, label = _rows(rows + 3_000, 3, 32, 10 * seed)
        far = _database(x[:rows], label[:rows], 3)
        p = p_values(far, x[rows:], _nearest(x[rows:], x[:rows]))
        found.append([(p <= level).mean() for level in (0.05, 0.01, 0.001)])
    at_5, at_1, at_tenth = np.mean(found, axis=0)
    assert 0.04 < at_5 < 0.065
    assert 0.006 < at_1 < 0.014
    assert at_tenth < 0.002


def test_rows_of_a_label_that_the_database_lacks_are_farther():
    x, label = _rows(1_500, 6, 32, 0)
    known = label != 5
    database, fresh = x[known][:600], x[known][600:]
    far = _database(database, label[known][:600], 5)
    assert far.weight > 0.5
    missing = scores(far, x[~known], _nearest(x[~known], database))
    others = scores(far, fresh, _nearest(fresh, database))
    assert (missing[:, None] > others).mean() > 0.9


def test_rows_no_farther_from_the_keys_are_far_in_directions_that_hardly_vary():
    x, label = _rows(600, 1, 32, 0, apart=0.0, steep=1.0)
    # As long texts are: means over many tokens, near the middle in most directions.
    fresh = np.tile(x.mean(axis=0), (100, 1))
    fresh[:, -8:] += np.random.default_rng(1).choice([-0.013, 0.013], size=(100, 8))
    fresh /= np.linalg.norm(fresh, axis=1, keepdims=True)
    far = _database(x, label, 1)
    nearest = _nearest(fresh, x)
    assert (np.sqrt(nearest) < np.quantile(far.references[0], 0.98)).all()
    assert (p_values(far, fresh, nearest) < 0.01).mean() > 0.9


def test_the_relative_distance_counts_only_where_labels_show():
    x, label = _rows(300, 3, 16, 0, apart=0.0)
    assert _database(x, label, 3).weight < 0.05
    assert _database(x, np.zeros(300, int), 1).weight == 0.0
    x, label = _rows(300, 3, 16, 0, apart=2.0)
    assert _database(x, label, 3).weight > 0.9


def test_distances_that_are_not_known_say_nothing():
    x, label = _rows(200, 2, 16, 0)
    far = _database(x[:150], label[:150], 2)
    nearest = _nearest(x[150:], x[:150])
    without = p_values(far, x[150:], np.full(50, np.nan, np.float32))
    assert np.isfinite(without).all()
    assert (without >= p_values(far, x[150:], nearest)).all()
    copies = each_once(label[:150])
    scatter = _scatter(x[:150], label[:150], 2)
    none = far_of(scatter, x[:150], label[:150], copies, np.full(150, np.inf, np.float32))
    p = p_values(none, x[150:], nearest)
    assert 0.002 < p.min() < p.max() <= 1.0


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_of_few_rows_none_is_far(rows):
    x, label = _rows(rows + 5, 1, 8, 0)
    far = _database(x[:rows], label[:rows], 1)
    assert (p_values(far, x[rows:], _nearest(x[rows:], x[:rows])) > 0.01).all()


def test_states_that_do_not_vary_are_not_far():
    x = np.tile(_rows(1, 1, 8, 0)[0], (50, 1))
    label = np.arange(50) % 2
    scatter, zeros = _scatter(x, label, 2), np.zeros(50, np.float32)
    far = far_of(scatter, x, label, each_once(label), zeros)
    np.testing.assert_allclose(p_values(far, x[:3], zeros[:3]), 1.0, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1_000), st.integers(3, 60), st.integers(1, 3))
def test_p_values_fall_as_the_nearest_key_is_farther(seed, rows, labels):
    x, label = _rows(rows + 1, labels, 8, seed)
    far = _database(x[:rows], label[:rows], labels)
    fresh = np.repeat(x[rows:], 40, axis=0)
    p = p_values(far, fresh, np.linspace(0, 2, 40, dtype=np.float32))
    assert (np.diff(p) <= 1e-12).all()
    assert (p > 0).all()
    assert (p <= 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1_000))
def test_neither_the_order_of_rows_nor_a_turn_of_the_states_matters(seed):
    x, label = _rows(40, 3, 8, seed)
    generator = np.random.default_rng(seed)
    order = generator.permutation(30)
    turn = np.linalg.qr(generator.normal(size=(8, 8)))[0].astype(np.float32)
    nearest = _nearest(x[30:], x[:30])
    p = p_values(_database(x[:30], label[:30], 3), x[30:], nearest)
    turned = _database((x[:30] @ turn)[order], label[:30][order], 3)
    np.testing.assert_allclose(p_values(turned, x[30:] @ turn, nearest), p, rtol=0.05)
