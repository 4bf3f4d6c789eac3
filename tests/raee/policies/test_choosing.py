"""Rules pick what they say, and a pick is judged on rows that it was picked without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.config import CascadePolicy, FixedPolicy
from raee.policies.choosing import (
    Means,
    Tried,
    cheapest_as_good_as,
    cheapest_with,
    cross_fitted,
    try_all,
    worth,
)
from raee.policies.costs import Costs
from raee.policies.replay import replay
from tests.raee.entries import random_trial

COSTS = Costs(encode=1.0, layer=10.0, reads={"probe": 0.1})


def _means(accuracy, seconds, rows=100):
    return Means(np.array(accuracy), np.array(seconds, float), rows)


def _tried(right):
    """Policies of which is known on which rows they are right; the n-th costs n + 1 seconds."""
    right = np.array(right, bool)
    policies = [FixedPolicy(exit=f"probe@{n}") for n in range(len(right))]
    number = np.broadcast_to(np.arange(len(right))[:, None], right.shape)
    return Tried(
        policies,
        number.astype(np.int16),
        number.astype(np.int16),
        number.astype(np.float32) + 1,
        right.astype(np.uint16),
        right,
    )


class TestRules:
    def test_worth_takes_what_has_most_left_after_its_price(self):
        means = _means([0.8, 0.9, 0.91], [1, 2, 6])
        assert worth(0.0, 6.0)(means) == 2
        assert worth(0.05, 6.0)(means) == 1
        assert worth(0.9, 6.0)(means) == 0

    def test_worth_takes_the_cheaper_of_equals(self):
        assert worth(0.0, 6.0)(_means([0.9, 0.9], [2, 1])) == 1

    def test_a_target_is_met_as_cheaply_as_can_be(self):
        means = _means([0.8, 0.9, 0.95], [1, 2, 3])
        assert cheapest_with(0.85)(means) == 1
        assert cheapest_with(0.85, errors=2.0)(means) == 2  # .9 less two errors is .84
        assert cheapest_with(0.99)(means) == 2  # out of reach: the nearest

    def test_as_good_as_another_may_be_that_one(self):
        means = _means([0.8, 0.9, 0.95], [1, 2, 3])
        assert cheapest_as_good_as(1)(means) == 1
        assert cheapest_as_good_as(0)(means) == 0


class TestCrossFitting:
    @settings(max_examples=50)
    @given(st.integers(1, 8), st.integers(2, 30), st.integers(1, 5), st.integers(0, 999))
    def test_a_fold_is_answered_by_the_pick_made_without_it(self, policies, rows, folds, seed):
        generator = np.random.default_rng(seed)
        tried = _tried(generator.random((policies, rows)) < 0.6)
        fold = generator.integers(0, folds, rows)
        rule = worth(0.05, 6.0)
        found = cross_fitted(tried, rule, fold)
        for row in range(rows):
            others = np.flatnonzero(fold != fold[row])
            chosen = rule(tried.means(others)) if len(others) else rule(tried.means())
            assert found.exits[row] == chosen
            assert found.answers[row] == tried.answers[chosen, row]
            assert found.seconds[row] == chosen + 1

    def test_luck_is_not_reported(self):
        right = np.random.default_rng(0).random((200, 60)) < 0.5
        tried, rule = _tried(right), worth(0.0, 1.0)
        fold = np.arange(60) % 5
        assert tried.means().accuracy.max() > 0.65
        crossed = cross_fitted(tried, rule, fold).answers.mean()
        assert crossed < 0.6


def test_trying_says_what_replay_says():
    trial = random_trial(3, seed=1)
    policies = [FixedPolicy(exit="probe@2"), CascadePolicy(threshold=0.7)]
    tried = try_all(policies, trial, COSTS)
    for n, policy in enumerate(policies):
        done, own = replay(policy, trial, COSTS), tried.done(n)
        np.testing.assert_array_equal(own.exits, done.exits)
        np.testing.assert_array_equal(own.answers, done.answers)
        np.testing.assert_array_equal(tried.right[n], done.answers == trial.label)
        assert tried.means().seconds[n] == pytest.approx(done.seconds.mean(), rel=1e-6)
    both = tried[[1, 0]]
    assert both.policies == policies[::-1]
    np.testing.assert_array_equal(both.exits, tried.exits[::-1])
