"""Multinomial logistic regression on sparse rows, to its optimum.

It is scikit-learn's LogisticRegression, with its penalty: the same probabilities.  That takes its
steps in the columns' own units, in which rare n-grams hardly move.  Here the units are those in
which the curvature is about 1 in every direction, and steps are Newton's, each by conjugate
gradients: they hold a few copies of the weights, whereas L-BFGS holds two for each step that it
remembers.  Products are in float32: what is lost is far below what stored halves lose.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

Array = NDArray[np.float64]

_STEP = 3e-7
"""Mean size of the last step, in the round coordinates."""
_STEPS = 50


@dataclass(frozen=True)
class SparseMap:
    """A linear map from sparse rows to label scores."""

    weights: NDArray[np.float32]
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
    label without rows has the bias -inf.  SciPy may warn of a line search at the end, when losses
    differ by less than they are exact; that is for who calls to silence, since only one thread can.
    """
    weights = np.zeros((rows.shape[1], labels), np.float32)
    biases = np.full(labels, -np.inf)
    seen, index = np.unique(label, return_inverse=True)
    biases[seen] = 0.0
    if len(seen) > 1:
        known = near is not None and np.isfinite(near.biases[seen]).all()
        begin = SparseMap(near.weights[:, seen], near.biases[seen]) if near and known else None
        weights[:, seen], biases[seen] = _optimum(rows, index, penalty, begin)
    return SparseMap(weights, biases)


def _optimum(
    rows: sp.csr_matrix, index: NDArray[np.int64], penalty: float, near: SparseMap | None
) -> tuple[NDArray[np.float32], Array]:
    number, columns = rows.shape
    transposed = rows.T.tocsr()
    shares = np.bincount(index) / number
    labels = len(shares)
    # Two mirrored maps pay half of what scikit-learn's one map pays for the same probabilities.
    ridge = (2.0 if labels == 2 else 1.0) / (penalty * number)
    spread = np.bincount(rows.indices, np.square(rows.data), minlength=columns) / number
    curvature = np.outer(spread, shares * (1 - shares)) + ridge
    scale = (1 / np.sqrt(curvature)).astype(np.float32)
    every = np.arange(number)

    def logs_at(point: Array) -> NDArray[np.float32]:
        scores = rows @ (_matrix(point, labels) * scale) + point[-labels:].astype(np.float32)
        return log_softmax(scores, axis=1)

    def slope_of(error: NDArray[np.float32], weights: NDArray[np.float32]) -> Array:
        """The slope in the round coordinates.  error: (rows, labels); weights: in the columns'."""
        found = (transposed @ error + np.float32(ridge) * weights) * scale
        return np.concatenate([found.ravel(), error.sum(axis=0)], dtype=np.float64)

    def loss(point: Array) -> tuple[float, Array]:
        weights, logs = _matrix(point, labels) * scale, logs_at(point)
        value = -float(logs[every, index].mean(dtype=np.float64))
        value += 0.5 * ridge * float(np.square(weights).sum(dtype=np.float64))
        error = np.exp(logs)
        error[every, index] -= 1
        return value, slope_of(error / number, weights)

    last: tuple[Array, NDArray[np.float32]] | None = None

    def curve(point: Array, step: Array) -> Array:
        """The product of the Hessian at a point with a step."""
        nonlocal last
        if last is None or not np.array_equal(last[0], point):
            last = point.copy(), np.exp(logs_at(point))
        chance, weights = last[1], _matrix(step, labels) * scale
        moved = rows @ weights + step[-labels:].astype(np.float32)
        moved = chance * (moved - (chance * moved).sum(axis=1, keepdims=True))
        return slope_of(moved / number, weights)

    start = np.zeros(columns * labels + labels)
    start[-labels:] = np.log(shares)
    if near is not None:
        start[:-labels] = (near.weights / scale).ravel()
        start[-labels:] = near.biases
    options = {"maxiter": _STEPS, "xtol": _STEP}
    found = minimize(loss, start, jac=True, hessp=curve, method="Newton-CG", options=options).x
    return _matrix(found, labels) * scale, found[-labels:] - found[-labels:].mean()


def _matrix(point: Array, labels: int) -> NDArray[np.float32]:
    """(columns, labels) the part of a point that belongs to the weights."""
    return point[:-labels].reshape(-1, labels).astype(np.float32)
