"""Objectives pick what they say, and a promise is kept as often as its confidence says."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from raee.config import PRICE, FixedPolicy, RiskSpec, TunedPolicy
from raee.policies.objectives import Figures, Point, Promise, Step, Tuning, loss_p_value
from tests.raee.errors import refused


def _figures(accuracy, seconds):
    return Figures(accuracy=accuracy, mean_layers=seconds, seconds_per_row=seconds)


def _point(name, accuracy, seconds, crossed=None):
    return Point(
        policy=FixedPolicy(exit=name),
        fitted=_figures(accuracy, seconds),
        cross_fitted=_figures(accuracy if crossed is None else crossed, seconds),
    )


def _step(name, seconds, lost=0, gained=0):
    return Step(
        policy=FixedPolicy(exit=name), figures=_figures(0.9, seconds), lost=lost, gained=gained
    )


def _tuning(points=(), steps=(), texts=1_000, barred=None):
    full = _point("probe@6", 0.90, 6.0)
    return Tuning(
        seed=0,
        tried=len(points),
        rows=texts,
        texts=texts,
        full_depth=full,
        front=list(points) or [full],
        families={},
        keys={},
        promise=Promise(
            baseline=_step("probe@6", 6.0), steps=list(steps), texts=texts, barred=barred
        ),
    )


FRONT = [
    _point("probe@0", 0.80, 1.0),
    _point("probe@1", 0.895, 2.0),
    _point("probe@2", 0.904, 3.0),
    _point("probe@3", 0.910, 4.0),
]
STEPS = [
    _step("probe@5", 5.0),
    _step("probe@4", 4.0, lost=4, gained=4),
    _step("probe@2", 2.0, lost=20, gained=10),
    _step("probe@0", 1.0, lost=120, gained=20),
]


def _picked(objective, points=FRONT, texts=1_000):
    return _tuning(points, texts=texts).pick(objective).policy.exit


class TestAccuracy:
    def test_best_is_what_has_most_left_after_its_price(self):
        # A full pass of six seconds must buy the price: a second a sixth of it.
        assert _picked(TunedPolicy(price=0.0)) == "probe@3"
        assert _picked(TunedPolicy()) == _picked(TunedPolicy(price=PRICE)) == "probe@3"
        assert _picked(TunedPolicy(price=0.037)) == "probe@2"
        assert _picked(TunedPolicy(price=0.06)) == "probe@1"
        assert _picked(TunedPolicy(price=0.9)) == "probe@0"

    def test_full_is_the_cheapest_that_is_as_good_as_full_depth(self):
        assert _picked(TunedPolicy(accuracy="full")) == "probe@2"

    def test_full_is_full_depth_itself_if_no_other_is_as_good(self):
        assert _picked(TunedPolicy(accuracy="full"), points=FRONT[:2]) == "probe@6"

    def test_a_number_is_the_cheapest_that_reaches_it_less_a_standard_error(self):
        # One standard error of .895 is .0097 over 1,000 texts, .0307 over 100.
        assert _picked(TunedPolicy(accuracy=0.85)) == "probe@1"
        assert _picked(TunedPolicy(accuracy=0.885)) == "probe@1"
        assert _picked(TunedPolicy(accuracy=0.89)) == "probe@2"
        assert _picked(TunedPolicy(accuracy=0.86), texts=100) == "probe@1"
        assert _picked(TunedPolicy(accuracy=0.87), texts=100) == "probe@2"

    def test_of_equally_cheap_ones_the_more_accurate_is_picked(self):
        twins = [_point("probe@1", 0.9, 2.0), _point("probe@2", 0.95, 2.0)]
        assert _picked(TunedPolicy(accuracy=0.5), points=twins) == "probe@2"

    def test_a_number_out_of_reach_is_refused_with_the_best_there_is(self):
        with refused("policy.accuracy 0.95: .*0.910, less one 0.901"):
            _picked(TunedPolicy(accuracy=0.95))


class TestRisk:
    def test_the_cheapest_that_can_be_promised_is_picked(self):
        def promised(**risk):
            found = _tuning(FRONT, STEPS).pick(TunedPolicy(risk=RiskSpec(**risk)))
            return found.policy.exit

        assert promised(max_loss=0.2) == "probe@0"
        assert promised(max_loss=0.03) == "probe@2"
        assert promised(max_loss=0.01) == "probe@4"
        assert promised(max_loss=0.01, confidence=0.999) == "probe@5"

    def test_the_first_that_cannot_be_promised_ends_the_search(self):
        # The second alone could be promised.
        steps = [_step("probe@5", 5.0, lost=300), _step("probe@4", 4.0)]
        risk = TunedPolicy(risk=RiskSpec(max_loss=0.05))
        assert _tuning(steps=steps).pick(risk).policy.exit == "probe@6"
        assert _tuning(steps=steps[1:]).pick(risk).policy.exit == "probe@4"

    def test_full_depth_is_promised_if_nothing_else_can_be(self):
        risk = TunedPolicy(risk=RiskSpec(max_loss=0.01))
        assert _tuning(steps=[_step("probe@0", 1.0, lost=400)]).pick(risk).policy.exit == "probe@6"
        good = [_step("probe@5", 5.0)]
        assert _tuning(steps=good, texts=50).pick(risk).policy.exit == "probe@6"
        assert _tuning(steps=good, texts=1_000).pick(risk).policy.exit == "probe@5"

    def test_full_depth_is_promised_rather_than_what_costs_more(self):
        dear = [_step("probe@7", 7.0, gained=50)]
        risk = TunedPolicy(risk=RiskSpec(max_loss=0.01))
        assert _tuning(steps=dear).pick(risk).policy.exit == "probe@6"

    def test_nothing_is_promised_on_rows_that_bar_it(self):
        risk = TunedPolicy(risk=RiskSpec(max_loss=0.2))
        barred = _tuning(steps=STEPS, barred="near-copies")
        assert barred.pick(risk).policy.exit == "probe@6"


def test_a_tuning_of_an_older_format_is_read():
    def old(name, accuracy, seconds, lost, searched):
        return {
            "policy": {"name": "fixed", "exit": name},
            "searched": _figures(searched, seconds).model_dump(),
            "checked": _figures(accuracy, seconds).model_dump(),
            "lost": lost,
            "gained": 0,
        }

    found = Tuning.model_validate(
        {
            "seed": 0,
            "tried": 2_900,
            "searched_rows": 1_000,
            "checked_rows": 1_000,
            "full_depth": old("probe@6", 0.9, 6.0, 0, 0.9),
            "front": [
                old("probe@0", 0.8, 1.0, 100, 0.8),
                old("probe@1", 0.895, 2.0, 5, 0.91),
            ],
            "families": {"fixed": old("probe@1", 0.895, 2.0, 5, 0.91)},
            "keys": {},
        }
    )
    assert found.pick(TunedPolicy()).policy.exit == "probe@1"
    assert found.pick(TunedPolicy()).cross_fitted.accuracy == 0.895
    # The order of the searched half is kept: probe@1 is tested before probe@0.
    assert found.pick(TunedPolicy(risk=RiskSpec(max_loss=0.02))).policy.exit == "probe@1"
    assert Tuning.model_validate_json(found.model_dump_json()) == found


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


@pytest.mark.parametrize(
    ("losses", "gains"),
    [
        ((0.0, 0.005, 0.0205, 0.022), 0.0),  # rates of differing rows as small as can be
        ((0.0, 0.005, 0.0205, 0.022), 0.01),
        ((-0.01, 0.025, 0.04, 0.06), 0.02),
        ((0.021,) * 12, 0.02),  # of many that are as bad, the luckiest
    ],
    ids=["little noise", "noise", "far apart", "all too bad"],
)
def test_promises_are_kept_as_often_as_they_say(losses, gains, monkeypatch):
    risk, rows, draws = RiskSpec(max_loss=0.02, confidence=0.9), 500, 400
    # The same counts come up again and again.
    monkeypatch.setattr("raee.policies.objectives.loss_p_value", cache(loss_p_value))
    generator = np.random.default_rng(0)
    broken, early = 0, 0
    for _ in range(draws):
        # What policies lose and gain against full depth are mostly the same rows.
        full = generator.random(rows) < 0.9
        ease, luck = generator.random((2, rows))
        steps = []
        for n, loss in enumerate(losses):
            right = np.where(full, ease >= (loss + gains) / 0.9, luck < gains / 0.1)
            lost, gained = int((full & ~right).sum()), int((right & ~full).sum())
            steps.append(_step(f"probe@{n}", 5.0 - n / 100, lost, gained))
        picked = _tuning(steps=steps, texts=rows).pick(TunedPolicy(risk=risk)).policy
        true_loss = {f"probe@{n}": loss for n, loss in enumerate(losses)}.get(picked.exit, 0.0)
        broken += picked.exit != "probe@6" and true_loss > risk.max_loss
        early += picked.exit != "probe@6"
    allowed = 1 - risk.confidence
    assert broken / draws <= allowed + 3 * np.sqrt(allowed * (1 - allowed) / draws)
    if min(losses) <= 0:
        assert early / draws > 0.5  # and the promise is not kept by promising nothing
