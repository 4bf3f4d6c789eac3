"""What a tuning found, and which of it an objective means."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from raee.config import RiskSpec, RunnablePolicy, TunedPolicy
from raee.errors import InputError
from raee.policies.choosing import Means, Rule, cheapest_as_good_as, cheapest_with, worth

_RATES = 100
"""Rates of differing rows at which a p-value is looked for, from the least to the largest."""

_IGNORED = 1e-12
"""Probability in each far tail that counts as evidence against the policy."""

_NUISANCE = 0.1
"""Share of a p-value's level that may go into bounding the rate of differing rows."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(_Record):
    """A policy on some rows."""

    accuracy: float
    mean_layers: float
    seconds_per_row: float
    """Seconds as the version's cost table models them."""


class Point(_Record):
    """A policy, what it did with the rows that it was picked on, and what that is worth."""

    policy: RunnablePolicy = Field(discriminator="name")
    fitted: Figures
    """On all rows; the policy was picked on them, so the accuracy is too high."""
    cross_fitted: Figures
    """Figures of picks by the same rule, on the rows that they were picked without."""


class Step(_Record):
    """A policy that a promise may be certified for, against the baseline."""

    policy: RunnablePolicy = Field(discriminator="name")
    figures: Figures
    """On all rows."""
    lost: int
    """Texts on which only the baseline is right."""
    gained: int
    """Texts on which only the policy is right."""


class Promise(_Record):
    """What a promise rests on: policies in the order of their tests, fixed beforehand."""

    baseline: Step
    """The exit at full depth that nothing is to be lost against; it loses nothing itself."""
    steps: list[Step]
    texts: int
    """Different texts that were tried: copies are no evidence of their own."""
    barred: str | None = None
    """Why nothing can be promised on these rows; None if something can."""

    def certified(self, risk: RiskSpec) -> Step:
        """The cheapest policy that the promise holds for, by fixed-sequence testing.

        Learn then Test (arXiv 2110.01052, section 4.2): hypotheses are tested in an order that was
        fixed before, each at the full level, up to the first that is not rejected; so the chance
        of any false promise is at most the level.
        """
        held = [self.baseline]
        for step in self.steps if self.barred is None else ():
            if loss_p_value(step.lost, step.gained, self.texts, risk) > 1 - risk.confidence:
                break
            held.append(step)
        return min(held, key=lambda s: s.figures.seconds_per_row)


class KeyWorth(_Record):
    """What the best policy is worth without a key's vote; the accuracy is cross-fitted."""

    accuracy_without: float
    seconds_without: float
    worth_keeping: bool


class Tuning(_Record):
    """What a search over policies found."""

    seed: int
    """Seed of the folds."""
    tried: int
    """How many policies were tried."""
    rows: int
    """Rows that they were tried on and picked by."""
    texts: int
    """Different texts among these."""
    full_depth: Point
    """The best exit at full depth."""
    front: list[Point]
    """The policies than which none that was tried is cheaper and as good on these rows; cheapest
    first."""
    families: dict[str, Point]
    """By policy name, the best policy of that name."""
    keys: dict[str, KeyWorth]
    """By vote, what its key is worth."""
    promise: Promise

    @model_validator(mode="before")
    @classmethod
    def _of_halves(cls, value: Any) -> Any:
        """Before format 4, policies were searched on one half of the rows and checked on the other.

        The check's figures are those on rows that did not pick the policy.
        """
        return tuning_of_halves(value) if "searched_rows" in value else value

    def pick(self, objective: TunedPolicy) -> Point:
        """The point that an objective means.  Raises InputError if no policy reaches it."""
        if objective.risk is not None:
            found = self.promise.certified(objective.risk)
            return Point(policy=found.policy, fitted=found.figures, cross_fitted=found.figures)
        points = [*self.front, self.full_depth]
        means = Means(
            np.array([p.fitted.accuracy for p in points]),
            np.array([p.fitted.seconds_per_row for p in points]),
            self.texts,
        )
        if not isinstance(objective.accuracy, str):
            reached = float((means.accuracy - means.standard_error).max())
            if reached < objective.accuracy:
                raise InputError(
                    f"policy.accuracy {objective.accuracy:g}: no policy reaches it less one "
                    f"standard error; the best has {means.accuracy.max():.3f}, less one "
                    f"{reached:.3f}"
                )
        full_seconds = self.full_depth.fitted.seconds_per_row
        return points[rule_of(objective, full_seconds, len(points) - 1)(means)]


def rule_of(objective: TunedPolicy, full_seconds: float, full: int) -> Rule:
    """The rule by which an objective picks, unless it is a promise.

    full_seconds: seconds a row at full depth; full: position of the policy that takes them.
    """
    if objective.accuracy == "best":
        return worth(objective.price, full_seconds)
    if objective.accuracy == "full":
        return cheapest_as_good_as(full)
    return cheapest_with(objective.accuracy, errors=1.0)


def tuning_of_halves(old: dict[str, Any]) -> dict[str, Any]:
    """A tuning of formats 2 and 3, in today's keys."""

    def point(was: dict[str, Any]) -> dict[str, Any]:
        checked = was["checked"]
        return {"policy": was["policy"], "fitted": checked, "cross_fitted": checked}

    def step(was: dict[str, Any]) -> dict[str, Any]:
        return {"figures": was["checked"], **{k: was[k] for k in ("policy", "lost", "gained")}}

    tested = sorted(old["front"], key=lambda p: -p["searched"]["accuracy"])
    return {
        "seed": old["seed"],
        "tried": old["tried"],
        "rows": old["searched_rows"] + old["checked_rows"],
        "texts": old["checked_rows"],
        "full_depth": point(old["full_depth"]),
        "front": [point(p) for p in old["front"]],
        "families": {name: point(p) for name, p in old["families"].items()},
        "keys": old["keys"],
        "promise": {
            "baseline": step(old["full_depth"]),
            "steps": [step(p) for p in tested],
            "texts": old["checked_rows"],
        },
    }


def half_standard_error(accuracy: float, rows: int) -> float:
    """Half the standard error of an accuracy over so many rows."""
    return 0.5 * float(np.sqrt(accuracy * (1 - accuracy) / rows))


def loss_p_value(lost: int, gained: int, rows: int, risk: RiskSpec) -> float:
    """P-value of the hypothesis that a policy loses `max_loss` of the accuracy or more.

    lost, gained: among so many independent rows, how many only full depth, or only the policy, is
    right on.  Under the hypothesis the difference L - G of the two counts is smallest if
    P(lost) = P(gained) + max_loss, for some rate q of differing rows, of which only the count is
    known: the value is the largest over all q up to an upper confidence bound, plus the chance that
    the bound fails (Berger and Boos, JASA 89, 1994).  So it is valid for any number of rows.
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
    """(rates,) P(L - G <= difference) if L + G is binomial with a rate and P(L) - P(G) = loss.

    rates: (rates,), all at least the loss.
    """
    from scipy.stats import binom  # slow to import

    low, high = binom.ppf([[_IGNORED], [1 - _IGNORED]], rows, rates)
    count = low[:, None] + np.arange((high - low).max() + 1)  # (rates, counts)
    most = np.floor((difference + count) / 2)
    lost = np.minimum((1 + loss / rates) / 2, 1.0)[:, None]
    tails = binom.pmf(count, rows, rates[:, None]) * binom.cdf(most, count, lost)
    return tails.sum(axis=1) + 2 * _IGNORED
