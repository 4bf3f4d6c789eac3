"""Calibration: confidences that say how often an answer is right.

Two things are calibrated, on a database's own rows and without their texts.  An exit that was not
fitted to labels, a head or a vote, gets one temperature.  A policy selects which rows answer at
which exit, by how sure that exit is; the confidences that it writes are calibrated by exit on the
rows that leave there in replay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, softmax

from raee.exits import Entries
from raee.policies.replay import Replayed, Trial

Array = NDArray[np.float64]

_CERTAIN = 1e-6
"""Confidences are no nearer to 0 or 1 than this: a single error at certainty would decide all."""

_PRIOR_ROWS = 30.0
"""Weight, in rows, of leaving confidences as they are: an exit that few rows take hardly
changes."""

_LEAST = 1e-12
"""Probability that a label has at least before its distribution is made less sure."""

_LOG_TEMPERATURES = (-7.0, 14.0)
_HALVINGS = 50


def excess(confidences: NDArray[np.floating], labels: int) -> Array:
    """(rows,) log-odds of confidences (rows,), less those of a guess among so many labels."""
    p = np.clip(confidences.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    return np.log(p / (1 - p)) + np.log(max(labels - 1, 1))


def warmed(
    confidences: NDArray[np.floating], temperature: float, labels: int
) -> NDArray[np.float32]:
    """Confidences (rows,) whose log-odds beyond a guess are multiplied by a temperature.

    The answer stays, and so does the order.  For two labels this is a temperature on their
    distribution; for more, it takes the other labels' probabilities together, so that only the
    answer's has to be known.  A guess stays a guess.
    """
    if temperature == 1.0:
        return confidences.astype(np.float32)
    return Line(slope=temperature)(confidences, labels)


def fit_temperature(
    confidences: NDArray[np.floating], right: NDArray[np.bool_], labels: int
) -> float:
    """The temperature under which being right or wrong is likeliest.  Both (rows,).

    It is 1 if nothing is known: no rows, or a single label.
    """
    if labels < 2 or not len(right):
        return 1.0
    z = excess(confidences, labels)

    def loss(log_factor: float) -> float:
        return float(_misses(np.exp(log_factor) * z, right, labels).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 3), method="bounded").x))


@dataclass(frozen=True)
class Line:
    """A line for the log-odds z (`excess`) of all answers of an exit: slope z + offset."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, confidences: NDArray[np.floating], labels: int) -> NDArray[np.float32]:
        """Calibrated confidences (rows,); NaN stays."""
        if labels < 2:
            return confidences.astype(np.float32)
        z = self.slope * excess(confidences, labels) + self.offset
        found = expit(z - np.log(labels - 1))
        return np.where(np.isnan(confidences), np.nan, found).astype(np.float32)


def fit_line(confidences: NDArray[np.floating], right: NDArray[np.bool_], labels: int) -> Line:
    """The line under which being right is likeliest (Platt, 1999), drawn towards no change.

    Both (rows,).
    """
    if labels < 2 or not len(right):
        return Line()
    z = excess(confidences, labels)

    def loss(line: Array) -> float:
        misses = _misses(np.exp(line[0]) * z + line[1], right, labels).sum()
        return float(misses + 0.5 * _PRIOR_ROWS * np.square(line).sum())

    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-3, 2), (-5, 5)]).x
    return Line(float(np.exp(found[0])), float(found[1]))


def _misses(z: Array, right: NDArray[np.bool_], labels: int) -> Array:
    """(rows,) how unlikely it was to be right or wrong, with log-odds z beyond a guess: -log P."""
    return np.logaddexp(0, np.where(right, -1.0, 1.0) * (z - np.log(labels - 1)))


def policy_lines(done: Replayed, trial: Trial) -> dict[int, Line]:
    """By exit's position, the line of the rows that leave there.

    done: what a policy did with the trial.
    """
    labels = len(trial.entries.labels)
    confidences = trial.tried.confidences[trial.rows, done.exits]
    right = done.answers == trial.label
    return {
        int(position): fit_line(
            confidences[done.exits == position], right[done.exits == position], labels
        )
        for position in np.unique(done.exits)
    }


def cross_fitted_confidences(
    done: Replayed, trial: Trial, fold: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(rows,) the confidence that would be written of each row, by lines of the other folds' rows.

    fold: (rows,) the number of each row's fold.
    """
    found = trial.tried.confidences[trial.rows, done.exits]
    for number in np.unique(fold):
        held, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        lines = policy_lines(done[others], trial[others])
        found[held] = written(lines, done.exits[held], found[held], len(trial.entries.labels))
    return found


def written(
    lines: Mapping[int, Line],
    exits: NDArray[np.int64],
    confidences: NDArray[np.float32],
    labels: int,
) -> NDArray[np.float32]:
    """(rows,) confidences by their exits' lines; an exit without a line leaves them as they are.

    exits, confidences: (rows,).
    """
    found = confidences.copy()
    for position, line in lines.items():
        here = exits == position
        found[here] = line(confidences[here], labels)
    return found


def fit_temperatures(entries: Entries) -> dict[str, float]:
    """By exit's name, the temperatures of readers that get one.

    They are fitted on complete rows, each without its text.
    """
    rows, labels = entries.complete, len(entries.labels)
    confidences, right = entries.confidences[rows], entries.right[rows]
    return {
        str(exit): fit_temperature(confidences[:, position], right[:, position], labels)
        for position, exit in enumerate(entries.exits)
        if exit.of.is_tempered
    }


def calibrated(entries: Entries, temperatures: Mapping[str, float]) -> Entries:
    """Entries with some exits' confidences calibrated by temperatures, which go by exit's name."""
    confidences = entries.confidences.copy()
    for position, exit in enumerate(entries.exits):
        if (factor := temperatures.get(str(exit))) is not None:
            confidences[:, position] = warmed(confidences[:, position], factor, len(entries.labels))
    return replace(entries, confidences=confidences)


def as_sure_as(
    distributions: NDArray[np.floating], confidences: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distributions (rows, labels), each by one temperature as sure of its answer as is said.

    confidences: (rows,).  The order of the labels stays, and so does the answer: if a confidence is
    less than a guess among so many labels, the labels are all but equally likely.
    """
    logs = np.log(np.maximum(distributions.astype(np.float64), _LEAST))
    logs -= logs.max(axis=1, keepdims=True)
    low, high = (np.full(len(logs), edge) for edge in _LOG_TEMPERATURES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # The answer's probability, as the others are in proportion to it.
        sure = 1 / np.exp(np.exp(middle)[:, None] * logs).sum(axis=1)
        more = sure < confidences
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return softmax(np.exp((low + high) / 2)[:, None] * logs, axis=1).astype(np.float32)
