"""Weights of a logarithmic opinion pool, by likelihood.

    log P(c | row) = sum_e a_e log P_e(c | row) + b_c + constant,  a_e >= 0

The penalty draws the weights of probes towards each other, all weights towards nothing, and the
offsets b_c towards nothing; each counts as much as a number of rows, so it vanishes among many.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

Array = NDArray[np.float64]

_ALIKE = 30.0
"""Rows that the penalty on differences between alike experts' weights counts as."""
_NOTHING = 3.0
"""Rows that the penalty on weights counts as: what helps less has the weight 0."""
_OFFSETS = 10.0
"""Rows that the penalty on offsets counts as."""

_STEPS = 300


@dataclass(frozen=True)
class Weights:
    """The weights of some experts."""

    experts: Array
    """(experts,) not negative."""
    offsets: Array
    """(labels,)."""

    def logs(self, experts: NDArray[np.floating]) -> Array:
        """(rows, labels) the pool's log-probabilities.  experts: (experts, rows, labels) logs."""
        total = np.tensordot(self.experts, experts, 1) + self.offsets
        found: Array = log_softmax(total, axis=1)
        return found


def fit_weights(
    experts: NDArray[np.floating],
    label: NDArray[np.integer],
    alike: NDArray[np.bool_],
    near: Weights | None = None,
) -> Weights:
    """The weights under which the labels are likeliest.

    experts: (experts, rows, labels) log-probabilities.  label: (rows,).  alike: (experts,) those
    whose weights are drawn towards each other.  near: where the search begins; it ends at the one
    optimum that there is.
    """
    number, rows, labels = experts.shape
    flat, every = experts.reshape(number, -1), np.arange(rows)
    own = experts[:, every, label].sum(axis=1, dtype=np.float64)
    counts = np.bincount(label, minlength=labels)

    def loss(point: Array) -> tuple[float, Array]:
        weights, offsets = point[:number], point[number:]
        scores = (weights.astype(flat.dtype) @ flat).reshape(rows, labels) + offsets
        logs = log_softmax(scores, axis=1)
        apart = np.where(alike, weights - weights[alike].sum() / max(alike.sum(), 1), 0.0)
        value = -logs[every, label].sum() + _NOTHING * weights.sum()
        value += 0.5 * (_ALIKE * apart @ apart + _OFFSETS * offsets @ offsets)
        chance = np.exp(logs)
        slope = flat @ chance.ravel().astype(flat.dtype) - own + _NOTHING + _ALIKE * apart
        lean = chance.sum(axis=0) - counts + _OFFSETS * offsets
        return float(value), np.concatenate([slope, lean])

    start = np.concatenate([np.full(number, 1 / number), np.zeros(labels)])
    if near is not None:
        start = np.concatenate([near.experts, near.offsets])
    bounds = [(0, None)] * number + [(None, None)] * labels
    options = {"maxiter": _STEPS}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return Weights(found[:number], found[number:])
