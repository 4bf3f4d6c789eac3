"""Choosing among policies that were all tried on the same rows, and what a choice is worth.

A rule picks one of many policies by what they did with some rows.  The accuracy of its pick on
those rows is too high: the more policies, the luckier the best.  The figures that are reported are
cross-fitted: the rows are split into folds of texts, the rule picks anew without each fold, and the
fold is answered as that pick answers it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raee.config import RunnablePolicy
from raee.policies.costs import Costs
from raee.policies.replay import Replayed, Trial, replay

Array = NDArray[np.float64]

FOLDS = 5


@dataclass(frozen=True)
class Means:
    """What some policies did with some rows, on average."""

    accuracy: Array
    """(policies,) share of right answers, from 0 to 1."""
    seconds: Array
    """(policies,) modelled seconds a row."""
    rows: int

    @property
    def standard_error(self) -> Array:
        """(policies,) standard error of the accuracy."""
        return np.sqrt(self.accuracy * (1 - self.accuracy) / max(self.rows, 1))


Rule = Callable[[Means], int]
"""Picks a policy by its position."""


@dataclass(frozen=True)
class Tried:
    """What policies did with the rows of a trial."""

    policies: Sequence[RunnablePolicy]
    exits: NDArray[np.int16]
    """(policies, rows) position of the exit at which each row answered."""
    layers: NDArray[np.int16]
    """(policies, rows) backbone layers run."""
    seconds: NDArray[np.float32]
    """(policies, rows) seconds as the cost table models them."""
    answers: NDArray[np.uint16]
    """(policies, rows) the index of the label."""
    right: NDArray[np.bool_]
    """(policies, rows) whether the answer is the row's label."""

    def means(self, rows: NDArray | slice = slice(None)) -> Means:
        """The means on some of the rows."""
        right, seconds = self.right[:, rows], self.seconds[:, rows]
        return Means(right.mean(axis=1), seconds.mean(axis=1, dtype=np.float64), right.shape[1])

    def done(self, policy: int) -> Replayed:
        """What the policy at a position did."""
        return Replayed(
            self.exits[policy].astype(np.int64),
            self.answers[policy],
            self.layers[policy].astype(np.int64),
            self.seconds[policy].astype(np.float64),
        )

    def __getitem__(self, some: Sequence[int]) -> "Tried":
        return Tried(
            [self.policies[i] for i in some],
            self.exits[some],
            self.layers[some],
            self.seconds[some],
            self.answers[some],
            self.right[some],
        )


def try_all(policies: Iterable[RunnablePolicy], trial: Trial, costs: Costs) -> Tried:
    """Replay policies on a trial."""
    kept = list(policies)
    size = (len(kept), len(trial))
    tried = Tried(
        kept,
        np.zeros(size, np.int16),
        np.zeros(size, np.int16),
        np.zeros(size, np.float32),
        np.zeros(size, np.uint16),
        np.zeros(size, bool),
    )
    label = trial.label
    for i, policy in enumerate(kept):
        done = replay(policy, trial, costs)
        tried.exits[i], tried.layers[i], tried.seconds[i] = done.exits, done.layers, done.seconds
        tried.answers[i], tried.right[i] = done.answers, done.answers == label
    return tried


def cross_fitted(tried: Tried, rule: Rule, fold: NDArray[np.int64]) -> Replayed:
    """What a rule's picks did with the rows of the folds that they were picked without.

    fold: (rows,) the number of each row's fold; a single fold is answered by the pick on itself.
    """
    numbers = np.unique(fold)
    if len(numbers) == 1:
        return tried.done(rule(tried.means()))
    chosen = np.zeros(len(fold), np.int64)
    for number in numbers:
        held = fold == number
        chosen[held] = rule(tried.means(np.flatnonzero(~held)))
    rows = np.arange(len(fold))
    return Replayed(
        tried.exits[chosen, rows].astype(np.int64),
        tried.answers[chosen, rows],
        tried.layers[chosen, rows].astype(np.int64),
        tried.seconds[chosen, rows].astype(np.float64),
    )


def worth(price: float, full_seconds: float) -> Rule:
    """The policy with the highest accuracy less what its seconds cost.

    price: the accuracy that a full pass, which takes so many seconds, must buy.
    """

    def rule(means: Means) -> int:
        value = means.accuracy - price * means.seconds / max(full_seconds, 1e-12)
        return int(np.lexsort((means.seconds, -value))[0])

    return rule


def cheapest_with(accuracy: float, errors: float = 0.0) -> Rule:
    """The cheapest policy that has an accuracy, less so many standard errors of it.

    If none has, it is the one that comes nearest.
    """

    def rule(means: Means) -> int:
        reached = means.accuracy - errors * means.standard_error
        good = np.flatnonzero(reached >= accuracy)
        if len(good):
            return int(good[np.lexsort((-means.accuracy[good], means.seconds[good]))[0]])
        return int(np.lexsort((means.seconds, -reached))[0])

    return rule


def cheapest_as_good_as(policy: int) -> Rule:
    """The cheapest policy that is right as often as a given one."""

    def rule(means: Means) -> int:
        return cheapest_with(float(means.accuracy[policy]))(means)

    return rule
