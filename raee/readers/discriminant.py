"""Linear discriminant analysis with shrinkage, in closed form, and exactly with one text left out.

With the rows' label means m_c and their scatter within labels S (docs/method.md),

    K = n (S + shrinkage tr(S) / width I)^-1
    score_c(x) = x' K m_c - m_c' K m_c / 2 + log(n_c / n)

n makes of the scatter a covariance, so that scores are log-probabilities up to a constant. If
the states do not vary (the embedding of a template's mask token), K is 0 and the labels' shares
decide.  Everything is worked out around the mean of all rows, which changes a row's scores by the
same constant, and keeps the digits in which labels differ.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raee.cores import all_cores
from raee.readers.sums import Array, Sums
from raee.texts import Copies

SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Tried at every depth; the last ones nearly compare distances to the label means alone, which is
best if rows are few."""

_CONSTANT = 1e-10
"""Variance of unit vectors below which they count as one vector."""

_ROWS_AT_ONCE = 1_024
"""Rows that a thread works on at a time: bounds what their float64 arrays take."""


@dataclass(frozen=True)
class Scatter:
    """The sums at one depth, in the basis in which the scatter within labels is diagonal."""

    rows: Array
    """(labels,) rows of each label."""
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
    scatter: Scatter, shrinkage: float, states: NDArray[np.float32], copies: Copies
) -> Array:
    """Each row's scores (rows, labels) by the fit without the row's text.

    states: (rows, width), some of the rows in the sums; copies: for each, the rows with its text.
    A label that has no rows left without the text has the score -inf; if no row is left at all,
    every label has 0.  The others keep the shares of all rows: without a row its own label would be
    the rarer one, and states that say nothing would be scored below chance.

    With k_j rows of label j, of n_j, and u_j = x - m_j, leaving a text out changes the scatter by
    the sum of -k_j n_j / (n_j - k_j) u_j u_j', the shrinkage with its trace, and the means m_j by
    -k_j / (n_j - k_j) u_j; the inverse follows by Woodbury's formula.
    """
    return left_out_scores_at(scatter, shrinkage, in_basis(scatter, states), copies)


def in_basis(scatter: Scatter, states: NDArray[np.float32]) -> Array:
    """(rows, width) states (rows, width) less the centre, in the basis."""
    return (states.astype(np.float64) - scatter.centre) @ scatter.basis


def left_out_scores_at(scatter: Scatter, shrinkage: float, x: Array, copies: Copies) -> Array:
    """`left_out_scores` of states that are in the basis, x (rows, width), for many shrinkages."""
    under = (copies.counts > 0).sum(axis=1)  # labels under which a row's text occurs
    scores = np.zeros((len(x), len(scatter.rows)))
    parts = [
        rows[start : start + size]
        for number in np.unique(under)
        for rows, size in [(np.flatnonzero(under == number), max(1, _ROWS_AT_ONCE // number))]
        for start in range(0, len(rows), size)
    ]

    def work(rows: NDArray[np.int64]) -> None:
        some = copies[rows]
        most = int(under[rows[0]])
        only = Copies(some.labels[:, :most], some.counts[:, :most])
        scores[rows] = _left_out(scatter, shrinkage, x[rows], only)

    with all_cores() as each:
        each(work, parts)
    return scores


def _left_out(scatter: Scatter, shrinkage: float, x: Array, copies: Copies) -> Array:
    """`left_out_scores` of rows whose texts occur under equally many labels, without padding."""
    means, width = scatter.means, len(scatter.values)
    row, own, count = np.arange(len(x))[:, None], copies.labels, copies.counts
    u = x[:, None] - means[own]  # (rows, labels of the text, width)
    stay = scatter.rows[own] - count  # rows of the same labels that stay
    n = scatter.rows.sum() - count.sum(axis=1)
    # A label that goes as a whole adds nothing to the scatter: its rows are all alike.
    factor = np.where(stay > 0, count * (stay + count) / np.maximum(stay, 1), 0.0)
    step = count / np.maximum(stay, 1)
    trace = scatter.values.sum() - (factor * np.square(u).sum(axis=2)).sum(axis=1)
    varies = (n > 0) & (trace > _CONSTANT * n)  # without rows, only rounding is left
    ridge = np.where(varies, shrinkage * trace / width, 1.0)
    diagonal = np.where(varies[:, None], n[:, None] / (scatter.values + ridge[:, None]), 0.0)
    # The terms of v' K w: the part of the diagonal, and what the others add.
    weighted = u * diagonal[:, None]
    x_means = (x * diagonal) @ means.T
    means_means = diagonal @ np.square(means).T
    u_means = (weighted.reshape(-1, width) @ means.T).reshape(*own.shape, len(means))
    x_u = np.einsum("rw,rjw->rj", x, weighted)
    u_u = np.einsum("riw,rjw->rij", u, weighted)
    # The text's labels have other means without it: m_j - step_j u_j.
    columns = np.broadcast_to(own[:, None], u_u.shape)
    u_own = np.take_along_axis(u_means, columns, axis=2)
    square, cross = (np.einsum("rjj->rj", product) for product in (u_u, u_own))
    means_means[row, own] += step * (step * square - 2 * cross)
    x_means[row, own] -= step * x_u
    np.put_along_axis(u_means, columns, u_own - step[:, None] * u_u, axis=2)
    inner = np.where(varies, n, 1.0)[:, None, None] * np.eye(own.shape[1]) - np.where(
        varies[:, None, None], u_u * factor[:, None], 0.0
    )
    gain = np.where(varies[:, None, None], factor[:, :, None] * np.linalg.inv(inner), 0.0)
    gained = gain @ u_means
    x_means += np.einsum("rj,rjc->rc", x_u, gained)
    means_means += np.einsum("rjc,rjc->rc", u_means, gained)
    scores = x_means - 0.5 * means_means + _log(scatter.rows / scatter.rows.sum())
    scores[row, own] = np.where(stay > 0, scores[row, own], -np.inf)
    scores[n == 0] = 0.0
    return scores


def _log(shares: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(shares)
