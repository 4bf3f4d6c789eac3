"""`logistic`: scikit-learn's logistic regression at full depth, which is what people do today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from raee.answers import answers_of
from raee.readers.fit import Fit
from raee.readers.linear import Array, Linear, fit_temperature
from raee.readers.reader import Due, Here, Look, Reader, Reading
from raee.readers.regression import Map, Turned, regress, turned

if TYPE_CHECKING:
    from raee.readers.fit import Fitting

PENALTIES = (1.0, 10.0, 100.0)
"""Inverse strengths (scikit-learn's C) tried for the regression on unit vectors."""


class Logistic(Reader):
    """Multinomial logistic regression on the state at full depth."""

    name = "logistic"
    clause = "the logistic regression"
    description = "scikit-learn's logistic regression at full depth"
    look = Look("c5", "*", "none")

    def depths(self, deepest: int, key_depths: Sequence[int]) -> Sequence[int]:
        """At full depth."""
        return (deepest,)

    def fitter(self, fitting: Fitting) -> LogisticFitter:
        """Keeps the last depth's states."""
        return LogisticFitter(fitting)

    def arrays(self, parameters: Linear) -> dict[str, NDArray[Any]]:
        """The map's arrays, named as versions have them since format 2."""
        return {
            "regression_weights": parameters.weights,
            "regression_biases": parameters.biases,
            "regression_temperature": np.array([parameters.temperature]),
        }

    def from_arrays(self, arrays: dict[str, NDArray[Any]]) -> Linear:
        """The map."""
        return Linear(
            arrays["regression_weights"],
            arrays["regression_biases"],
            float(arrays["regression_temperature"][0]),
        )

    def read(self, here: Here, due: Due) -> Reading:
        """The map's probabilities."""
        return Reading(softmax(here.parameters(self.name).finite_logs(here.vectors(due)), axis=1))


@dataclass(frozen=True)
class Regression:
    """A regression, and its scores on the rows that it was fitted without."""

    map: Linear
    scores: Array
    """(rows, labels) cross-fitted."""


def passes_of_a_depth(fitting: Fitting) -> int:
    """How many regressions it takes at a depth: of all rows, and without each fold."""
    return 1 + len(fitting.folds)


class LogisticFitter:
    """The fit of the regression, and of others like it at other depths."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        fitting.plan(len(PENALTIES) + passes_of_a_depth(fitting))

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Nothing: who asks first, perhaps before full depth is seen, has its states read."""

    @cached_property
    def deepest(self) -> Regression:
        """The regression at full depth."""
        return self.at(self._deepest, self._tuned[1])

    @property
    def penalty(self) -> float:
        """The penalty's inverse strength that is right most often."""
        return self._tuned[0]

    def at(self, rows: Turned, near: Map | None = None) -> Regression:
        """A regression with the same penalty.  near: a fold's map, to begin near."""
        label, labels = self._fitting.judges.label, self._fitting.labels
        whole = regress(rows, label, labels, self.penalty, near)
        self._fitting.passed()
        scores = np.zeros((len(label), labels))
        for train, held in self._fitting.folds:
            found = regress(rows.some(train), label[train], labels, self.penalty, whole)
            scores[held] = rows.some(held).scores(found)
            self._fitting.passed()
        return Regression(Linear(*whole, fit_temperature(scores, label)), scores)

    def fit(self) -> Fit:
        """The map of all rows, and their cross-fitted answers."""
        found = self.deepest
        logs = log_softmax(found.map.temperature * found.scores, axis=1)
        record = {"regression_penalty": self.penalty, "regression_seed": self._fitting.seed}
        return Fit(found.map, answers_of([np.exp(logs)]), record)

    @cached_property
    def _deepest(self) -> Turned:
        fitting = self._fitting
        return turned(fitting.judges.states(fitting.sums.depths - 1))

    @cached_property
    def _tuned(self) -> tuple[float, Map]:
        """The penalty that is right most often on the first fold, and that fold's map with it.

        The lighter a penalty, the longer its fit takes: the first that is worse is the last tried.
        """
        label, labels = self._fitting.judges.label, self._fitting.labels
        train, held = (self._deepest.some(part) for part in self._fitting.folds[0])
        fitted, own = (label[part] for part in self._fitting.folds[0])
        found: dict[float, Map] = {}
        right: dict[float, int] = {}
        near = None
        for penalty in PENALTIES:
            near = found[penalty] = regress(train, fitted, labels, penalty, near)
            right[penalty] = int((held.scores(near).argmax(axis=1) == own).sum())
            if right[penalty] < max(right.values()):
                break
        self._fitting.passed(len(PENALTIES))
        best = max(right, key=lambda p: (right[p], -p))
        return best, found[best]


READER = Logistic()
