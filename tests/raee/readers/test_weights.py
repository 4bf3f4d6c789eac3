"""The weights of a pool are the likeliest ones, by other optimisers, and none is negative."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from raee.readers.weights import Weights, fit_weights


def _experts(number, labels=3, rows=4_000, seed=0, noise=1.0):
    """Experts (experts, rows, labels), each with an error of its own, and the labels."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, labels, rows)
    evidence = 1.5 * np.eye(labels)[label]
    own = noise * generator.normal(size=(number, rows, labels))
    return log_softmax(evidence + own, axis=2), label


def _nothing_alike(experts):
    return np.zeros(len(experts), bool)


def test_two_labels_and_many_rows_are_scikit_learns_regression_on_the_log_odds():
    """Among 40,000 rows the penalties, which count as a few, move no weight by a hundredth."""
    experts, label = _experts(3, labels=2, rows=40_000)
    odds = (experts[:, :, 1] - experts[:, :, 0]).T
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(odds, label)
    found = fit_weights(experts, label, _nothing_alike(experts))
    np.testing.assert_allclose(found.experts, model.coef_[0], atol=0.01)
    offset = found.offsets[1] - found.offsets[0]
    assert offset == pytest.approx(model.intercept_[0], abs=0.01)


def _loss(point, experts, label, alike):
    """What is minimised, written out: a loss a row, and the three penalties."""
    number = len(experts)
    weights, offsets = point[:number], point[number:]
    value = 3.0 * weights.sum() + 5.0 * (offsets**2).sum()
    if alike.any():
        value += 15.0 * ((weights[alike] - weights[alike].mean()) ** 2).sum()
    for row, own in enumerate(label):
        scores = sum(weight * expert[row] for weight, expert in zip(weights, experts, strict=True))
        value -= log_softmax(scores + offsets)[own]
    return value


@pytest.mark.parametrize("alike", [(), (1, 2), (0, 1, 2)])
def test_it_is_the_optimum_that_another_search_finds(alike):
    experts, label = _experts(3, rows=150)
    is_alike = np.isin(np.arange(3), alike)
    found = fit_weights(experts, label, is_alike)
    start = np.r_[0.5, 0.1, 0.1, 0.0, 0.0, 0.0]
    bounds = [(0, None)] * 3 + [(None, None)] * 3
    arguments = experts, label, is_alike
    theirs = minimize(_loss, start, arguments, method="SLSQP", bounds=bounds, tol=1e-10)
    point = np.concatenate([found.experts, found.offsets])
    assert _loss(point, *arguments) <= theirs.fun + 1e-4
    np.testing.assert_allclose(point, theirs.x, atol=2e-3)


def _tight(experts, label, alike):
    """The optimum by SciPy's L-BFGS-B, which goes on until it can no further."""
    number, _, labels = experts.shape
    own = np.eye(labels)[label]

    def loss(point):
        weights, offsets = point[:number], point[number:]
        logs = log_softmax(np.tensordot(weights, experts, 1) + offsets, axis=1)
        apart = np.where(alike, weights - weights[alike].mean(), 0) if alike.any() else 0 * weights
        value = 3.0 * weights.sum() + 15.0 * apart @ apart + 5.0 * offsets @ offsets
        error = np.exp(logs) - own
        slope = np.tensordot(experts, error, 2) + 3.0 + 30.0 * apart
        return value - (own * logs).sum(), np.r_[slope, error.sum(axis=0) + 10.0 * offsets]

    start, bounds = np.zeros(number + labels), [(0, None)] * number + [(None, None)] * labels
    options = {"ftol": 0, "gtol": 1e-7, "maxiter": 100_000, "maxfun": 100_000, "maxcor": 50}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return Weights(found[:number], found[number:])


@pytest.mark.parametrize(
    ("number", "labels", "rows"), [(3, 2, 500), (8, 20, 4_000), (5, 300, 60), (40, 3, 200)]
)
def test_weights_are_those_of_a_search_that_goes_on_to_the_end(number, labels, rows):
    """Many rows in several parts, more labels than rows, and experts that hardly differ."""
    experts, label = _experts(number, labels, rows)
    experts[number // 2 :] = 0.9 * experts[:1] + 0.1 * experts[number // 2 :]
    alike = np.arange(number) >= 2
    found, expected = fit_weights(experts, label, alike), _tight(experts, label, alike)
    np.testing.assert_allclose(found.experts, expected.experts, atol=1e-4)
    np.testing.assert_allclose(found.offsets, expected.offsets, atol=1e-4)
    single = fit_weights(experts.astype(np.float32), label, alike)
    np.testing.assert_allclose(single.experts, expected.experts, atol=1e-4)


def test_without_rows_nothing_weighs_anything():
    found = fit_weights(np.zeros((2, 0, 3)), np.zeros(0, int), np.ones(2, bool))
    np.testing.assert_allclose(found.experts, 0, atol=1e-9)
    np.testing.assert_allclose(found.offsets, 0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_an_expert_that_is_noise_or_wrong_weighs_nothing(seed):
    experts, label = _experts(2, rows=600, seed=seed)
    generator = np.random.default_rng(seed)
    noise = log_softmax(generator.normal(size=(1, *experts.shape[1:])), axis=2)
    against = log_softmax(-experts[:1], axis=2)
    all_experts = np.concatenate([experts, noise, against])
    found = fit_weights(all_experts, label, _nothing_alike(all_experts))
    assert (found.experts >= 0).all()
    assert (found.experts[:2] > 0.3).all()
    assert found.experts[2] < 0.06  # of what a row's noise says by chance, no more is left
    assert found.experts[3] == 0


def test_an_expert_that_says_nothing_weighs_nothing():
    experts, label = _experts(2, rows=600)
    flat = np.full((1, *experts.shape[1:]), -np.log(3))
    found = fit_weights(np.concatenate([experts, flat]), label, np.zeros(3, bool))
    assert found.experts[2] == 0
    np.testing.assert_allclose(
        found.experts[:2], fit_weights(experts, label, np.zeros(2, bool)).experts, atol=1e-3
    )


def test_experts_that_are_alike_get_like_weights():
    experts, label = _experts(4, rows=60, noise=1.5)
    apart = fit_weights(experts, label, np.zeros(4, bool)).experts
    drawn = fit_weights(experts, label, np.ones(4, bool)).experts
    assert np.ptp(drawn) < 0.75 * np.ptp(apart)
    twins = np.concatenate([experts[:1], experts[:1]])
    same = fit_weights(twins, label, np.ones(2, bool)).experts
    assert same[0] == pytest.approx(same[1], abs=1e-3)
    assert same[0] > 0


@pytest.mark.parametrize("rows", [60, 2_000])
def test_a_search_that_begins_near_ends_at_the_same_optimum(rows):
    experts, label = _experts(5, rows=rows)
    alike = np.array([False, False, True, True, True])
    cold = fit_weights(experts, label, alike)
    generator = np.random.default_rng(0)
    astray = Weights(generator.uniform(0, 2, 5), generator.normal(size=3))
    fewer = fit_weights(experts[:, ::2], label[::2], alike)
    for near in (cold, fewer, astray):
        found = fit_weights(experts, label, alike, near)
        np.testing.assert_allclose(found.experts, cold.experts, atol=1e-3)
        np.testing.assert_allclose(found.logs(experts), cold.logs(experts), atol=1e-2)


def test_offsets_take_back_what_experts_say_of_shares_more_than_once():
    """Experts that know nothing but the shares, and all say so: a product has them to a power."""
    shares = np.array([0.8, 0.15, 0.05])
    label = np.random.default_rng(0).choice(3, 20_000, p=shares)
    experts = np.log(np.broadcast_to(shares, (4, len(label), 3)))
    found = fit_weights(experts, label, np.zeros(4, bool))
    said = np.exp(found.logs(experts[:, :1]))[0]
    np.testing.assert_allclose(said, np.bincount(label) / len(label), atol=2e-3)


def test_the_logs_of_a_pool_are_a_weighted_product_of_distributions():
    experts, _ = _experts(3, rows=5)
    weights = Weights(np.array([0.5, 0.0, 1.25]), np.array([0.1, -0.3, 0.0]))
    product = np.exp(experts[0]) ** 0.5 * np.exp(experts[2]) ** 1.25 * np.exp(weights.offsets)
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(weights.logs(experts)), expected, rtol=1e-9)


def test_a_label_without_rows_and_a_single_row_have_weights_too():
    experts, _ = _experts(2, rows=6)
    for label in (np.zeros(6, int), np.array([0, 2, 2, 0, 0, 2])):
        found = fit_weights(experts, label, np.ones(2, bool))
        assert np.isfinite(found.logs(experts)).all()
    found = fit_weights(experts[:, :1], np.array([1]), np.ones(2, bool))
    assert np.isfinite(found.logs(experts)).all()
