"""`probe`: a linear map from a state to the labels at every depth, fitted in closed form.

Its scores are those of linear discriminant analysis (`raee.readers.discriminant`) or, if that is
better by more than noise, of multinomial logistic regression (`raee.readers.regression`); its
distribution is their softmax after one temperature a depth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from raee.answers import answers_of
from raee.drawn import evenly
from raee.readers.discriminant import (
    SHRINKAGES,
    Scatter,
    in_basis,
    left_out_scores,
    left_out_scores_at,
    linear_map,
    scatter_at,
)
from raee.readers.fit import Fit
from raee.readers.linear import Array, Linear, fit_likelihood, fit_temperature
from raee.readers.logistic import LogisticFitter, passes_of_a_depth
from raee.readers.reader import Due, Here, Look, Reader, Reading
from raee.readers.regression import turned
from raee.statistics.paired import better_beyond_noise
from raee.texts import Copies

if TYPE_CHECKING:
    from raee.readers.fit import Fitting, Judges
    from raee.readers.sums import Sums

Maps = tuple[Linear, ...]
"""One map a depth."""

_JUDGES = 5_000
"""Rows by which a shrinkage is chosen: ten tries on all rows would take most of a rebuild."""


class Probe(Reader):
    """A linear map at every depth."""

    name = "probe"
    clause = "the probe"
    description = "a linear map, fitted in closed form"
    look = Look("c1", "s", "--")

    def fitter(self, fitting: Fitting) -> ProbeFitter:
        """Fits the closed form at each depth that it comes to."""
        return ProbeFitter(fitting)

    def arrays(self, parameters: Maps) -> dict[str, NDArray[Any]]:
        """Weights, biases and temperatures, depths first."""
        return {
            "weights": np.stack([m.weights for m in parameters]),
            "biases": np.stack([m.biases for m in parameters]),
            "temperatures": np.array([m.temperature for m in parameters]),
        }

    def from_arrays(self, arrays: dict[str, NDArray[Any]]) -> Maps:
        """The maps."""
        each = zip(arrays["weights"], arrays["biases"], arrays["temperatures"], strict=True)
        return tuple(Linear(weights, biases, float(t)) for weights, biases, t in each)

    def read(self, here: Here, due: Due) -> Reading:
        """The map's probabilities."""
        return Reading(softmax(self.logs(here, due), axis=1))

    def logs(self, here: Here, due: Due) -> Array:
        """(due, labels) log-probabilities."""
        maps: Maps = here.parameters(self.name)
        return maps[here.depth].finite_logs(here.vectors(due))


class ProbeFitter:
    """The fit of the probes."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        self._deepest = fitting.sums.depths - 1
        self._found: list[tuple[Linear, Array]] = []
        self._shrinkages: list[float] = []
        fitting.plan(1 + self._deepest * passes_of_a_depth(fitting))

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Fit the map at a depth.  states: (rows, width)."""
        at_end = depth == self._deepest
        if self._fit == "logistic":
            found = self._regression.deepest if at_end else self._regression.at(turned(states))
            self._found.append((found.map, found.scores))
            return
        sums, judges = self._fitting.sums, self._judges
        closed = self._closed if at_end else fit_discriminant(sums, depth, states, judges)
        self._found.append(closed[:2])
        self._shrinkages.append(closed[2])
        if not at_end:
            self._fitting.passed(passes_of_a_depth(self._fitting))

    @cached_property
    def log_probabilities(self) -> Array:
        """(depths, rows, labels) log-probabilities without the text."""
        return np.stack([log_softmax(m.temperature * s, axis=1) for m, s in self._found])

    def fit(self) -> Fit:
        """The maps, and their answers without the text."""
        maps = tuple(m for m, _ in self._found)
        right, right_regression = self._right
        record = {
            "fit": self._fit,
            "shrinkages": self._shrinkages or [self._closed[2]],
            "temperatures": [m.temperature for m in maps],
            "accuracy_without_the_row": {
                "lda": float(right.mean()),
                "logistic": float(right_regression.mean()),
            },
        }
        return Fit(maps, answers_of([*np.exp(self.log_probabilities)]), record)

    @property
    def _judges(self) -> Judges:
        return self._fitting.judges

    @property
    def _regression(self) -> LogisticFitter:
        found = self._fitting.fitter("logistic")
        assert isinstance(found, LogisticFitter)
        return found

    @cached_property
    def _closed(self) -> tuple[Linear, Array, float]:
        """The closed form at full depth, as by `fit_discriminant`."""
        states = self._judges.states(self._deepest)
        found = fit_discriminant(self._fitting.sums, self._deepest, states, self._judges)
        self._fitting.passed()
        return found

    @cached_property
    def _right(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether the closed form and the regression are right at full depth, without the text.

        Both (rows,).
        """
        label = self._judges.label
        closed, crossed = self._closed[1], self._regression.deepest.scores
        return closed.argmax(axis=1) == label, crossed.argmax(axis=1) == label

    @cached_property
    def _fit(self) -> Literal["lda", "logistic"]:
        """Which fit it is at all depths: found out before any other depth is fitted."""
        right, right_regression = self._right
        once = self._judges.texts.first_rows  # copies of a row are no evidence of their own
        better = better_beyond_noise(right_regression[once], right[once])
        return "logistic" if better else "lda"


def left_out_accuracy(
    sums: Sums, judges: Judges, on_rows: Callable[[int], None] = lambda rows: None
) -> float:
    """Accuracy of the discriminant without the text, the mean over depths.

    A database's state is chosen by it.  on_rows is told of so many rows as the judges are, evenly.
    """
    right, rows = [], len(judges.label)
    for depth in range(sums.depths):
        scores = fit_discriminant(sums, depth, judges.states(depth), judges)[1]
        right.append((scores.argmax(axis=1) == judges.label).mean())
        on_rows(rows * (depth + 1) // sums.depths - rows * depth // sums.depths)
    return float(np.mean(right))


def fit_shrinkage(
    scatter: Scatter, states: NDArray[np.float32], label: NDArray[np.uint16], copies: Copies
) -> float:
    """The shrinkage under which the rows' labels are likeliest, each without its text.

    Each shrinkage is judged at its own best temperature; the largest of equals is taken.  If there
    are many rows, some of them judge, evenly spread.  states: (rows, width); label: (rows,).
    """
    some = evenly(len(label), _JUDGES)
    x, among, own = in_basis(scatter, states[some]), copies[some], label[some]
    likely = {
        s: fit_likelihood(left_out_scores_at(scatter, s, x, among), own)[1] for s in SHRINKAGES
    }
    return max(SHRINKAGES, key=lambda s: (likely[s], s))


def fit_discriminant(
    sums: Sums, depth: int, states: NDArray[np.float32], judges: Judges
) -> tuple[Linear, Array, float]:
    """The map at a depth, its scores without the text (rows, labels), and the shrinkage.

    states: (rows, width) of the judges at that depth.
    """
    scatter = scatter_at(sums, depth)
    shrinkage = fit_shrinkage(scatter, states, judges.label, judges.copies)
    scores = left_out_scores(scatter, shrinkage, states, judges.copies)
    temperature = fit_temperature(scores, judges.label)
    return Linear(*linear_map(scatter, shrinkage), temperature), scores, shrinkage


READER = Probe()
