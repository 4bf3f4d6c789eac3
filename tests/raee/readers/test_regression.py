import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from raee.readers import regression
from raee.readers.regression import regress, turned


def _rows(labels, rows=400, width=12, seed=0):
    """Unit vectors that vary a lot in some directions and hardly in others, and their labels."""
    random = np.random.default_rng(seed)
    label = random.choice(labels, rows, p=np.arange(1, labels + 1) / sum(range(1, labels + 1)))
    means = random.normal(size=(labels, width)) * 0.5
    x = means[label] + random.normal(size=(rows, width)) * np.arange(1, width + 1) ** -1.5 + 0.3
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), label


def _probabilities(found, x):
    return np.exp(log_softmax(x @ found[0].T + found[1], axis=1))


@pytest.mark.parametrize("labels", [2, 3, 6])
@pytest.mark.parametrize("penalty", [0.1, 10.0, 100.0])
def test_it_is_what_scikit_learn_finds_when_it_goes_on_to_the_optimum(labels, penalty):
    x, label = _rows(labels)
    model = LogisticRegression(C=penalty, solver="newton-cg", tol=1e-10, max_iter=10_000)
    expected = model.fit(x.astype(np.float64), label).predict_proba(x.astype(np.float64))
    found = _probabilities(regress(turned(x), label, labels, penalty), x)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_many_rows_of_many_labels_have_the_optimum_of_a_search_in_double_precision():
    x, label = _rows(12, rows=3_000, width=40)  # in several parts, the last of them smaller
    model = LogisticRegression(C=100.0, solver="newton-cg", tol=1e-10, max_iter=10_000)
    expected = model.fit(x.astype(np.float64), label).predict_log_proba(x.astype(np.float64))
    weights, biases = regress(turned(x), label, 12, 100.0)
    wrong = log_softmax(x @ weights.T + biases, axis=1) - expected
    assert np.sqrt((np.exp(expected) * np.square(wrong)).sum(axis=1).mean()) < 3e-6
    np.testing.assert_allclose(wrong, 0, atol=5e-4)  # of probabilities down to e^-15


def test_rows_that_are_all_but_sure_keep_their_digits():
    x, label = _rows(3, rows=300)
    sure = np.eye(3)[label] + 0.01 * x[:, :3]
    model = LogisticRegression(C=1e4, solver="newton-cg", tol=1e-12, max_iter=10_000)
    expected = model.fit(sure, label).predict_log_proba(sure)
    weights, biases = regress(turned(sure.astype(np.float32)), label, 3, 1e4)
    found = log_softmax(sure @ weights.T + biases, axis=1)
    assert expected[np.arange(300), label].max() > -1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


def test_states_that_differ_by_rounding_give_the_same_probabilities():
    x, label = _rows(6, rows=1_000)
    noise = np.random.default_rng(1).normal(size=x.shape) * 1e-7
    found = [regress(turned((x + n).astype(np.float32)), label, 6, 100.0) for n in (0.0, noise)]
    np.testing.assert_allclose(*(_probabilities(f, x) for f in found), atol=1e-4)


def test_a_label_without_rows_is_never_the_answer():
    x, label = _rows(3)
    weights, biases = regress(turned(x), np.where(label == 1, 2, label), 4, 10.0)
    assert list(np.isinf(biases)) == [False, True, False, True]
    assert not weights[[1, 3]].any()


def test_a_single_label_is_the_answer():
    x, _ = _rows(2)
    weights, biases = regress(turned(x), np.ones(len(x), np.uint16), 3, 10.0)
    assert not weights.any()
    assert list(biases) == [-np.inf, 0.0, -np.inf]


def test_where_the_search_begins_does_not_decide_where_it_ends():
    x, label = _rows(4, rows=1_000)
    alone = regress(turned(x), label, 4, 10.0)
    some = regress(turned(x[:800]), label[:800], 4, 100.0)
    unseen = regress(turned(x), np.where(label == 3, 2, label), 4, 10.0)
    astray = 1e4 * np.random.default_rng(0).normal(size=alone[0].shape), alone[1] + 1e3
    for near in (alone, some, unseen, astray):
        found = regress(turned(x), label, 4, 10.0, near)
        np.testing.assert_allclose(_probabilities(found, x), _probabilities(alone, x), atol=5e-6)


def test_the_axes_of_other_rows_serve_as_well():
    x, label = _rows(3, rows=600)
    some = np.arange(0, 600, 2)
    found = regress(turned(x).some(some), label[some], 3, 10.0)
    own = regress(turned(x[some]), label[some], 3, 10.0)
    np.testing.assert_allclose(_probabilities(found, x), _probabilities(own, x), atol=2e-5)
    held = turned(x).some(np.arange(1, 600, 2))
    np.testing.assert_allclose(held.scores(own), x[1::2] @ own[0].T + own[1], atol=1e-6)


@pytest.mark.parametrize("near", [False, True])
def test_labels_whose_unsure_rows_are_far_apart_take_few_products(near, monkeypatch):
    """Products with the curvature are nearly all of the time.

    It takes 44 of them, and 17 from near by; 82 and 37 if rows that are unsure of one label are
    taken to be those that are unsure of another, too.
    """
    x, label = _rows(20, rows=3_000, width=40)
    axes = turned(x)
    begin = regress(axes.some(np.arange(600, 3_000)), label[600:], 20, 100.0) if near else None
    bend, products = regression._Problem.bend, []

    def counted(problem, step, errors):
        products.append(step)
        return bend(problem, step, errors)

    monkeypatch.setattr(regression._Problem, "bend", counted)
    regress(axes, label, 20, 100.0, begin)
    assert 0 < len(products) < (25 if near else 60)
