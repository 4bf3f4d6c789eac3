"""What a tuning found, and which of it an objective means."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from raee.config import RiskSpec, RunnablePolicy, TunedPolicy
from raee.errors import InputError

_RATES = 100
"""Rates of differing rows at which a p-value is looked for, from the least to the largest."""

_IGNORED = 1e-12
"""Probability in each far tail that is counted as if it spoke against the policy."""

_NUISANCE = 0.1
"""Share of a p-value's level that bounding the rate of differing rows may take."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(_Record):
    """A policy on some rows."""

    accuracy: float
    mean_layers: float
    seconds_per_row: float
    """Modelled, by the version's cost table."""


class Point(_Record):
    """A policy that was searched on one half of the rows and checked on the other."""

    policy: RunnablePolicy = Field(discriminator="name")
    searched: Figures
    checked: Figures
    lost: int
    """Checked rows on which only the exit at full depth is right."""
    gained: int
    """Checked rows on which only the policy is."""


class KeyWorth(_Record):
    """What the best policy is without a key's vote."""

    accuracy_without: float
    seconds_without: float
    worth_keeping: bool


class Tuning(_Record):
    """What a search over policies found."""

    seed: int
    """Of the split into halves."""
    tried: int
    """Policies searched."""
    searched_rows: int
    checked_rows: int
    full_depth: Point
    """The best exit at full depth."""
    front: list[Point]
    """No policy that was tried is cheaper and as good on the searched rows; cheapest first."""
    families: dict[str, Point]
    """By policy name, the default objective's pick among the policies of that name."""
    keys: dict[str, KeyWorth]
    """By vote."""

    def pick(self, objective: TunedPolicy) -> Point:
        """The point that an objective means; raises InputError where none will do."""
        return pick(self.front, self.full_depth, self.checked_rows, objective)


def pick(front: list[Point], full: Point, rows: int, objective: TunedPolicy) -> Point:
    """The point that an objective means: by checked figures, the cheapest that will do.

    full: the best exit at full depth, which a promise falls back on; rows: checked.  Raises
    InputError where no point reaches an accuracy.
    """
    if objective.risk is not None:
        return _promised(front, full, rows, objective.risk)
    best = max(p.checked.accuracy for p in front)
    if objective.accuracy == "best":
        needed = best - half_standard_error(best, rows)
    elif objective.accuracy == "full":
        front, needed = [*front, full], full.checked.accuracy
    else:
        needed = objective.accuracy
    good = [p for p in front if p.checked.accuracy >= needed]
    if not good:
        raise InputError(
            f"policy.accuracy {needed:g}: no policy reaches it on the rows kept for checking; the "
            f"best has {best:.3f}"
        )
    return min(good, key=lambda p: (p.checked.seconds_per_row, -p.checked.accuracy))


def half_standard_error(accuracy: float, rows: int) -> float:
    """Half the standard error of an accuracy over so many rows."""
    return 0.5 * float(np.sqrt(accuracy * (1 - accuracy) / rows))


def loss_p_value(lost: int, gained: int, rows: int, risk: RiskSpec) -> float:
    """P-value of the hypothesis that a policy loses `max_loss` of the accuracy or more.

    lost, gained: of so many independent rows those on which only full depth, or only the policy,
    is right.  Under the hypothesis the difference L - G of the two counts is smallest where
    P(lost) = P(gained) + max_loss, for some rate q of differing rows, which nothing is known about
    but its count: the value is the largest over all q up to an upper confidence bound, plus the
    chance that the bound fails (Berger and Boos, JASA 89, 1994).  So it is valid for any number of
    rows.
    """
    from scipy.stats import beta  # slow to import

    bound_fails = _NUISANCE * (1 - risk.confidence)
    differing = lost + gained
    bound = beta.ppf(1 - bound_fails, differing + 1, rows - differing) if differing < rows else 1.0
    if bound <= risk.max_loss:
        return bound_fails
    rates = np.geomspace(risk.max_loss, bound, _RATES)
    tails = _tails(lost - gained, rows, rates, risk.max_loss)
    return min(1.0, float(tails.max()) + bound_fails)


def _tails(
    difference: int, rows: int, rates: NDArray[np.float64], loss: float
) -> NDArray[np.float64]:
    """P(L - G <= difference) where L + G is binomial with a rate and P(L) - P(G) = loss; by rate.

    rates: (rates,), all at least the loss.
    """
    from scipy.stats import binom  # slow to import

    low, high = binom.ppf([[_IGNORED], [1 - _IGNORED]], rows, rates)
    count = low[:, None] + np.arange((high - low).max() + 1)  # (rates, counts)
    most = np.floor((difference + count) / 2)
    lost = np.minimum((1 + loss / rates) / 2, 1.0)[:, None]
    tails = binom.pmf(count, rows, rates[:, None]) * binom.cdf(most, count, lost)
    return tails.sum(axis=1) + 2 * _IGNORED


def _promised(front: list[Point], full: Point, rows: int, risk: RiskSpec) -> Point:
    """The cheapest point that the promise is certified for, by fixed-sequence testing.

    Learn then Test (arXiv 2110.01052, section 4.2): hypotheses are tested in an order that the
    searched half fixes, from the most accurate on, each at the full level, up to the first that
    stands; so the chance of any false promise is at most the level.  Full depth needs no test: it
    loses nothing against itself.
    """
    certified = [full]
    for point in sorted(front, key=lambda p: -p.searched.accuracy):
        if loss_p_value(point.lost, point.gained, rows, risk) > 1 - risk.confidence:
            break
        certified.append(point)
    return min(certified, key=lambda p: p.checked.seconds_per_row)
