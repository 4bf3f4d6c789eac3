"""Multinomial logistic regression with a ridge penalty, to its optimum.

The problem is scikit-learn's `LogisticRegression`: of two labels one map, of more one map each.
Its solvers stop where the gradient is small, on states that hardly vary in most directions a long
way from the optimum: two fits of states that differ by 1e-7 then differ by 0.05 in their
probabilities, and a rebuild would not give what a build from nothing gives.  In coordinates in
which the problem is round, the same quasi-Newton steps reach the optimum.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from raee.sums import Array

_GRADIENT = 1e-6
"""Largest entry of the gradient at the end, in the round coordinates."""
_STEPS = 1_000
_MEMORY = 20
"""Steps from which the curvature is estimated."""


def regress(
    states: NDArray[np.float32], label: NDArray[np.integer], labels: int, penalty: float
) -> tuple[Array, Array]:
    """Weights (labels, width) and biases (labels,) under which the labels are likeliest.

    states: (rows, width).  penalty: the inverse strength of the penalty on the weights
    (scikit-learn's C).  A label without rows has the bias -inf; of a single one all is 0.
    """
    weights, biases = np.zeros((labels, states.shape[1])), np.full(labels, -np.inf)
    seen, place = np.unique(label, return_inverse=True)
    biases[seen] = 0.0
    if len(seen) > 1:
        weights[seen], biases[seen] = _optimum(states.astype(np.float64), place, penalty)
    return weights, biases


def _optimum(x: Array, place: NDArray[np.int64], penalty: float) -> tuple[Array, Array]:
    rows, width = x.shape
    is_label = np.eye(place.max() + 1)[place]
    shares = is_label.mean(axis=0)
    labels = len(shares)
    # Two mirrored maps pay half of what scikit-learn's one map pays for the same probabilities.
    ridge = (2.0 if labels == 2 else 1.0) / (penalty * rows)
    centre = x.mean(axis=0)
    spread, basis = np.linalg.eigh((x - centre).T @ (x - centre) / rows)
    curvature = np.outer(shares * (1 - shares), np.maximum(spread, 0.0)) + ridge
    scale = 1 / np.sqrt(curvature)
    z = (x - centre) @ basis

    def loss(point: Array) -> tuple[float, Array]:
        maps = point[:-labels].reshape(labels, width) * scale
        logs = log_softmax(z @ maps.T + point[-labels:], axis=1)
        error = (np.exp(logs) - is_label) / rows
        value = -(logs * is_label).sum() / rows + 0.5 * ridge * np.square(maps).sum()
        slope = (error.T @ z + ridge * maps) * scale
        return float(value), np.concatenate([slope.ravel(), error.sum(axis=0)])

    start = np.concatenate([np.zeros(labels * width), np.log(shares)])
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS, "gtol": _GRADIENT, "ftol": 0.0, "maxcor": _MEMORY},
    ).x
    weights = (found[:-labels].reshape(labels, width) * scale) @ basis.T
    return weights, found[-labels:] - weights @ centre
