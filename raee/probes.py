"""Probes: linear maps from a state to the labels, fitted in closed form, at every depth.

A probe reads a row's state x at a depth, a unit vector: `mean` over the row's tokens, or the one
at its `answer` position.  Its scores are those of linear discriminant analysis
(`raee.discriminant`) or, where that is better by more than noise, of multinomial logistic
regression (`raee.regression`); its distribution is their softmax after one temperature a depth.

Every figure of a probe on the database's own rows is without the row's text (`raee.texts`): exact
for the discriminant, cross-fitted for the regression, with equal texts in one fold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import entr, log_softmax

from raee.discriminant import SHRINKAGES, Scatter, left_out_scores, linear_map, scatter_at
from raee.exits import Answers, answers_of
from raee.paired import better_beyond_noise
from raee.regression import Map, Turned, regress, turned
from raee.sums import Array, Sums
from raee.texts import Copies, TextHashes, Texts

StateName = Literal["mean", "answer"]
Fit = Literal["lda", "logistic"]
States = Callable[[int], NDArray[np.float32]]
"""`states(depth) -> (rows, width)` unit vectors."""
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows that are fitted on, and rows that are held out."""

_JUDGES = 5_000
"""Rows by which a shrinkage is chosen: ten times all of them would take most of a rebuild."""

_FOLDS = 5
_PENALTIES = (1.0, 10.0, 100.0)
"""Inverse strengths (scikit-learn's C) tried for the regression on unit vectors."""


@dataclass(frozen=True)
class Linear:
    """A linear map to label scores, with the temperature that makes probabilities of them."""

    weights: Array
    """(labels, width)."""
    biases: Array
    """(labels,); -inf for a label that the fit has not seen."""
    temperature: float

    def log_probabilities(self, states: NDArray[np.floating]) -> Array:
        """(rows, labels) of states (rows, width)."""
        return log_softmax(self.temperature * (states @ self.weights.T + self.biases), axis=1)


@dataclass(frozen=True)
class Probes:
    """The probes of a database."""

    state: StateName
    fit: Fit
    maps: tuple[Linear, ...]
    """One a depth."""
    average_temperatures: Array
    """(depths,) of the average of the log-probabilities up to a depth."""
    means: Array
    """(depths, labels, width) label means, the prototypes of `de3`; 0 for a label without rows."""
    regression: Linear
    """Logistic regression on the state at full depth: what people do today."""


@dataclass(frozen=True)
class LeftOut:
    """What probes say of the rows they were fitted on, each without its text."""

    log_probabilities: Array
    """(depths, rows, labels)."""
    averages: Array
    """(depths, rows, labels) log-probabilities of the averages up to each depth."""
    prototype_distances: Array
    """(depths, rows, labels) of the state to each label's mean; inf to a label without rows."""
    regression: Array
    """(rows, labels) log-probabilities, cross-fitted."""


@dataclass(frozen=True)
class Fitted:
    """A fit with its own account of itself."""

    probes: Probes
    left_out: LeftOut
    shrinkages: tuple[float, ...]
    """By depth; what the closed form was fitted with."""
    penalty: float
    """Inverse strength of the regression's penalty (scikit-learn's C)."""
    accuracy: dict[str, float]
    """Of `lda` and `logistic` at full depth, each without the text."""


@dataclass(frozen=True)
class Judges:
    """The rows that carry the figures without the text; the sums contain all of them."""

    states: States
    label: NDArray[np.uint16]
    """(rows,)."""
    hashes: TextHashes
    """(rows,) of their texts."""
    copies: Copies
    """Of each row the rows of the sums that have its text."""


def fit_probes(state: StateName, sums: Sums, judges: Judges, seed: int = 0) -> Fitted:
    """Fit a database's probes.

    sums: of all rows.  seed: of the folds.
    """
    states, label = judges.states, judges.label
    depths, labels = sums.depths, len(sums.rows)
    closed, distances, means = [], [], _means(sums)
    for depth in range(depths):
        here = states(depth)  # read once for both; the last ones are those of full depth
        closed.append(_fit_discriminant(sums, depth, here, judges))
        distances.append(_left_out_distances(means[depth], sums.rows, here, judges.copies))
    texts = Texts(judges.hashes)
    deepest, folds = turned(here), _folds(texts, seed)
    penalty, first = _tuned_regression(deepest, label, labels, folds)
    regression, crossed = _regression(deepest, label, labels, penalty, folds, first)
    own = [left for _, left, _ in closed]
    maps = [found for found, _, _ in closed]
    right = own[-1].argmax(axis=1) == label
    right_regression = crossed.argmax(axis=1) == label
    fit: Fit = "lda"
    once = texts.first_rows  # copies of a row are no evidence of their own
    if better_beyond_noise(right_regression[once], right[once]):
        fit = "logistic"
        for depth in range(depths - 1):
            maps[depth], own[depth] = _regression(
                turned(states(depth)), label, labels, penalty, folds
            )
        maps[-1], own[-1] = regression, crossed
    log_probabilities = np.stack(
        [log_softmax(m.temperature * scores, axis=1) for m, scores in zip(maps, own, strict=True)]
    )
    running = averages(log_probabilities)
    warmth = np.array([fit_temperature(scores, label) for scores in running])
    return Fitted(
        probes=Probes(
            state=state,
            fit=fit,
            maps=tuple(maps),
            average_temperatures=warmth,
            means=means,
            regression=regression,
        ),
        left_out=LeftOut(
            log_probabilities=log_probabilities,
            averages=log_softmax(warmth[:, None, None] * running, axis=2),
            prototype_distances=np.stack(distances),
            regression=log_softmax(regression.temperature * crossed, axis=1),
        ),
        shrinkages=tuple(shrinkage for _, _, shrinkage in closed),
        penalty=penalty,
        accuracy={"lda": float(right.mean()), "logistic": float(right_regression.mean())},
    )


def left_out_accuracy(sums: Sums, judges: Judges) -> float:
    """Accuracy of the discriminant without the text, the mean over depths: to choose a state by."""
    found = [_fit_discriminant(sums, d, judges.states(d), judges)[1] for d in range(sums.depths)]
    return float(np.mean([(scores.argmax(axis=1) == judges.label).mean() for scores in found]))


def averages(log_probabilities: Array) -> Array:
    """(depths, rows, labels): at each depth the mean of the log-probabilities up to it."""
    count = np.arange(1, len(log_probabilities) + 1)[:, None, None]
    return np.cumsum(log_probabilities, axis=0) / count


def fit_temperature(scores: Array, label: NDArray[np.uint16]) -> float:
    """The factor on scores (rows, labels) under which the rows' labels are likeliest.

    Rows whose label has the score -inf say nothing about it.
    """
    return _warmed(scores, label)[0]


def _warmed(scores: Array, label: NDArray[np.uint16]) -> tuple[float, float]:
    """The temperature of some scores, and the mean of the labels' log-likelihood under it."""
    own = scores[np.arange(len(scores)), label]
    known = np.isfinite(own)
    if not known.any():
        return 1.0, 0.0
    scores, own = scores[known], own[known]

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return float(np.mean(np.logaddexp.reduce(factor * scores, axis=1) - factor * own))

    found = minimize_scalar(loss, bounds=(-7, 7), method="bounded")
    return float(np.exp(found.x)), -float(found.fun)


def left_out_answers(left_out: LeftOut) -> Answers:
    """What the fitted exits say of the rows they were fitted on, in the order of `fitted_exits`."""
    probes = np.exp(left_out.log_probabilities)
    found = answers_of([*probes, *np.exp(left_out.averages), *probes, np.exp(left_out.regression)])
    depths = len(probes)
    for depth, (distributions, distances) in enumerate(
        zip(probes, left_out.prototype_distances, strict=True)
    ):
        found.confidences[:, 2 * depths + depth] = 1 - edr(distributions, distances)
    return found


def edr(distributions: NDArray[np.floating], distances: NDArray[np.floating]) -> Array:
    """DE3-BERT's exit indicator (arXiv 2402.05948, section III), (rows,) from 0, certain, to 1.

    The harmonic mean of the distribution's entropy, as a share of the largest, and the distance
    ratio DR = (1 + (r1 - r2) / max(r1, r2)) / 2 of the state to the answer's prototype (r1) and to
    the nearest other one (r2).  distributions, distances: (rows, labels).
    """
    rows, labels = distributions.shape
    if labels == 1:
        return np.zeros(rows)
    answer = distributions.argmax(axis=1)[:, None]
    entropy = entr(distributions.astype(np.float64)).sum(axis=1) / np.log(labels)
    others = distances.astype(np.float64)
    own = np.take_along_axis(others, answer, axis=1)[:, 0]
    np.put_along_axis(others, answer, np.inf, axis=1)
    nearest = others.min(axis=1)
    farther = np.maximum(own, nearest)
    with np.errstate(invalid="ignore"):
        ratio = 0.5 * (1 + (own - nearest) / np.maximum(farther, 1e-12))
    # A label without a prototype is infinitely far: what the ratio comes to in the limit.
    ratio = np.where(np.isfinite(farther), ratio, np.isinf(own))
    # Rounding may take the entropy of equal shares a little above the largest.
    entropy = np.minimum(entropy, 1.0)
    return 2 * ratio * entropy / np.maximum(ratio + entropy, 1e-12)


def fit_shrinkage(
    scatter: Scatter, states: NDArray[np.float32], label: NDArray[np.uint16], copies: Copies
) -> float:
    """The shrinkage under which the rows' labels are likeliest, each without its text.

    Each shrinkage is judged at its own best temperature; of equals the largest is taken.  Of many
    rows some, evenly spread, are asked.  states: (rows, width); label: (rows,).
    """
    some = np.linspace(0, len(label) - 1, min(_JUDGES, len(label))).astype(int)
    likely = {
        s: _warmed(left_out_scores(scatter, s, states[some], copies[some]), label[some])[1]
        for s in SHRINKAGES
    }
    return max(SHRINKAGES, key=lambda s: (likely[s], s))


def _fit_discriminant(
    sums: Sums, depth: int, states: NDArray[np.float32], judges: Judges
) -> tuple[Linear, Array, float]:
    """The map at a depth, its left-out scores, and the shrinkage."""
    scatter = scatter_at(sums, depth)
    shrinkage = fit_shrinkage(scatter, states, judges.label, judges.copies)
    scores = left_out_scores(scatter, shrinkage, states, judges.copies)
    temperature = fit_temperature(scores, judges.label)
    return Linear(*linear_map(scatter, shrinkage), temperature), scores, shrinkage


def _means(sums: Sums) -> Array:
    rows = sums.rows[:, None]
    # Of a label whose rows are gone, rounding may have left something.
    return np.where(rows > 0, sums.first / np.maximum(rows, 1), 0.0)


def _left_out_distances(
    means: Array, rows: Array, states: NDArray[np.float32], copies: Copies
) -> Array:
    x = states.astype(np.float64)
    squared = np.square(x).sum(axis=1)[:, None] - 2 * x @ means.T + np.square(means).sum(axis=1)
    distances = np.sqrt(np.maximum(squared, 0))
    distances[:, rows == 0] = np.inf
    # Without k of a label's n rows, all at x, its mean lies n / (n - k) times as far from x.
    row = np.arange(len(x))[:, None]
    there, gone = rows[copies.labels], copies.counts
    farther = np.where(there > gone, there / np.maximum(there - gone, 1), np.inf)
    own = distances[row, copies.labels]
    with np.errstate(invalid="ignore"):  # a label that goes as a whole is at distance 0 of itself
        moved = np.where(farther < np.inf, own * farther, np.inf)
    # In the padding nothing goes, of whatever label.
    np.put_along_axis(
        distances,
        np.where(gone > 0, copies.labels, copies.labels[:, :1]),
        np.where(gone > 0, moved, moved[:, :1]),
        axis=1,
    )
    return distances


def _tuned_regression(
    rows: Turned, label: NDArray[np.uint16], labels: int, folds: Sequence[Fold]
) -> tuple[float, Map]:
    """The penalty that is right most often on the first fold, and that fold's map with it."""
    train, held = (rows.some(part) for part in folds[0])
    label, own = (label[part] for part in folds[0])
    found: dict[float, Map] = {}
    right: dict[float, int] = {}
    near = None
    for penalty in _PENALTIES:
        near = found[penalty] = regress(train, label, labels, penalty, near)
        right[penalty] = int((held.scores(near).argmax(axis=1) == own).sum())
    penalty = max(_PENALTIES, key=lambda p: (right[p], -p))
    return penalty, found[penalty]


def _regression(
    rows: Turned,
    label: NDArray[np.uint16],
    labels: int,
    penalty: float,
    folds: Sequence[Fold],
    first: Map | None = None,
) -> tuple[Linear, Array]:
    """The map of all rows, and their cross-fitted scores.  first: the first fold's map."""
    scores = np.zeros((len(label), labels))
    for train, held in folds:
        found = regress(rows.some(train), label[train], labels, penalty, first)
        first = found if first is None else first
        scores[held] = rows.some(held).scores(found)
    whole = regress(rows, label, labels, penalty, first)
    return Linear(*whole, fit_temperature(scores, label)), scores


def _folds(texts: Texts, seed: int) -> Sequence[Fold]:
    if len(texts) < 2:  # nothing can be held out
        every = np.arange(len(texts.number))
        return [(every, every)]
    number = min(_FOLDS, len(texts))
    fold = texts.folds(number, seed)
    return [(np.flatnonzero(fold != n), np.flatnonzero(fold == n)) for n in range(number)]
