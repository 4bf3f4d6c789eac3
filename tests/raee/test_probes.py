"""Probes: what they say of their own rows is without the row, and the better fit is chosen."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from raee.answers import Answers
from raee.readers.de3 import edr
from raee.readers.discriminant import SHRINKAGES, left_out_scores, linear_map, scatter_at
from raee.readers.fit import Judges, Unfitted, WordRows
from raee.readers.fitting import begin_fit, fit_readers
from raee.readers.linear import Linear, fit_temperature
from raee.readers.ngrams import token_ids
from raee.readers.probe import fit_shrinkage, left_out_accuracy
from raee.readers.sums import sums_of
from raee.texts import copies_of
from tests.raee.entries import each_once


def _unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _gaussian(rows=120, width=5, labels=3, depths=3, seed=0):
    """States (depths, rows, width) of labels that differ in their means, more so in the depth."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, labels, rows).astype(np.uint16)
    means = generator.normal(size=(labels, width))
    noise = generator.normal(size=(depths, rows, width))
    apart = np.arange(depths)[:, None, None] / depths
    return _unit(1 + apart * means[label] + 0.6 * noise), label


def _skewed(rows=300, seed=0):
    """Two labels that one direction parts, of which a few rows go very far: means mislead."""
    generator = np.random.default_rng(seed)
    along = 0.05 * np.exp(1.5 * generator.normal(size=rows))
    label = (along > 0.05).astype(np.uint16)
    states = np.column_stack([np.ones(rows), along, 0.1 * generator.normal(size=rows)])
    return np.stack([_unit(states + 0.2 * generator.normal(size=(rows, 3))), _unit(states)]), label


def _judges(states, label, hashes=None):
    hashes = np.arange(len(label), dtype=np.uint64) if hashes is None else hashes
    labels = int(label.max()) + 1
    return Judges(states.__getitem__, label, hashes, copies_of(hashes, hashes, label, labels))


def _nothing_else(judges, depths, labels):
    """Rows without words, and heads that know nothing."""
    rows = len(judges.label)
    no_words = token_ids([np.zeros(0, np.int32)] * rows)
    words = WordRows(no_words, judges.label, judges.hashes, np.arange(rows))
    return words, Unfitted(np.full((depths, rows, labels), 1 / labels, np.float32), {})


@dataclass(frozen=True)
class _Fitted:
    """All that a fit has found, of every reader."""

    maps: tuple[Linear, ...]
    means: NDArray
    regression: Linear
    record: dict[str, Any]
    log_probabilities: NDArray
    """(depths, rows, labels) of the probes without the text; `crossed` of the regression."""
    prototype_distances: NDArray
    crossed: NDArray
    answers: dict[str, Answers]

    @property
    def accuracy(self):
        return self.record["accuracy_without_the_row"]

    @property
    def shrinkages(self):
        return self.record["shrinkages"]


def _fit_of(sums, judges, seed=0):
    """The fit of states alone: texts have no tokens, and heads say nothing."""
    labels = len(sums.rows)
    fitting = begin_fit("mean", sums, judges, *_nothing_else(judges, sums.depths, labels), {}, seed)
    found = fitting.fit()
    record = {}
    for fit in found.values():
        record |= fit.record
    regression = fitting.fitter("logistic").deepest
    return _Fitted(
        maps=found["probe"].parameters,
        means=found["de3"].parameters,
        regression=found["logistic"].parameters,
        record=record,
        log_probabilities=fitting.fitter("probe").log_probabilities,
        prototype_distances=np.stack(fitting.fitter("de3").distances),
        crossed=log_softmax(regression.map.temperature * regression.scores, axis=1),
        answers={name: fit.answers for name, fit in found.items()},
    )


def _fit(states, label, labels=None, seed=0, hashes=None):
    labels = int(label.max()) + 1 if labels is None else labels
    return _fit_of(sums_of(states, label, labels), _judges(states, label, hashes), seed)


def _linear_is_sane(linear, states):
    np.testing.assert_allclose(np.exp(linear.log_probabilities(states)).sum(axis=1), 1)


class TestTemperature:
    @settings(max_examples=40)
    @given(st.integers(0, 999), st.sampled_from([0.05, 1.0, 30.0]), st.integers(2, 5))
    def test_makes_the_labels_as_likely_as_any_factor_does(self, seed, scale, labels):
        generator = np.random.default_rng(seed)
        label = generator.integers(0, labels, 40).astype(np.uint16)
        scores = generator.normal(size=(40, labels))
        scores[np.arange(40), label] += generator.normal()
        scores *= scale

        def loss(factor):
            return -log_softmax(factor * scores, axis=1)[np.arange(40), label].mean()

        found = loss(fit_temperature(scores, label))
        assert found <= min(loss(factor) for factor in np.geomspace(1e-3, 1e3, 400)) + 1e-6

    def test_ignores_rows_whose_label_is_ruled_out(self):
        generator = np.random.default_rng(0)
        scores, label = generator.normal(size=(30, 3)), np.zeros(30, np.uint16)
        ruled_out = np.array([[-np.inf, 1.0, 2.0]])
        found = fit_temperature(np.vstack([scores, ruled_out]), np.append(label, np.uint16(0)))
        assert found == fit_temperature(scores, label)

    def test_bears_other_labels_that_are_ruled_out(self):
        scores = np.array([[1.0, 0.0, -np.inf], [0.0, 1.0, -np.inf], [1.0, 0.0, -np.inf]])
        label = np.array([0, 1, 1], np.uint16)
        # Two of three are right by a score of 1: the factor is log 2.
        assert fit_temperature(scores, label) == pytest.approx(np.log(2), rel=1e-4)

    def test_is_one_where_nothing_is_known(self):
        assert fit_temperature(np.array([[-np.inf, 0.0]]), np.zeros(1, np.uint16)) == 1


class TestFit:
    def test_is_the_closed_form_where_labels_are_gaussian(self):
        states, label = _gaussian()
        fitted = _fit(states, label)
        assert fitted.record["fit"] == "lda"
        for depth, linear in enumerate(fitted.maps):
            scatter = scatter_at(sums_of(states, label, 3), depth)
            weights, biases = linear_map(scatter, fitted.shrinkages[depth])
            np.testing.assert_array_equal(linear.weights, weights)
            np.testing.assert_array_equal(linear.biases, biases)
        _assert_accounts_for_itself(fitted, label)

    def test_is_the_regression_where_that_is_better_by_more_than_noise(self):
        states, label = _skewed()
        fitted = _fit(states, label)
        assert fitted.accuracy["logistic"] > fitted.accuracy["lda"] + 0.05
        assert fitted.record["fit"] == "logistic"
        regression, deepest = fitted.regression, fitted.maps[-1]
        np.testing.assert_array_equal(deepest.weights, regression.weights)
        np.testing.assert_array_equal(deepest.biases, regression.biases)
        assert len(fitted.shrinkages) == 1  # no other depth has a closed form that nobody reads
        _assert_accounts_for_itself(fitted, label)

    @pytest.mark.parametrize("make", [_gaussian, _skewed], ids=["lda", "logistic"])
    def test_tells_of_its_rows_on_the_way(self, make):
        states, label = make()
        told = []
        judges = _judges(states, label)
        others = _nothing_else(judges, len(states), 3)
        fit_readers("mean", sums_of(states, label, 3), judges, *others, on_rows=told.append)
        assert sum(told) == len(label)
        assert min(told) >= 0
        # Of each depth, and of each fit of the regression that there is at full depth or may be.
        assert len([rows for rows in told if rows]) >= 8
        assert max(told) <= len(label) / 2

    @pytest.mark.parametrize("make", [_gaussian, _skewed], ids=["lda", "logistic"])
    def test_is_the_same_every_time(self, make):
        states, label = make()
        first, second = _fit(states, label, seed=3), _fit(states, label, seed=3)
        for field in ("log_probabilities", "prototype_distances", "crossed"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
        for name, found in first.answers.items():
            np.testing.assert_array_equal(found.confidences, second.answers[name].confidences)

    @pytest.mark.parametrize("width", [4, 60])
    def test_makes_no_claim_on_rows_that_mean_nothing(self, width):
        # In 60 dimensions both fits know most of these rows by heart.
        generator = np.random.default_rng(1)
        states = _unit(generator.normal(size=(1, 60, width)))
        label = generator.integers(0, 2, 60).astype(np.uint16)
        fitted = _fit(states, label)
        for found in (fitted.log_probabilities[0], fitted.crossed):
            assert (found.argmax(axis=1) == label).mean() < 0.7
            assert found[np.arange(60), label].mean() > 1.2 * np.log(1 / 2)  # and is not sure
        if width == 60:
            for linear in (fitted.maps[0], fitted.regression):
                known = linear.log_probabilities(states[0]).argmax(axis=1) == label
                assert known.mean() > 0.8

    def test_takes_figures_without_the_row_from_a_sample_of_the_rows(self):
        states, label = _gaussian(rows=90)
        some = np.arange(0, 90, 3)
        sums = sums_of(states, label, 3)
        fitted = _fit_of(sums, _judges(states[:, some], label[some]))
        assert fitted.log_probabilities.shape == (3, 30, 3)
        for depth, linear in enumerate(fitted.maps):
            for place, row in enumerate(some):
                one = slice(row, row + 1)
                rest = sums - sums_of(states[:, one], label[one], 3)
                weights, biases = linear_map(scatter_at(rest, depth), fitted.shrinkages[depth])
                biases += np.log(sums.rows / sums.rows.sum()) - np.log(rest.rows / rest.rows.sum())
                refit = Linear(weights, biases, linear.temperature)
                np.testing.assert_allclose(
                    fitted.log_probabilities[depth, place],
                    refit.log_probabilities(states[depth, one])[0],
                    atol=1e-8,
                )

    def test_copies_of_rows_give_nothing_away(self):
        generator = np.random.default_rng(1)
        states = _unit(generator.normal(size=(1, 60, 60)))
        label = generator.integers(0, 2, 60).astype(np.uint16)
        twice = np.r_[np.arange(60), np.arange(60)]
        copied = _fit(states[:, twice], label[twice], hashes=twice.astype(np.uint64))
        by_row = _fit(states[:, twice], label[twice])  # as if copies were other texts
        for fit in ("lda", "logistic"):
            assert copied.accuracy[fit] < 0.7
            assert by_row.accuracy[fit] > 0.8

    def test_takes_the_shrinkage_under_which_labels_are_likeliest_at_its_own_temperature(self):
        states, label = _gaussian(rows=80, width=12)
        scatter, copies = scatter_at(sums_of(states, label, 3), 2), each_once(label)

        def loss(shrinkage):
            scores = left_out_scores(scatter, shrinkage, states[2], copies)
            warm = log_softmax(fit_temperature(scores, label) * scores, axis=1)
            return -warm[np.arange(80), label].mean()

        found = fit_shrinkage(scatter, states[2], label, copies)
        assert loss(found) == pytest.approx(min(loss(s) for s in SHRINKAGES))
        # Where nothing tells them apart, the largest.
        same = np.broadcast_to(states[:, :1], states.shape)
        flat = scatter_at(sums_of(same, label, 3), 2)
        assert fit_shrinkage(flat, same[2], label, copies) == max(SHRINKAGES)

    def test_measures_states_by_the_closed_forms_accuracy(self):
        states, label = _gaussian()
        own = [_fit(states[[d]], label).accuracy["lda"] for d in range(len(states))]
        found = left_out_accuracy(sums_of(states, label, 3), _judges(states, label))
        assert found == pytest.approx(np.mean(own))


def _assert_accounts_for_itself(fitted, label):
    """The left-out figures fit together, whichever fit was chosen."""
    right = fitted.answers["probe"].answers[:, -1] == label
    assert right.mean() == fitted.accuracy[fitted.record["fit"]]
    right = fitted.answers["logistic"].answers[:, 0] == label
    assert right.mean() == fitted.accuracy["logistic"]
    for depth in range(len(fitted.maps)):
        logs = fitted.log_probabilities[depth]
        indicator = edr(np.exp(logs), fitted.prototype_distances[depth])
        for name, answer, sure in (
            ("probe", logs.argmax(axis=1), np.exp(logs).max(axis=1)),
            ("de3", logs.argmax(axis=1), 1 - indicator),
        ):
            found = fitted.answers[name]
            np.testing.assert_array_equal(found.answers[:, depth], answer)
            np.testing.assert_allclose(found.confidences[:, depth], sure, atol=1e-6)


class TestRegression:
    @pytest.mark.parametrize("labels", [2, 3])
    def test_says_what_scikit_learns_says(self, labels):
        states, label = _gaussian(labels=labels)
        fitted = _fit(states, label)
        theirs = LogisticRegression(
            C=fitted.record["regression_penalty"], solver="newton-cg", max_iter=1000, tol=1e-8
        )
        theirs.fit(states[-1].astype(np.float64), label)
        ours = replace(fitted.regression, temperature=1.0)
        np.testing.assert_allclose(
            np.exp(ours.log_probabilities(states[-1])),
            theirs.predict_proba(states[-1]),
            atol=1e-5,
        )

    def test_rules_out_a_label_that_it_has_not_seen(self):
        states, label = _gaussian(labels=3)
        seen = label != 1
        regression = _fit(states[:, seen], label[seen], labels=3).regression
        assert regression.biases[1] == -np.inf
        said = np.exp(regression.log_probabilities(states[-1]))
        np.testing.assert_array_equal(said[:, 1], 0)
        _linear_is_sane(regression, states[-1])


class TestPrototypes:
    def test_distances_are_those_to_the_means_of_the_other_rows(self):
        states, label = _gaussian(rows=20, labels=3)
        label[label == 2] = 0
        label[4] = 2  # the only one
        fitted = _fit(states, label, labels=4)  # and a label without rows
        for depth in range(3):
            x = states[depth].astype(np.float64)
            for row in range(20):
                others = np.arange(20) != row
                for c in range(4):
                    of_label = x[others & (label == c)]
                    expected = np.inf
                    if len(of_label):
                        expected = np.linalg.norm(x[row] - of_label.mean(axis=0))
                    found = fitted.prototype_distances[depth, row, c]
                    assert found == pytest.approx(expected, abs=1e-9)

    def test_distances_are_without_rows_of_the_same_text_whatever_their_labels(self):
        states, _ = _gaussian(rows=8, labels=3)
        text = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 7])
        label = np.array([0, 0, 1, 2, 2, 0, 1, 0, 1, 0, 0, 1], np.uint16)
        x = states[:, text]
        fitted = _fit(x, label, labels=3, hashes=text.astype(np.uint64))
        for row, depth in np.ndindex(12, 3):
            others = text != text[row]
            for c in range(3):
                of_label = x[depth][others & (label == c)].astype(np.float64)
                expected = np.inf
                if len(of_label):
                    expected = np.linalg.norm(x[depth, row] - of_label.mean(axis=0))
                found = fitted.prototype_distances[depth, row, c]
                assert found == pytest.approx(expected, abs=1e-9)

    def test_are_the_labels_means_and_nothing_for_a_label_without_rows(self):
        states, label = _gaussian(rows=40, labels=3)
        kept = label != 1
        sums = sums_of(states, label, 3) - sums_of(states[:, ~kept], label[~kept], 3)
        # What rounding may leave of a label whose rows are gone is no mean.
        sums.first[:, 1] += 1e-17
        fitted = _fit_of(sums, _judges(states[:, kept], label[kept]))
        np.testing.assert_array_equal(fitted.means[:, 1], 0)
        for c in (0, 2):
            np.testing.assert_allclose(
                fitted.means[:, c], states[:, label == c].mean(axis=1), atol=1e-6
            )


@pytest.mark.parametrize(
    ("label", "labels"),
    [([0], 1), ([0], 2), ([1], 2), ([0, 0], 2), ([0, 1], 2), ([1, 1, 1], 2), ([0, 1, 2], 3)],
)
def test_very_few_rows_get_distributions_too(label, labels):
    label = np.array(label, np.uint16)
    states = _unit(np.random.default_rng(0).normal(size=(2, len(label), 3)))
    fitted = _fit(states, label, labels)
    for found in (*fitted.log_probabilities, fitted.crossed):
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)
    for found in fitted.answers.values():
        assert ((found.confidences >= 0) & (found.confidences <= 1 + 1e-6)).all()
    for linear in (*fitted.maps, fitted.regression):
        assert linear.temperature > 0
        _linear_is_sane(linear, states[0])
    assert (fitted.prototype_distances >= 0).all()
    for distributions, distances in zip(
        np.exp(fitted.log_probabilities), fitted.prototype_distances, strict=True
    ):
        assert np.isfinite(edr(distributions, distances)).all()


def _straight_edr(distribution, distances):
    """DE3-BERT's indicator of one row, step by step."""
    answer = max(range(len(distribution)), key=lambda c: distribution[c])
    entropy = -sum(p * np.log(p) for p in distribution if p > 0) / np.log(len(distribution))
    own = distances[answer]
    other = min(distances[c] for c in range(len(distances)) if c != answer)
    ratio = 0.5 * (1 + (own - other) / max(own, other))
    return 0.0 if ratio + entropy == 0 else 2 * ratio * entropy / (ratio + entropy)


class TestExitIndicator:
    @settings(max_examples=60)
    @given(
        st.integers(2, 6),
        st.sampled_from([0.1, 1.0, 20.0, 200.0]),
        st.sampled_from([np.float32, np.float64]),
        st.integers(0, 999),
    )
    def test_is_the_formula_and_lies_between_certain_and_uncertain(
        self, labels, sharpness, dtype, seed
    ):
        generator = np.random.default_rng(seed)
        logs = sharpness * generator.normal(size=(20, labels))
        distributions = softmax(logs, axis=1).astype(dtype)  # with zeros where it is sharp
        distances = generator.random((20, labels)).astype(dtype) + dtype(1e-3)
        found = edr(distributions, distances)
        assert ((found >= 0) & (found <= 1)).all()
        expected = [
            _straight_edr(p.astype(float), d.astype(float))
            for p, d in zip(distributions, distances, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)

    @settings(max_examples=60)
    @given(st.integers(2, 9), st.data())
    def test_keeps_its_bounds_at_the_edges(self, labels, data):
        certain = np.eye(labels)[0]
        distribution = data.draw(st.sampled_from([np.full(labels, 1 / labels), certain]))
        edges = st.lists(
            st.sampled_from([0.0, 1e-15, 1.0, 2.0, np.inf]), min_size=labels, max_size=labels
        )
        (found,) = edr(distribution[None], np.array([data.draw(edges)]))
        assert 0 <= found <= 1

    def test_is_certain_where_there_is_one_label(self):
        np.testing.assert_array_equal(edr(np.ones((3, 1)), np.full((3, 1), np.inf)), 0)

    def test_a_label_without_rows_is_infinitely_far(self):
        even = np.array([[0.5, 0.5, 0.0]])
        entropy = np.log(2) / np.log(3)
        # As the only other label it leaves no doubt; as the answer it leaves the entropy's.
        assert edr(even[:, :2], np.array([[1.0, np.inf]])) == 0
        own_is_far = edr(even, np.array([[np.inf, 1.0, 1.0]]))
        assert own_is_far == pytest.approx(2 * entropy / (1 + entropy))
        further = edr(even, np.array([[1.0, 2.0, np.inf]]))
        assert further == pytest.approx(2 * 0.25 * entropy / (0.25 + entropy))
