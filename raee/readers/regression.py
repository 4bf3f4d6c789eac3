"""Multinomial logistic regression with a ridge penalty, to its optimum.

The problem is scikit-learn's `LogisticRegression`: one map for two labels, one a label for more.
Its solvers stop when the gradient is small.  On states that hardly vary in most directions that is
a long way from the optimum: two fits of states that differ by 1e-7 then differ by 0.05 in their
errors, and a rebuild would not give what a build from nothing gives.  Here Newton's steps
reach the optimum, each found by conjugate gradients in coordinates in which the problem is nearly
round: the axes of the states' variance, around and in units of the rows that are unsure of a label,
and those of the labels that are mistaken for each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raee.cores import OnParts, all_cores
from raee.readers.sums import Array

_NEAR = 2e-6
"""How near the optimum the search ends: about the root mean square of what is still wrong with the
rows' log-probabilities, weighted by the probabilities.  Single precision gets to a tenth of it."""
_BEYOND = 0.3
"""How far the last of Newton's steps goes beyond that, as a share."""
_FIRST, _LATER = 0.2, 3.0
"""How much of the gradient a step leaves, as a share: the first ones, and later ones for how wrong
the map is.  That is about as much as the loss is not the parabola that a step takes it for."""
_NEWTON, _CONJUGATE, _HALVINGS = 100, 1_000, 30
"""Steps at most, far more than it takes: Newton's, those by which each is found, and halvings."""
_ROUNDING = 1e-7
"""Share of the loss that single precision does not see."""
_LEAST = 1e-12
"""Share of the rows that are unsure of a label, at least, of those of the label with the most."""
_NARROW = 1e-3
"""Share of all rows' variance that those that are unsure of a label have, at least."""
_ALIKE = 1e-6
"""Least eigenvalue of how labels are mistaken for each other, of which the mean is 1."""
_ROWS_AT_ONCE = 1_024

Single = NDArray[np.float32]
Map = tuple[Array, Array]
"""Weights (labels, width) and biases (labels,)."""


@dataclass(frozen=True)
class Turned:
    """Rows' states in the axes along which they vary: there the problem is nearly round."""

    values: Array
    """(rows, width) coordinates in the axes."""
    centre: Array
    """(width,) the state at the origin of the axes."""
    basis: Array
    """(width, width) the axes, as columns."""
    spread: Array
    """(width,) the variance along each axis."""

    def some(self, rows: NDArray[np.integer]) -> "Turned":
        """Some of the rows, in the same axes, which need not be exactly the rows' own."""
        return replace(self, values=self.values[rows])

    def scores(self, found: Map) -> Array:
        """(rows, labels) the scores by a map."""
        weights, biases = found
        return self.values @ (weights @ self.basis).T + (biases + weights @ self.centre)


def turned(states: NDArray[np.float32]) -> Turned:
    """States (rows, width) around their mean, in the axes of their variance."""
    x = states.astype(np.float64)
    centre = x.mean(axis=0)
    x -= centre
    spread, basis = np.linalg.eigh(x.T @ x / len(x))
    return Turned(x @ basis, centre, basis, np.maximum(spread, 0.0))


def regress(
    rows: Turned, label: NDArray[np.integer], labels: int, penalty: float, near: Map | None = None
) -> Map:
    """The map of the states under which the labels are likeliest.

    label: (rows,).  penalty: the inverse strength of the penalty on the weights (scikit-learn's C).
    near: the map of much the same rows or of another penalty: the search begins there, and ends at
    the same optimum as without.  A label without rows has the bias -inf; a single label's map is 0.
    """
    weights, biases = np.zeros((labels, len(rows.centre))), np.full(labels, -np.inf)
    seen, index = np.unique(label, return_inverse=True)
    biases[seen] = 0.0
    if len(seen) > 1:
        # A map that has not seen one of the labels is nothing to begin with.
        known = near is not None and np.isfinite(near[1][seen]).all()
        begin = (near[0][seen], near[1][seen]) if near is not None and known else None
        weights[seen], biases[seen] = _optimum(rows, index, penalty, begin)
    return weights, biases


@dataclass(frozen=True)
class _Rows:
    """Some of the rows of a problem."""

    states: Single
    """(rows, width + 1) their coordinates, and a 1 by which the bias is multiplied."""
    own: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Where the row's own label is in arrays (labels, rows)."""


_Part = tuple[_Rows, Single]
"""Some of the rows with something of theirs, (labels, rows)."""


@dataclass(frozen=True)
class _Problem:
    """The loss: minus the rows' log-likelihood, and the ridge times half the squared weights."""

    parts: Sequence[_Rows]
    spread: Array
    """(width + 1,) the mean squares of the coordinates."""
    ridge: Single
    """(width + 1,) the penalty on the weights, and none on the bias."""
    each: OnParts

    def scores(self, maps: Single) -> list[Single]:
        """Of each part (labels, rows).  maps: (labels, width + 1)."""
        return self.each(lambda part: maps @ part.states.T, self.parts)

    def loss(self, maps: Single, scores: Sequence[Single]) -> tuple[float, list[Single]]:
        """The loss, and of each part its derivatives by the scores (labels, rows).

        A derivative is the label's probability, less 1 at the row's own.  All keep their digits if
        they are small: of a row that is all but sure, what its own label lacks to 1.
        """

        def work(part: _Part) -> tuple[float, Single]:
            own, error = part[0].own, part[1] - part[1].max(axis=0)
            score = error[own]
            np.exp(error, out=error)
            size = error[own]
            error[own] = 0.0
            others = error.sum(axis=0)
            total = others + size
            error /= total
            error[own] = -others / total
            lacks = np.log1p((others + (size - 1)).astype(np.float64)) - score
            return float(lacks.sum()), error

        found = self.each(work, list(zip(self.parts, scores, strict=True)))
        value = sum(loss for loss, _ in found) + 0.5 * _dot(self.ridge * maps, maps)
        return value, [error for _, error in found]

    def slope(self, maps: Single, errors: Sequence[Single]) -> Single:
        """(labels, width + 1) the gradient.  errors: the loss's derivatives by the scores."""
        return self._sum(lambda part: part[1] @ part[0].states, errors) + self.ridge * maps

    def bend(self, step: Single, errors: Sequence[Single]) -> Single:
        """(labels, width + 1) what a step adds to the gradient, to first order."""

        def work(part: _Part) -> Single:
            (rows, error), own = part, part[0].own
            change: Single = step @ rows.states.T
            change -= change[own]  # which changes no probability, and keeps the digits
            mean = np.einsum("lr,lr->r", error, change)
            change -= mean
            change *= error
            change[own] -= mean
            return change @ rows.states

        return self._sum(work, errors) + self.ridge * step

    def rounding(self, errors: Sequence[Single]) -> Callable[[Single], Single]:
        """The inverse of about what `bend` does.

        A row counts for a label by how unsure it is of it.  For each label, the rows' mean and
        variance along each axis are exact, and the axes are taken to be independent; how labels
        are mistaken for each other is taken to be the same everywhere.
        """

        def work(part: _Part) -> Single:
            (rows, error), own = part, part[0].own
            unsure = error * (1 - error)
            unsure[own] = -error[own] * (1 + error[own])
            chance = error.copy()
            chance[own] += 1
            found = unsure @ rows.states, unsure @ np.square(rows.states), chance @ chance.T
            return np.concatenate(found, axis=1)

        found, width = self._sum(work, errors).astype(np.float64), len(self.spread)
        first, second, together = np.split(found, [width, 2 * width], axis=1)
        count = np.maximum(first[:, -1:], _LEAST * first[:, -1].max() + _LEAST)
        mean = first / count
        variance = np.maximum(second / count - np.square(mean), _NARROW * self.spread)
        mean[:, -1], variance[:, -1] = 0.0, 1.0  # the bias has no axis: it takes up the means
        root = np.sqrt(count * variance + self.ridge)
        weight = np.sqrt(count)
        mistaken = -together / (weight * weight.T)
        np.fill_diagonal(mistaken, 1.0)
        # Nothing depends on the sum of the labels' maps, which is 0 and stays it.
        values, axes = np.linalg.eigh(mistaken + weight * weight.T / count.sum())
        # The penalty has nothing to do with other labels: its share does not mix them.
        own_share = (self.ridge / np.square(root)).mean(axis=0)
        mixed = np.maximum(values, _ALIKE)[:, None] * (1 - own_share) + own_share
        singles: list[Single] = [a.astype(np.float32) for a in (mean, 1 / root, axes, 1 / mixed)]
        m, scale, turn, inverse = singles

        def rounded(slope: Single) -> Single:
            inside: Single = turn.T @ (scale * (slope - m * slope[:, -1:]))
            moved: Single = scale * (turn @ (inverse * inside))
            moved[:, -1] -= (m * moved).sum(axis=1)
            return moved - moved.mean(axis=0)

        return rounded

    def _sum(self, work: Callable[[_Part], Single], errors: Sequence[Single]) -> Single:
        found = self.each(work, list(zip(self.parts, errors, strict=True)))
        return np.sum(found, axis=0)


def _optimum(x: Turned, index: NDArray[np.int64], penalty: float, near: Map | None) -> Map:
    counts = np.bincount(index)
    rows, labels = len(index), len(counts)
    states = np.concatenate([x.values, np.ones((rows, 1))], axis=1).astype(np.float32)
    # Two mirrored maps pay half of what scikit-learn's one map pays for the same probabilities.
    ridge = np.full(states.shape[1], (2.0 if labels == 2 else 1.0) / penalty, np.float32)
    ridge[-1] = 0.0
    begin = [np.zeros((labels, states.shape[1]), np.float32)]
    begin[0][:, -1] = np.log(counts / rows)
    if near is not None:
        biases = near[1] + near[0] @ x.centre
        begin.append(np.column_stack([near[0] @ x.basis, biases]).astype(np.float32))
    steps = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, rows, _ROWS_AT_ONCE)]
    parts = [_Rows(states[s], (index[s], np.arange(len(index[s])))) for s in steps]
    begin = [maps - maps.mean(axis=0) for maps in begin]
    with all_cores() as each:
        maps = _search(_Problem(parts, np.append(x.spread, 1.0), ridge, each), begin, rows)
    weights = maps[:, :-1] @ x.basis.T
    biases = maps[:, -1] - weights @ x.centre
    return weights, biases - biases.mean()


def _search(problem: _Problem, begin: Sequence[Single], rows: int) -> Single:
    """Newton's steps to the optimum, from the best of some maps."""
    scored = [(maps, problem.scores(maps)) for maps in begin]
    known = [(*problem.loss(*there), *there) for there in scored]
    loss, errors, maps, scores = min(known, key=lambda at: at[0])
    gain = before = np.inf
    for _ in range(_NEWTON):
        slope, rounded = problem.slope(maps, errors), problem.rounding(errors)
        wrong = np.sqrt(max(_dot(slope, rounded(slope)), 0.0) / rows)
        if wrong < _NEAR or (gain <= _ROUNDING * loss and wrong > before / 2):
            break
        share = max(min(_FIRST, _LATER * wrong), _BEYOND * _NEAR / wrong)
        step = _newton(problem, errors, slope, rounded, share)
        further, down = problem.scores(step), _dot(slope, step)
        for halvings in range(_HALVINGS):
            length = np.float32(0.5**halvings)
            there = [s + length * f for s, f in zip(scores, further, strict=True)]
            found, errors = problem.loss(maps + length * step, there)
            if found <= loss + 1e-4 * float(length) * down + _ROUNDING * loss:
                break
        gain, before = loss - found, wrong
        loss, maps, scores = found, maps + length * step, there
    return maps


def _newton(
    problem: _Problem,
    errors: Sequence[Single],
    slope: Single,
    rounded: Callable[[Single], Single],
    share: float,
) -> Single:
    """Newton's step by conjugate gradients, which leave a share of the gradient."""
    step, left = np.zeros_like(slope), -slope
    direction = rounded(left)
    begun = size = _dot(left, direction)
    for _ in range(_CONJUGATE):
        bent = problem.bend(direction, errors)
        along = np.float32(size / _dot(direction, bent))
        step += along * direction
        left -= along * bent
        next_one = rounded(left)
        before, size = size, _dot(left, next_one)
        if size <= share**2 * begun:
            break
        direction = next_one + np.float32(size / before) * direction
    return step


def _dot(a: Single, b: Single) -> float:
    return float(np.vdot(a, b))
