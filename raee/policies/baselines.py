"""Baselines: what people do without raee, and whether that is better than a policy.

A policy is compared with each of them on the same rows.  The best of them is found on these rows,
too, which flatters it a little.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from raee.config import FixedPolicy, RunnablePolicy
from raee.statistics.paired import NOISE_LEVEL, Paired, paired

MAJORITY = "majority"
"""The database's most frequent label for every row: no policy, since no exit answers."""

BASELINES = {
    MAJORITY: "the most frequent label",
    "words": "n-grams + logistic regression",
    "logistic": "full depth + logistic regression",
}
"""By name in tables, what each baseline is.  Versions from before there were n-grams lack those."""

_CONFIDENCE = 0.95
_OR_ELSE = "label more rows, or try another backbone"


class Against(BaseModel):
    """A policy against another on the same rows."""

    model_config = ConfigDict(frozen=True)

    wins: int
    """Rows on which only it is right."""
    losses: int
    """Rows on which only the other is."""
    p_value: float
    """McNemar's, exact and two-sided."""
    difference: float
    """Its accuracy less the other's."""
    difference_interval: tuple[float, float]
    """Of 95 %, paired."""


@dataclass(frozen=True)
class Rated:
    """How good some answers are, and what they cost."""

    accuracy: float
    cost: float
    """Of a row, in any unit that all that are compared have."""


def against(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Against:
    """Right answers `ours` (rows,) against others to the same rows, at least one."""
    found = paired(ours, theirs)
    return Against(
        wins=found.wins,
        losses=found.losses,
        p_value=found.p_value(),
        difference=(found.wins - found.losses) / len(ours),
        difference_interval=found.difference_interval(len(ours), _CONFIDENCE),
    )


def best_baseline(found: Mapping[str, Against]) -> str:
    """The baseline that is right most often.  found: a policy against each of them, and others."""
    return min((b for b in BASELINES if b in found), key=lambda b: found[b].difference)


def against_the_best(name: str, found: Mapping[str, Against]) -> str:
    """A line that compares a policy with the best baseline.

    name: the policy's.  found: as in `best_baseline`.
    """
    best = best_baseline(found)
    one = found[best]
    low, high = one.difference_interval
    return (
        f"{name} against {best} ({BASELINES[best]}), the best baseline on these rows: "
        f"{100 * one.difference:+.1f} points (95 %: {100 * low:+.1f} to {100 * high:+.1f}), "
        f"p = {one.p_value:.2g}"
    )


def better_baseline(
    name: str,
    policies: Mapping[str, RunnablePolicy],
    rated: Mapping[str, Rated],
    found: Mapping[str, Against],
) -> str | None:
    """A line that says which baseline is better than a policy, and what to do; None if none is.

    A baseline is better if it is right more often beyond noise (McNemar's exact test, one-sided
    5 %), or if it is right at least as often and costs less.

    name: the policy's.  policies, rated: of this policy and, among others, of the baselines; the
    majority is no policy.  found: the policy against each of them.
    """
    own = rated[name]
    # What the policy is, cannot be better than it is: a tuning may pick the very same.
    others = [b for b in BASELINES if b in found and policies.get(b) != policies[name]]

    def beyond_noise(baseline: str) -> bool:
        one = found[baseline]
        return Paired(one.wins, one.losses).p_value("less") < NOISE_LEVEL

    better = [b for b in others if rated[b].accuracy > own.accuracy and beyond_noise(b)]
    as_good = [b for b in others if rated[b].accuracy >= own.accuracy and rated[b].cost < own.cost]
    if not better and not as_good:
        return None
    best = min(better or as_good, key=lambda b: (-rated[b].accuracy, rated[b].cost))
    figures = f"{rated[best].accuracy:.3f} against {own.accuracy:.3f}"
    if better:
        one_sided = Paired(found[best].wins, found[best].losses).p_value("less")
        verdict = f"more often than {name}, beyond noise ({figures}, p = {one_sided:.2g})"
    else:
        verdict = f"as often as {name} ({figures}), and costs less"
    policy = policies.get(best)
    advice = _OR_ELSE
    if isinstance(policy, FixedPolicy):
        advice = f"set `policy: {{name: fixed, exit: {policy.exit}}}`, {_OR_ELSE}"
    return f"{BASELINES[best]} alone is right {verdict}: {advice}"
