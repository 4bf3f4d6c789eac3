"""A policy is compared with what people do without raee, and a better baseline is named."""

import numpy as np
import pytest
from scipy.stats import binomtest

from raee.config import CascadePolicy, FixedPolicy
from raee.policies.baselines import (
    Rated,
    against,
    against_the_best,
    best_baseline,
    better_baseline,
)

WORDS, LOGISTIC = FixedPolicy(exit="words@0"), FixedPolicy(exit="logistic@6")
ROWS = 1_000


def _right(only_ours, only_theirs, both=700):
    """Right answers of a policy and of another on the same rows."""
    ours, theirs = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    ours[: both + only_ours] = True
    theirs[:both] = theirs[both + only_ours : both + only_ours + only_theirs] = True
    return ours, theirs


def _line(words, logistic=(100, 0), cost=1.0, policy=None):
    """What is said of a policy: (rows that only it, rows that only the baseline gets right)."""
    counts = {"majority": (400, 0), "words": words, "logistic": logistic}
    found = {name: against(*_right(*pair)) for name, pair in counts.items()}
    own = 0.9
    rated = {"tuned": Rated(own, cost), "majority": Rated(0.5, 0.0)}
    for name, seconds in (("words", 0.1), ("logistic", 6.0)):
        rated[name] = Rated(own - found[name].difference, seconds)
    policies = {"tuned": policy or CascadePolicy(), "words": WORDS, "logistic": LOGISTIC}
    return better_baseline("tuned", policies, rated, found)


def test_a_comparison_counts_the_rows_that_one_alone_gets_right():
    found = against(*_right(50, 30))
    assert (found.wins, found.losses) == (50, 30)
    assert found.difference == pytest.approx(0.02)
    assert found.p_value == pytest.approx(binomtest(50, 80).pvalue)
    low, high = found.difference_interval
    assert low < 0.02 < high


def test_the_best_baseline_is_the_one_that_the_policy_leads_the_least():
    counts = {"full": (1, 90), "majority": (90, 5), "words": (50, 30), "logistic": (60, 30)}
    found = {name: against(*_right(*pair)) for name, pair in counts.items()}
    assert best_baseline(found) == "words"  # the model's own head is none
    line = against_the_best("tuned", found)
    assert line == (
        "tuned against words (n-grams + logistic regression), the best baseline on these rows: "
        "+2.0 points (95 %: +0.3 to +3.8), p = 0.033"
    )


def test_a_worse_baseline_is_not_named_though_it_is_cheaper():
    assert _line(words=(50, 49)) is None


def test_one_that_is_right_as_often_for_less_is_named_with_what_to_do():
    assert _line(words=(50, 52)) == (
        "n-grams + logistic regression alone is right as often as tuned (0.902 against 0.900), and "
        "costs less: set `policy: {name: fixed, exit: words@0}`, label more rows, or try another "
        "backbone"
    )
    assert _line(words=(50, 50)) is not None


def test_one_that_costs_as_much_and_is_better_by_chance_is_not_named():
    assert _line(words=(50, 52), cost=0.1) is None


def test_one_that_is_better_beyond_noise_is_named_whatever_it_costs():
    line = _line(words=(90, 10), logistic=(30, 80), cost=1.0)
    assert line.startswith(
        "full depth + logistic regression alone is right more often than tuned, beyond noise "
        "(0.950 against 0.900, p = "
    )
    assert "exit: logistic@6" in line


def test_beyond_noise_comes_before_as_often():
    line = _line(words=(5, 54), logistic=(200, 251))
    assert line.startswith("n-grams + logistic regression alone is right more often")


def test_a_policy_is_not_told_to_become_what_it_is():
    assert _line(words=(50, 52), policy=WORDS) is None


def test_the_majority_is_no_policy_to_set():
    found = {"majority": against(*_right(0, 2))}
    rated = {"tuned": Rated(0.7, 1.0), "majority": Rated(0.702, 0.0)}
    assert better_baseline("tuned", {"tuned": CascadePolicy()}, rated, found) == (
        "the most frequent label alone is right as often as tuned (0.702 against 0.700), and costs "
        "less: label more rows, or try another backbone"
    )
