"""Objectives pick what they say, and a promise is kept as often as its confidence says."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from raee.config import FixedPolicy, RiskSpec, TunedPolicy
from raee.objectives import (
    Figures,
    Point,
    Tuning,
    half_standard_error,
    loss_p_value,
)
from raee.tuning import Tried, front
from tests.raee.errors import refused

FULL_DEPTH = FixedPolicy(exit="probe@6")


def _figures(accuracy, seconds):
    return Figures(accuracy=accuracy, mean_layers=seconds, seconds_per_row=seconds)


def _point(name, accuracy, seconds, lost=0, gained=0, searched=None):
    return Point(
        policy=FixedPolicy(exit=name),
        searched=_figures(accuracy if searched is None else searched, seconds),
        checked=_figures(accuracy, seconds),
        lost=lost,
        gained=gained,
    )


def _tuning(points, full, rows=1_000):
    return Tuning(
        seed=0,
        tried=len(points),
        searched_rows=rows,
        checked_rows=rows,
        full_depth=full,
        front=points,
        families={},
        keys={},
    )


FRONT = [
    _point("probe@0", 0.80, 1.0, lost=120, gained=20),
    _point("probe@1", 0.895, 2.0, lost=35, gained=30),
    _point("probe@2", 0.904, 3.0, lost=10, gained=14),
    _point("probe@3", 0.910, 4.0, lost=20, gained=30),
    _point("probe@4", 0.909, 5.0, lost=21, gained=30),
]
FULL = _point("probe@6", 0.90, 6.0)


def _picked(objective, points=FRONT, full=FULL, rows=1_000):
    return _tuning(points, full, rows).pick(objective).policy.exit


class TestAccuracy:
    def test_best_is_the_cheapest_within_half_a_standard_error_of_the_best(self):
        # Half a standard error of .910 over 1,000 rows is .0045, over 100 rows .0143.
        assert half_standard_error(0.91, 1_000) == pytest.approx(0.0045, abs=1e-4)
        assert _picked(TunedPolicy()) == "probe@3"
        assert _picked(TunedPolicy(), rows=500) == "probe@2"
        assert _picked(TunedPolicy(), rows=100) == "probe@2"
        assert _picked(TunedPolicy(), rows=80) == "probe@1"

    def test_full_is_the_cheapest_that_is_as_good_as_full_depth(self):
        assert _picked(TunedPolicy(accuracy="full")) == "probe@2"

    def test_full_is_full_depth_itself_where_no_other_is_as_good(self):
        assert _picked(TunedPolicy(accuracy="full"), points=FRONT[:2]) == "probe@6"

    def test_a_number_is_the_cheapest_that_reaches_it(self):
        assert _picked(TunedPolicy(accuracy=0.85)) == "probe@1"
        assert _picked(TunedPolicy(accuracy=0.895)) == "probe@1"
        assert _picked(TunedPolicy(accuracy=0.91)) == "probe@3"

    def test_of_equally_cheap_ones_the_more_accurate_is_picked(self):
        twins = [_point("probe@1", 0.9, 2.0), _point("probe@2", 0.95, 2.0)]
        assert _picked(TunedPolicy(accuracy=0.5), points=twins) == "probe@2"

    def test_a_number_out_of_reach_is_refused_with_the_best_there_is(self):
        with refused("policy.accuracy 0.95.*0.910"):
            _picked(TunedPolicy(accuracy=0.95))

    def test_only_checked_figures_count(self):
        lucky = [_point("probe@1", 0.80, 2.0, searched=0.99), _point("probe@2", 0.9, 3.0)]
        assert _picked(TunedPolicy(accuracy=0.85), points=lucky) == "probe@2"
        assert _picked(TunedPolicy(), points=lucky) == "probe@2"


class TestRisk:
    def test_the_cheapest_that_can_be_promised_is_picked(self):
        assert _picked(TunedPolicy(risk=RiskSpec(max_loss=0.03))) == "probe@1"
        assert _picked(TunedPolicy(risk=RiskSpec(max_loss=0.01))) == "probe@2"
        assert _picked(TunedPolicy(risk=RiskSpec(max_loss=0.2))) == "probe@0"
        assert _picked(TunedPolicy(risk=RiskSpec(max_loss=0.01, confidence=0.999))) != "probe@2"

    def test_the_first_that_cannot_be_promised_ends_the_search(self):
        # probe@5 alone could be promised, but the searched rows put probe@0 before it.
        points = [
            _point("probe@0", 0.6, 1.0, lost=300, searched=0.95),
            _point("probe@5", 0.9, 2.0, searched=0.90),
        ]
        risk = RiskSpec(max_loss=0.05)
        assert _picked(TunedPolicy(risk=risk), points) == "probe@6"
        assert _picked(TunedPolicy(risk=risk), points[1:]) == "probe@5"

    def test_full_depth_is_promised_where_nothing_else_can_be(self):
        poor = [_point("probe@0", 0.5, 1.0, lost=400)]
        risk = TunedPolicy(risk=RiskSpec(max_loss=0.01))
        assert _picked(risk, poor) == "probe@6"
        good = [_point("probe@5", 0.9, 2.0)]
        assert _picked(risk, good, rows=50) == "probe@6"  # too few rows to know
        assert _picked(risk, good, rows=1_000) == "probe@5"

    def test_full_depth_is_promised_rather_than_what_costs_more(self):
        dear = [_point("probe@7", 0.95, 7.0, lost=0, gained=50)]
        assert _picked(TunedPolicy(risk=RiskSpec(max_loss=0.01)), dear) == "probe@6"


def _exact_rejection_rate(rows, max_loss, differing, level=0.05):
    """P(p <= level) where exactly max_loss is lost and so many rows differ, as shares."""
    risk = RiskSpec(max_loss=max_loss, confidence=1 - level)
    loses, gains = (differing + max_loss) / 2, (differing - max_loss) / 2
    total, most = 0.0, -1  # the most rows that may be lost for the promise to be made
    for gained in range(int(binom.ppf(1 - 1e-7, rows, gains)) + 1):
        while loss_p_value(most + 1, gained, rows, risk) <= level:
            most += 1
        rest = binom.cdf(most, rows - gained, loses / (1 - gains)) if most >= 0 else 0.0
        total += binom.pmf(gained, rows, gains) * rest
    return total


class TestPValue:
    @pytest.mark.parametrize(
        ("rows", "max_loss", "differing"),
        [
            (60, 0.1, 0.1),
            (60, 0.1, 0.13),
            (60, 0.1, 0.5),
            (400, 0.01, 0.01),
            (400, 0.01, 0.0101),
            (400, 0.01, 0.03),
            (400, 0.02, 0.1),
            (3_000, 0.002, 0.002),
            (3_000, 0.002, 0.003),
            (2_000, 0.01, 0.04),
        ],
    )
    def test_a_loss_of_exactly_the_most_allowed_is_rarely_certified(
        self, rows, max_loss, differing
    ):
        assert _exact_rejection_rate(rows, max_loss, differing) <= 0.05

    @pytest.mark.parametrize("differing", [0.05, 0.06, 0.3])
    def test_is_valid_on_drawn_rows(self, differing):
        draws, rows, risk = 1_000, 100, RiskSpec(max_loss=0.05)
        generator = np.random.default_rng(0)
        shares = [(differing + 0.05) / 2, (differing - 0.05) / 2, 1 - differing]
        counts = generator.multinomial(rows, np.clip(shares, 0, 1), draws)
        found, times = np.unique(counts[:, :2], axis=0, return_counts=True)
        p = np.array([loss_p_value(int(lost), int(gained), rows, risk) for lost, gained in found])
        for level in (0.01, 0.05, 0.2):
            rate = times[p <= level].sum() / draws
            assert rate <= level + 3 * np.sqrt(level * (1 - level) / draws)

    @pytest.mark.parametrize(("rows", "max_loss"), [(1_000, 0.01), (10_000, 0.001)])
    def test_many_rows_without_any_loss_are_certified(self, rows, max_loss):
        risk = RiskSpec(max_loss=max_loss)
        assert loss_p_value(0, 0, rows, risk) <= 0.05
        same = rows // 2000  # that many rows are lost, and as many gained
        assert loss_p_value(same, same, rows, risk) <= 0.05

    def test_noise_in_many_rows_takes_more_of_them(self):
        risk = RiskSpec(max_loss=0.01)
        assert loss_p_value(150, 150, 1_000, risk) > 0.05
        assert loss_p_value(3_000, 3_000, 40_000, risk) <= 0.05

    @settings(max_examples=30)
    @given(st.integers(10, 2_000), st.integers(0, 8), st.integers(0, 8), st.floats(0.002, 0.5))
    def test_grows_with_the_rows_lost_and_falls_with_the_loss_allowed(
        self, rows, lost, gained, max_loss
    ):
        lost = min(lost, rows - gained - 1)
        risk = RiskSpec(max_loss=max_loss)
        p = loss_p_value(lost, gained, rows, risk)
        assert 0 < p <= 1
        assert loss_p_value(lost + 1, gained, rows, risk) >= p - 1e-9
        assert loss_p_value(lost, gained, rows, RiskSpec(max_loss=max_loss * 1.5)) <= p + 1e-9

    def test_every_row_may_differ(self):
        risk = RiskSpec(max_loss=0.5)
        assert loss_p_value(20, 0, 20, risk) == 1
        assert loss_p_value(0, 20, 20, risk) <= 0.05


def _halves(generator, rows, loses, gains):
    """(policies + 1, rows) right answers of two halves; the last one is full depth's.

    What policies lose and gain against it are mostly the same rows.
    """
    for _ in range(2):
        full = generator.random(rows) < 0.9
        ease, luck = generator.random((2, rows))
        right = np.where(full, ease >= loses[:, None] / 0.9, luck < gains[:, None] / 0.1)
        yield np.vstack([right, full])


@pytest.mark.parametrize(
    ("losses", "gains"),
    [
        ((0.022, 0.0205, 0.005, 0.0), 0.0),  # rates of differing rows as small as can be
        ((0.022, 0.0205, 0.005, 0.0), 0.01),
        ((0.06, 0.04, 0.025, -0.01), 0.02),
        ((0.021,) * 12, 0.02),  # of many that are as bad, the luckiest
    ],
    ids=["little noise", "noise", "far apart", "all too bad"],
)
def test_promises_are_kept_as_often_as_they_say(losses, gains, monkeypatch):
    # Cheap ones lose most; all pick on checked rows among the front of the searched ones.
    risk, rows, draws = RiskSpec(max_loss=0.02, confidence=0.9), 500, 400
    # The same counts come up again and again.
    monkeypatch.setattr("raee.objectives.loss_p_value", cache(loss_p_value))
    losses, gains = np.array(losses), np.full(len(losses), gains)
    true_loss = {f"probe@{i}": loss for i, loss in enumerate(losses)} | {"head@99": 0.0}
    policies = [FixedPolicy(exit=name) for name in true_loss]
    seconds = np.arange(1.0, len(policies) + 1)
    generator = np.random.default_rng(0)
    broken, early = 0, 0
    for _ in range(draws):
        searched, checked = _halves(generator, rows, losses + gains, gains)
        points = [
            Point(
                policy=policies[i],
                searched=_figures(searched[i].mean(), seconds[i]),
                checked=_figures(checked[i].mean(), seconds[i]),
                lost=int((checked[-1] & ~checked[i]).sum()),
                gained=int((checked[i] & ~checked[-1]).sum()),
            )
            for i in range(len(policies))
        ]
        on_front = [points[i] for i in front(Tried(policies, searched, seconds, seconds))]
        picked = _tuning(on_front, points[-1], rows).pick(TunedPolicy(risk=risk))
        broken += true_loss[picked.policy.exit] > risk.max_loss
        early += picked.policy.exit != "head@99"
    allowed = 1 - risk.confidence
    assert broken / draws <= allowed + 3 * np.sqrt(allowed * (1 - allowed) / draws)
    if min(losses) <= 0:
        assert early / draws > 0.5  # and the promise is not kept by promising nothing
