"""Confidences say how often an answer is right, and calibrating changes no answer."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from raee.config import CascadePolicy
from raee.policies.replay import replay
from raee.statistics.calibration import (
    Line,
    as_sure_as,
    calibrated,
    cross_fitted_confidences,
    excess,
    fit_line,
    fit_temperature,
    fit_temperatures,
    policy_lines,
    warmed,
)
from tests.raee.entries import random_trial

sure = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=20)


def _drawn(temperature, labels, rows=20_000, seed=0):
    """Confidences that are right as often as they would say at another temperature."""
    generator = np.random.default_rng(seed)
    said = (1 / labels + (1 - 1 / labels) * generator.random(rows)).astype(np.float32)
    return said, generator.random(rows) < warmed(said, temperature, labels)


class TestTemperature:
    @given(st.floats(0.05, 20.0), st.integers(2, 50))
    def test_a_guess_stays_a_guess(self, temperature, labels):
        guess = np.array([1 / labels], np.float32)
        assert warmed(guess, temperature, labels) == pytest.approx(1 / labels, rel=1e-3)

    @given(sure, st.floats(0.05, 20.0), st.integers(2, 9))
    def test_keeps_the_order_and_what_was_not_read(self, said, temperature, labels):
        said = np.array(sorted(said), np.float32)
        found = warmed(np.append(said, np.float32(np.nan)), temperature, labels)
        assert (np.diff(found[:-1]) >= 0).all()
        assert np.isnan(found[-1])

    @given(st.floats(0.05, 20.0), st.floats(-4, 4))
    def test_is_the_usual_one_where_there_are_two_labels(self, temperature, apart):
        scores = np.array([0.0, apart])
        said = softmax(scores).max(keepdims=True).astype(np.float32)
        expected = softmax(temperature * scores).max()
        assert warmed(said, temperature, 2)[0] == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
    @pytest.mark.parametrize("labels", [2, 6])
    def test_is_found_again(self, temperature, labels):
        said, right = _drawn(temperature, labels)
        assert fit_temperature(said, right, labels) == pytest.approx(temperature, rel=0.1)

    def test_is_one_where_nothing_is_known(self):
        nothing = np.zeros(0, np.float32), np.zeros(0, bool)
        assert fit_temperature(*nothing, 3) == 1.0
        assert fit_temperature(np.ones(3, np.float32), np.ones(3, bool), 1) == 1.0


class TestLine:
    def test_says_how_often_rows_are_right(self):
        said, right = _drawn(0.4, 3)
        found = fit_line(said, right, 3)(said, 3)
        for low in (0.35, 0.45, 0.55):
            here = (found > low) & (found < low + 0.1)
            assert right[here].mean() == pytest.approx(found[here].mean(), abs=0.03)

    def test_changes_little_where_rows_are_few(self):
        said, right = np.full(3, 0.9, np.float32), np.zeros(3, bool)
        few = fit_line(said, right, 2)(said, 2)[0]
        many = fit_line(np.repeat(said, 100), np.repeat(right, 100), 2)(said, 2)[0]
        assert many < 0.3
        assert few > 0.6

    def test_by_itself_changes_nothing(self):
        said = np.array([0.4, 0.7, np.nan], np.float32)
        np.testing.assert_allclose(Line()(said, 3), said, rtol=1e-5)


def test_each_exit_has_the_line_of_the_rows_that_leave_there():
    trial = random_trial(2, seed=3, rows=200)
    done = replay(CascadePolicy(threshold=0.6), trial)
    lines = policy_lines(done, trial)
    assert set(lines) == set(np.unique(done.exits).tolist())
    for place, line in lines.items():
        here = done.exits == place
        said = trial.entries.confidences[trial.rows[here], place]
        assert line == fit_line(said, (done.answers == trial.label)[here], 3)


def test_a_fold_is_calibrated_by_the_others():
    trial = random_trial(2, seed=3, rows=200)
    done, fold = replay(CascadePolicy(threshold=0.6), trial), np.arange(200) % 5
    found = cross_fitted_confidences(done, trial, fold)
    others = np.flatnonzero(fold != 2)
    lines = policy_lines(done[others], trial[others])
    for row in np.flatnonzero(fold == 2):
        place = done.exits[row]
        own = trial.entries.confidences[trial.rows[row], place]
        assert found[row] == pytest.approx(lines[place](np.array([own]), 3)[0], abs=1e-6)


def test_heads_and_votes_get_temperatures_and_nothing_else_does():
    entries = random_trial(2, seed=3, rows=300).entries
    found = fit_temperatures(entries)
    assert {name.partition("@")[0] for name in found} == {"head", "vote"}
    after = calibrated(entries, found)
    np.testing.assert_array_equal(after.answers, entries.answers)
    for place, exit in enumerate(entries.exits):
        same = np.array_equal(after.confidences[:, place], entries.confidences[:, place])
        assert same == (str(exit) not in found)
    assert calibrated(replace(entries), {}).confidences.tolist() == entries.confidences.tolist()


def test_excess_is_zero_at_a_guess():
    assert excess(np.array([0.25]), 4)[0] == pytest.approx(0)


@given(
    scores=st.lists(st.lists(st.floats(-20, 20), min_size=4, max_size=4), min_size=1, max_size=5),
    sure=st.floats(0.26, 0.999),
)
def test_a_distribution_is_made_as_sure_as_is_said_and_keeps_the_order_of_its_labels(scores, sure):
    distributions = softmax(np.array(scores), axis=1)
    found = as_sure_as(distributions, np.full(len(scores), sure, np.float32))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    for before, after in zip(distributions, found, strict=True):
        order = np.argsort(-before, kind="stable")
        assert (np.diff(after[order]) <= 1e-6).all()
        if before[order[0]] > 1.001 * before[order[1]]:
            assert after.argmax() == order[0]
        if before[order[0]] > 1.1 * before[order[1]]:
            assert after[order[0]] == pytest.approx(sure, abs=1e-3)


def test_between_two_labels_the_other_one_has_what_is_left():
    found = as_sure_as(np.array([[0.9, 0.1], [0.0, 1.0]]), np.array([0.7, 0.8], np.float32))
    np.testing.assert_allclose(found, [[0.7, 0.3], [0.2, 0.8]], atol=1e-5)


def test_an_answer_that_is_less_sure_than_a_guess_stays_the_likeliest():
    (found,) = as_sure_as(np.array([[0.2, 0.5, 0.3]]), np.array([0.1], np.float32))
    assert found.argmax() == 1
    np.testing.assert_allclose(found, 1 / 3, atol=1e-3)
