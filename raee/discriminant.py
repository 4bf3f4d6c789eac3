"""Linear discriminant analysis with shrinkage, in closed form, and exactly with one row left out.

With the rows' label means m_c and their scatter within labels S (DESIGN.md section 3),

    K = n (S + shrinkage tr(S) / width I)^-1
    score_c(x) = x' K m_c - m_c' K m_c / 2 + log(n_c / n)

n makes of the scatter a covariance, so that scores are log-probabilities up to a constant. Where
the states do not vary (the embedding of a template's mask token), K is 0 and the labels' shares
decide.  Everything is worked out around the mean of all rows, which changes a row's scores by the
same constant, and keeps the digits in which labels differ.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raee.sums import Array, Sums

SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Tried at every depth."""

_CONSTANT = 1e-10
"""Variance of unit vectors below which they count as one vector."""

_ROWS_AT_ONCE = 1_024
_STEPS_AT_ONCE = 8
"""Rows worked on in one step, and steps at the same time: bound what their float64 arrays take."""


@dataclass(frozen=True)
class Scatter:
    """The sums at one depth, in the basis in which the scatter within labels is diagonal."""

    rows: Array
    """(labels,)."""
    values: Array
    """(width,) the scatter's eigenvalues."""
    basis: Array
    """(width, width) its eigenvectors, as columns."""
    centre: Array
    """(width,) the mean of all rows."""
    means: Array
    """(labels, width) label means less the centre, in the basis; 0 for a label without rows."""


def scatter_at(sums: Sums, depth: int) -> Scatter:
    """The scatter within labels at a depth."""
    rows, first = sums.rows, sums.first[depth]
    means = first / np.maximum(rows, 1)[:, None]
    centre = first.sum(axis=0) / rows.sum()
    within = sums.second[depth] - (first.T * (1 / np.maximum(rows, 1))) @ first
    values, basis = np.linalg.eigh((within + within.T) / 2)
    centred = np.where(rows[:, None] > 0, (means - centre) @ basis, 0.0)
    return Scatter(rows, np.maximum(values, 0.0), basis, centre, centred)


def linear_map(scatter: Scatter, shrinkage: float) -> tuple[Array, Array]:
    """Weights (labels, width) and biases (labels,): score(x) = weights x + biases.

    A label without rows has the bias -inf.
    """
    n = scatter.rows.sum()
    trace = scatter.values.sum()
    if trace / n < _CONSTANT:
        diagonal = np.zeros_like(scatter.values)
    else:
        diagonal = n / (scatter.values + shrinkage * trace / len(scatter.values))
    weighted = scatter.means * diagonal
    weights = weighted @ scatter.basis.T
    biases = -0.5 * (weighted * scatter.means).sum(axis=1) + _log(scatter.rows / n)
    return weights, biases - weights @ scatter.centre


def left_out_scores(
    scatter: Scatter, shrinkage: float, states: NDArray[np.float32], label: NDArray[np.uint16]
) -> Array:
    """Each row's scores (rows, labels) by the fit without that row.

    A label that it leaves without rows has -inf; where it leaves no row at all, every label has 0.
    states: (rows, width), rows that the sums are of; label: (rows,).  Leaving a row out changes
    the scatter by a rank-one term, the shrinkage with its trace, and one mean; the inverse follows
    by Sherman and Morrison's formula.
    """
    parts = [slice(s, s + _ROWS_AT_ONCE) for s in range(0, max(len(states), 1), _ROWS_AT_ONCE)]
    # Nearly all of it is arithmetic on whole arrays, during which Python's lock is free.
    with ThreadPoolExecutor(min(_STEPS_AT_ONCE, os.cpu_count() or 1)) as threads:
        found = threads.map(
            lambda some: _left_out(scatter, shrinkage, states[some], label[some]), parts
        )
        return np.concatenate(list(found))


def _left_out(
    scatter: Scatter, shrinkage: float, states: NDArray[np.float32], label: NDArray[np.uint16]
) -> Array:
    means, width = scatter.means, len(scatter.values)
    place = np.arange(len(states))
    x = (states.astype(np.float64) - scatter.centre) @ scatter.basis
    u = x - means[label]
    others = scatter.rows[label] - 1  # rows of the same label that stay
    n = scatter.rows.sum() - 1
    # A label's only row adds nothing to the scatter, so leaving it out takes nothing away.
    factor = np.where(others > 0, (others + 1) / np.maximum(others, 1), 0.0)
    trace = np.maximum(scatter.values.sum() - factor * np.square(u).sum(axis=1), 0.0)
    varies = trace > _CONSTANT * n
    ridge = np.where(varies, shrinkage * trace / width, 1.0)
    diagonal = np.where(varies[:, None], n / (scatter.values + ridge[:, None]), 0.0)
    # Of v' K w: the part of the diagonal, and what the rank-one term adds.
    x_means = (x * diagonal) @ means.T
    means_means = diagonal @ np.square(means).T
    u_means = (u * diagonal) @ means.T
    x_u = (x * u * diagonal).sum(axis=1)
    u_u = (u * u * diagonal).sum(axis=1)
    # The row's own label has another mean without it: m - u / others.
    step = 1 / np.maximum(others, 1)
    own_x, own_u = x_means[place, label], u_means[place, label]
    means_means[place, label] += step * (step * u_u - 2 * own_u)
    x_means[place, label] = own_x - step * x_u
    u_means[place, label] = own_u - step * u_u
    gain = np.where(varies, factor / np.where(varies, n - factor * u_u, 1.0), 0.0)[:, None]
    x_means += gain * x_u[:, None] * u_means
    means_means += gain * np.square(u_means)
    left = np.tile(scatter.rows, (len(states), 1))
    left[place, label] = others
    shares = left / n if n else np.ones_like(left)
    return x_means - 0.5 * means_means + _log(shares)


def _log(shares: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(shares)
