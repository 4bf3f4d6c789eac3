"""Multinomial logistic regression with a ridge penalty, to its optimum.

The problem is scikit-learn's `LogisticRegression`: one map for two labels, one a label for more.
Its solvers stop when the gradient is small.  On states that hardly vary in most directions that is
a long way from the optimum: two fits of states that differ by 1e-7 then differ by 0.05 in their
probabilities, and a rebuild would not give what a build from nothing gives.  The same quasi-Newton
steps reach the optimum in coordinates in which the problem is round.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from raee.readers.sums import Array

_GRADIENT = 1e-6
"""Largest entry of the gradient at the end, in the round coordinates."""
_STEPS = 1_000
_MEMORY = 20
"""Steps from which the curvature is estimated."""

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


def _optimum(x: Turned, index: NDArray[np.int64], penalty: float, near: Map | None) -> Map:
    z = x.values
    rows, width = z.shape
    is_label = np.eye(index.max() + 1)[index]
    shares = is_label.mean(axis=0)
    labels = len(shares)
    # Two mirrored maps pay half of what scikit-learn's one map pays for the same probabilities.
    ridge = (2.0 if labels == 2 else 1.0) / (penalty * rows)
    curvature = np.outer(shares * (1 - shares), x.spread) + ridge
    scale = 1 / np.sqrt(curvature)

    def loss(point: Array) -> tuple[float, Array]:
        maps = point[:-labels].reshape(labels, width) * scale
        logs = log_softmax(z @ maps.T + point[-labels:], axis=1)
        error = (np.exp(logs) - is_label) / rows
        value = -(logs * is_label).sum() / rows + 0.5 * ridge * np.square(maps).sum()
        slope = (error.T @ z + ridge * maps) * scale
        return float(value), np.concatenate([slope.ravel(), error.sum(axis=0)])

    maps, offsets = np.zeros((labels, width)), np.log(shares)
    if near is not None:
        maps, offsets = (near[0] @ x.basis) / scale, near[1] + near[0] @ x.centre
    found = minimize(
        loss,
        np.concatenate([maps.ravel(), offsets]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS, "gtol": _GRADIENT, "ftol": 0.0, "maxcor": _MEMORY},
    ).x
    weights = (found[:-labels].reshape(labels, width) * scale) @ x.basis.T
    return weights, found[-labels:] - weights @ x.centre
