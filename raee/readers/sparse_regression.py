"""Multinomial logistic regression on sparse rows, to its optimum.

It is scikit-learn's LogisticRegression, with its penalty: the same probabilities.  What that takes
hundreds of steps for, since rare n-grams hardly move in the columns' own units, takes a dozen steps
of Newton's here, each by conjugate gradients with the curvature of each weight alone as the
preconditioner.  SciPy's Newton-CG is the same without a preconditioner, in float64, and takes ten
times as long.  All is in float32: what is lost is far below what stored halves lose.

Columns that only one row has act together, as one number a label: of all weights that give it, the
least are in proportion to the row's values.  So they are one column until the optimum is found.
Most n-grams are like that.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import log_softmax

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]

_DECREMENT = 1e-3
"""Newton's decrement at the end: about the root of twice what the mean loss could still fall by."""
_STEPS = 50
_PRODUCTS = 50
"""Products with the curvature for a step, at most."""
_EXACT = 0.25
"""Share of the slope that a step may leave over."""
_ROUNDING = 1e-7
"""Difference of mean losses below which they are the same."""


@dataclass(frozen=True)
class SparseMap:
    """A linear map from sparse rows to label scores."""

    weights: Array32
    """(columns, labels)."""
    biases: Array
    """(labels,); -inf for a label that the fit has not seen."""

    def scores(self, rows: sp.csr_matrix) -> Array:
        """(rows, labels) scores."""
        return np.asarray(rows @ self.weights, np.float64) + self.biases


def regress_sparse(
    rows: sp.csr_matrix,
    label: NDArray[np.integer],
    labels: int,
    penalty: float,
    near: SparseMap | None = None,
) -> SparseMap:
    """The map of rows (rows, columns) under which their labels are likeliest.

    label: (rows,).  penalty: the inverse strength of the penalty on the weights (scikit-learn's C).
    near: a map of much the same rows: the search begins there, and ends at the same optimum.  A
    label without rows has the bias -inf.
    """
    weights = np.zeros((rows.shape[1], labels), np.float32)
    biases = np.full(labels, -np.inf)
    seen, index = np.unique(label, return_inverse=True)
    biases[seen] = 0.0
    if len(seen) > 1:
        basis = _joined(rows)
        problem = _Problem(rows @ basis, index, penalty)
        begin = _stacked(np.zeros((basis.shape[1], len(seen))), np.log(problem.shares))
        if near is not None and np.isfinite(near.biases[seen]).all():
            begin = _stacked(basis.T @ near.weights[:, seen], near.biases[seen])
        found = _optimum(problem, begin)
        weights[:, seen], biases[seen] = basis @ found[:-1], found[-1] - found[-1].mean()
    return SparseMap(weights, biases)


def _joined(rows: sp.csr_matrix) -> sp.csr_matrix:
    """(columns, fewer) orthonormal: columns that only one row has, the same one, are joined.

    Rows times this have the same optimum, which this times its weights is.  A column that no row
    has is left out: its weight is 0.
    """
    number, columns = rows.shape
    row = np.repeat(np.arange(number), np.diff(rows.indptr))
    there = np.bincount(rows.indices, rows.data != 0, minlength=columns)
    alone = (there[rows.indices] == 1) & (rows.data != 0)
    length = np.sqrt(np.bincount(row[alone], np.square(rows.data[alone]), minlength=number))
    shared, joined = np.flatnonzero(there > 1), np.flatnonzero(length)
    place = np.searchsorted(joined, row[alone]) + len(shared)
    values = np.concatenate([np.ones(len(shared)), rows.data[alone] / length[row[alone]]])
    at = np.append(shared, rows.indices[alone]), np.append(np.arange(len(shared)), place)
    shape = columns, len(shared) + len(joined)
    return sp.csr_matrix((values.astype(np.float32), at), shape=shape)


def _stacked(weights: NDArray[np.floating], biases: NDArray[np.floating]) -> Array32:
    """(columns + 1, labels) a point: weights, and biases below them."""
    return np.concatenate([weights, biases[None]]).astype(np.float32)


class _Problem:
    """The mean loss of rows, with the penalty on the weights; a point is (columns + 1, labels)."""

    def __init__(self, rows: sp.csr_matrix, index: NDArray[np.int64], penalty: float) -> None:
        """index: (rows,) the label of each row; each label has one."""
        ones = sp.csr_matrix(np.ones((rows.shape[0], 1), np.float32))
        self._rows, self._with_bias = rows, sp.hstack([rows, ones]).T.tocsr()
        self._index, self._every, number = index, np.arange(len(index)), len(index)
        self.shares = np.bincount(index) / number
        # Two mirrored maps pay half of what scikit-learn's one map pays for the same probabilities.
        ridge = (2.0 if len(self.shares) == 2 else 1.0) / (penalty * number)
        self._ridge = np.float32(ridge)
        spread = np.bincount(rows.indices, np.square(rows.data), minlength=rows.shape[1]) / number
        alone = np.outer(np.append(spread, 1.0), self.shares * (1 - self.shares))
        alone[:-1] += ridge
        self.curvature = alone.astype(np.float32)
        """(columns + 1, labels) of each weight alone, if labels have their shares everywhere."""

    def at(self, point: Array32) -> tuple[float, Array32, Array32]:
        """The loss at a point, its slope there, and (rows, labels) the rows' probabilities."""
        logs = log_softmax(self._rows @ point[:-1] + point[-1], axis=1)
        value = -float(logs[self._every, self._index].mean(dtype=np.float64))
        value += 0.5 * float(self._ridge) * float(np.square(point[:-1]).sum(dtype=np.float64))
        chance = np.exp(logs)
        error = chance.copy()
        error[self._every, self._index] -= 1
        return value, self._slope(error, point), chance

    def curve(self, chance: Array32, step: Array32) -> Array32:
        """The product of the Hessian with a step, where rows have some probabilities."""
        moved = self._rows @ step[:-1] + step[-1]
        moved -= (chance * moved).sum(axis=1, keepdims=True)
        moved *= chance
        return self._slope(moved, step)

    def _slope(self, error: Array32, point: Array32) -> Array32:
        """The slope by that of the rows' scores, which is overwritten."""
        error /= len(error)
        found: Array32 = self._with_bias @ error
        found[:-1] += self._ridge * point[:-1]
        return found


def _optimum(problem: _Problem, point: Array32) -> Array32:
    """Newton's steps from a point to the optimum."""
    value, slope, chance = problem.at(point)
    for _ in range(_STEPS):
        if np.sqrt(_inner(slope, slope / problem.curvature)) < _DECREMENT:
            break
        step, size = _newton_step(problem, slope, chance), np.float32(1)
        while True:
            there = problem.at(point + size * step)
            if there[0] <= value + _ROUNDING or size < 1e-3:
                break
            size /= 2
        point = point + size * step
        value, slope, chance = there
    return point


def _newton_step(problem: _Problem, slope: Array32, chance: Array32) -> Array32:
    """Newton's step by preconditioned conjugate gradients (Nocedal and Wright, 2006, 7.1).

    The arrays are larger than the caches, and arithmetic on them is most of the time: it is done in
    few arrays, again and again.
    """
    step, left = np.zeros_like(slope), -slope
    towards = left / problem.curvature
    size = first = _inner(left, towards)
    scratch = np.empty_like(slope)
    for _ in range(_PRODUCTS):
        curved = problem.curve(chance, towards)
        length = np.float32(size / _inner(towards, curved))
        step += np.multiply(towards, length, out=scratch)
        left -= np.multiply(curved, length, out=curved)
        round_left = np.divide(left, problem.curvature, out=scratch)
        before, size = size, _inner(left, round_left)
        if size < _EXACT**2 * first:
            break
        towards *= np.float32(size / before)
        towards += round_left
    return step


def _inner(one: Array32, other: Array32) -> float:
    return float(np.vdot(one, other))
