"""Weights of a logarithmic opinion pool, by likelihood.

    log P(c | row) = sum_e a_e log P_e(c | row) + b_c + constant,  a_e >= 0

The penalty draws the weights of probes towards each other, all weights towards nothing, and the
offsets b_c towards nothing; each counts as much as a number of rows, so it vanishes among many.

There are few unknowns, so that Newton's steps are cheap: a handful reaches the optimum, at which
L-BFGS-B arrives after a hundred passes over the rows or more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls
from scipy.special import log_softmax

from raee.cores import OnParts, all_cores

Array = NDArray[np.float64]

_ALIKE = 30.0
"""Rows that the penalty on differences between alike experts' weights counts as."""
_NOTHING = 3.0
"""Rows that the penalty on weights counts as: what helps less has the weight 0."""
_OFFSETS = 10.0
"""Rows that the penalty on offsets counts as."""

_STEPS, _HALVINGS = 100, 30
"""At most, far more than it takes."""
_LAST = 1e-4
"""Rows' log-likelihood that the last step gains, at most: what it leaves is about the square."""
_FLAT = 1e-9
"""Share of all curvature that is added to each weight's: experts that say nothing have none."""
_NUMBERS_AT_ONCE = 2**17
"""What a thread works on at a time: its arrays stay in the cache."""


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

    def further(self, step: "Weights", size: float) -> "Weights":
        """Some way along a step, which leads to no weight below 0 but by rounding."""
        experts = np.maximum(self.experts + size * step.experts, 0.0)
        return Weights(experts, self.offsets + size * step.offsets)


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
    number, _, labels = experts.shape
    begin = near or Weights(np.full(number, 1 / number), np.zeros(labels))
    with all_cores() as each:
        problem = _Problem(experts, label, alike, each)
        here = problem.at(begin)
        for _ in range(_STEPS):
            step, gain = here.step()
            if gain < _LAST:
                return here.point.further(step, 1.0)
            for halvings in range(_HALVINGS):
                size = 0.5**halvings
                there = problem.at(here.point.further(step, size))
                if there.loss <= here.loss - 1e-4 * size * gain:
                    break
            here = there
    return here.point


@dataclass(frozen=True)
class _Here:
    """The loss at some weights, and its derivatives."""

    point: Weights
    loss: float
    slope: Weights
    experts: Array
    """(experts, experts) the curvature along their weights."""
    both: Array
    """(experts, labels) along a weight and an offset."""
    alone: Array
    """(labels,); along the offsets it is diag(alone) - chance' chance."""
    chance: Array
    """(rows, labels) the pool's probabilities."""

    def step(self) -> tuple[Weights, float]:
        """Newton's step under the bounds, and by how much the loss falls if it falls as here."""
        inverse = _inverse(self.alone, self.chance)
        # The offsets follow the weights: what is left is a problem of the weights alone.
        turned = inverse(self.both.T)
        curvature = self.experts - self.both @ turned
        np.fill_diagonal(curvature, curvature.diagonal() + _FLAT * (1 + curvature.trace()))
        slope = self.slope.experts - self.slope.offsets @ turned
        root = cholesky(curvature)
        aim = root @ self.point.experts - solve_triangular(root, slope, trans="T")
        experts = nnls(root, aim)[0] - self.point.experts
        step = Weights(experts, -inverse(self.slope.offsets) - turned @ experts)
        gain = -self.slope.experts @ step.experts - self.slope.offsets @ step.offsets
        return step, float(gain)


class _Problem:
    """The loss of rows: minus their labels' log-likelihood, and the penalties."""

    def __init__(
        self,
        experts: NDArray[np.floating],
        label: NDArray[np.integer],
        alike: NDArray[np.bool_],
        each: OnParts,
    ) -> None:
        number, rows, labels = experts.shape
        self._experts, self._label, self._each = experts, label, each
        self._counts = np.bincount(label, minlength=labels)
        at_once = max(1, _NUMBERS_AT_ONCE // (number * labels))
        self._parts = [slice(start, start + at_once) for start in range(0, max(rows, 1), at_once)]
        # Times the weights twice: the squares of alike weights' differences from their mean.
        self._apart = _ALIKE * (np.diag(alike) - np.outer(alike, alike) / max(alike.sum(), 1))

    def at(self, point: Weights) -> _Here:
        """The loss at some weights."""
        chance = np.empty(self._experts.shape[1:])

        def work(part: slice) -> tuple[float, Array, Array, Array]:
            experts = self._experts[:, part].astype(np.float64, copy=False)
            logs, label = point.logs(experts), self._label[part]
            every = np.arange(len(label))
            here = chance[part] = np.exp(logs)
            weighted = experts * here
            mean = weighted.sum(axis=2)
            own = experts[:, every, label].sum(axis=1)
            both = weighted.sum(axis=1) - mean @ here
            flat = experts.reshape(len(experts), -1)
            curvature = weighted.reshape(flat.shape) @ flat.T - mean @ mean.T
            return -logs[every, label].sum(), mean.sum(axis=1) - own, curvature, both

        found = zip(*self._each(work, self._parts), strict=True)
        loss, slope, curvature, both = (np.sum(parts, axis=0) for parts in found)
        apart, total = self._apart @ point.experts, chance.sum(axis=0)
        loss += _NOTHING * point.experts.sum() + 0.5 * apart @ point.experts
        loss += 0.5 * _OFFSETS * point.offsets @ point.offsets
        lean = total - self._counts + _OFFSETS * point.offsets
        return _Here(
            point,
            float(loss),
            Weights(slope + _NOTHING + apart, lean),
            curvature + self._apart,
            both,
            total + _OFFSETS,
            chance,
        )


def _inverse(alone: Array, chance: Array) -> Callable[[Array], Array]:
    """The inverse of diag(alone) - chance' chance, by the smaller of two matrices.

    alone: (labels,); chance: (rows, labels).
    """
    rows, labels = chance.shape
    if labels <= rows:
        factor = cho_factor(np.diag(alone) - chance.T @ chance)
        return lambda right: cho_solve(factor, right)
    less = chance / alone
    factor = cho_factor(np.eye(rows) - less @ chance.T)
    return lambda right: (right.T / alone).T + less.T @ cho_solve(factor, less @ right)
