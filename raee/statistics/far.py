"""How unlike a database's rows a fresh row is: a p-value from three cheap distances at one depth.

With the label means m_c, the scatter within labels S and that around the mean m of all rows T, over
n rows (raee.readers.discriminant), and one ridge r,

    label     min_c n (x - m_c)' (S + r I)^-1 (x - m_c)     Mahalanobis, arXiv 1807.03888
    relative  label - n (x - m)' (T + r I)^-1 (x - m)       relative Mahalanobis, arXiv 2106.09022
    nearest   distance to the nearest key

Each becomes a p-value against what the database's own rows have without their text.  The three are
averaged harmonically (Wilson, PNAS 116, 2019) with weights 1, 1 and, for `relative`, which is noise
if labels do not show in states, kappa squared: the nearest label mean without the text is right
for a share kappa of the rows that the commonest label leaves wrong.  The average is no p-value: it
is ranked among the database's own averages in turn.

P-values are conformal (Vovk et al., Algorithmic Learning in a Random World, 2005): (1 + own values
as large) / (n + 1), up to the k = sqrt(n) largest.  Beyond, ranks say too little, and excesses over
the next largest are taken to be exponential: with e the mean of the k own ones, a fresh one exceeds
z with the chance (k + 1) / (n + 1) (1 + z / (k e))^-k, exactly, as the ratio is F distributed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from raee.readers.discriminant import Scatter
from raee.texts import Copies

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

SHRINKAGE = 0.1
"""Ratio of the ridge to the mean eigenvalue of S.  At .01 corpora come out alike; at 1 fewer long
texts are far."""

_CONSTANT = 1e-10
"""Variance of unit vectors below which they count as one vector."""

_ROWS_AT_ONCE = 1_024
"""Rows worked on in one step."""


@dataclass(frozen=True)
class Space:
    """Coordinates y = (x - centre) map in which both distances are sums of squares."""

    centre: Floats
    """(width,) the mean of all rows."""
    map: Floats
    """(width, width); y has covariance I within labels, and the diagonal `total` over all rows."""
    means: Floats
    """(labels, width) of y; 0 for a label without rows."""
    total: Floats
    """(width,) the variances of y over all rows, at least 1."""
    rows: Floats
    """(labels,) rows of each label."""

    def at(self, states: Floats) -> Array:
        """The rows' y (rows, width).  states: (rows, width)."""
        return ((states - self.centre) @ self.map).astype(np.float64)


@dataclass(frozen=True)
class Far:
    """All that it takes to say how unlike the database's rows a fresh row is."""

    space: Space
    weight: float
    """Weight of the relative distance in the average, from 0 to 1."""
    values: Floats
    """(3, rows) the own rows' nearest, label and relative values without their text; NaN if a value
    is not known."""

    @cached_property
    def references(self) -> Floats:
        """(3, rows) the own values, each sorted; NaN last."""
        return np.sort(self.values, axis=1)

    @cached_property
    def scores(self) -> Floats:
        """(rows,) the averages of the own values, sorted."""
        return np.sort(_average(self.values, self.references, self.weight, own=True))

    @property
    def own_p_values(self) -> Array:
        """(rows,) p-values of the own rows, each without its text."""
        return np.exp(-_surprise(self.scores, self.scores, own=True))

    def limit(self, level: float) -> float:
        """The score from which on a row is far at a level."""

        def apart(score: float) -> float:
            surprise = _surprise(np.array([score], np.float32), self.scores, own=False)
            return float(surprise[0]) + np.log(level)

        low, high = float(self.scores.min(initial=0.0)), 1e4
        return float(brentq(apart, low, high)) if apart(low) < 0 < apart(high) else np.inf

    def among(self, nearest: Floats) -> "Far":
        """The same for a database of other rows.

        nearest: (rows,) of the same own rows the squared L2 distance to their nearest key there.
        """
        values = self.values.copy()
        values[0] = _known(np.sqrt(np.maximum(nearest, 0.0)))
        return replace(self, values=values)

    def tensors(self) -> dict[str, NDArray]:
        """Named arrays, as they are stored."""
        space = {f"space_{f.name}": getattr(self.space, f.name) for f in fields(Space)}
        return {**space, "values": self.values, "weight": np.array([self.weight])}


def far_from(tensors: Mapping[str, NDArray]) -> Far:
    """A `Far` from its stored arrays."""
    space = Space(*(tensors[f"space_{f.name}"] for f in fields(Space)))
    return Far(space, float(tensors["weight"][0]), tensors["values"])


def space_of(scatter: Scatter) -> Space:
    """The coordinates in which S + ridge is n I and T + ridge diagonal."""
    n, width = scatter.rows.sum(), len(scatter.values)
    ridge = max(SHRINKAGE * scatter.values.sum() / width, _CONSTANT * n)
    scale = np.sqrt(n / (scatter.values + ridge))
    between = np.sqrt(scatter.rows / n)[:, None] * scatter.means
    if (scatter.values.sum() + n * np.square(between).sum()) / n < _CONSTANT:
        scale = np.zeros(width)  # the states do not vary
    _, spread, turn = np.linalg.svd(between * scale)
    turn = scale[:, None] * turn.T
    total = np.ones(width)
    total[: len(spread)] += np.square(spread)
    found = scatter.centre, scatter.basis @ turn, scatter.means @ turn, total, scatter.rows
    return Space(*(array.astype(np.float32) for array in found))


def distances(space: Space, states: Floats) -> tuple[Array, Array]:
    """Fresh rows' squared distances: to the label means, and to the mean of all rows.

    states: (rows, width).  Returns (rows, labels), inf for a label without rows, and (rows,).
    """
    y = space.at(states)
    labels = _to_means(y, space.means.astype(np.float64))
    return np.where(space.rows > 0, labels, np.inf), np.square(y) @ (1.0 / space.total)


def left_out(space: Space, states: Floats, copies: Copies) -> tuple[Array, Array]:
    """`distances` of the database's rows, each by the sums without its text; the ridge stays.

    states: (rows, width), some of the rows in the sums; copies: for each, the rows with its text.
    With k_j of the n_j rows of label j, leaving a text out changes S by -k_j n_j / (n_j - k_j) u u'
    with u = x - m_j, and x - m_j to n_j / (n_j - k_j) u; T and m go likewise.  The inverses follow
    by Woodbury's formula.
    """
    size = max(1, _ROWS_AT_ONCE // copies.labels.shape[1])
    parts = [slice(start, start + size) for start in range(0, max(len(states), 1), size)]
    found = (_left_out(space, space.at(states[i]), copies[i]) for i in parts)
    labels, total = zip(*found, strict=True)
    return np.concatenate(labels), np.concatenate(total)


def _left_out(space: Space, y: Array, copies: Copies) -> tuple[Array, Array]:
    own, count = copies.labels, copies.counts
    rows, means = space.rows.astype(np.float64), space.means.astype(np.float64)
    n, left = rows.sum(), np.tile(rows, (len(y), 1))
    np.subtract.at(left, (np.arange(len(y))[:, None], own), count)
    stay, gone = np.take_along_axis(left, own, axis=1), count.sum(axis=1)
    # A label that goes as a whole adds nothing to the scatter: its rows are all alike.
    factor = np.where(stay > 0, count * rows[own] / np.maximum(stay, 1), 0.0) / n
    u = y[:, None] - means[own]  # (rows, labels of the text, width)
    u_u = u @ u.transpose(0, 2, 1)
    u_v = np.einsum("rjw,rw->rj", u, y)[:, :, None] - u @ means.T
    gain = factor[:, :, None] * np.linalg.inv(np.eye(own.shape[1]) - u_u * factor[:, None])
    labels = _to_means(y, means) + (u_v * (gain @ u_v)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        labels *= np.square(rows / left) * ((n - gone) / n)[:, None]
        total = np.square(y) @ (1.0 / space.total)
        total *= n / (n - gone) / (1.0 - gone / (n - gone) * total)
    return np.where(left > 0, labels, np.inf), total


def _to_means(y: Array, means: Array) -> Array:
    squared = np.square(y).sum(axis=1)[:, None] - 2.0 * y @ means.T + np.square(means).sum(axis=1)
    return np.maximum(squared, 0.0)


def far_of(
    scatter: Scatter, states: Floats, label: NDArray[np.integer], copies: Copies, nearest: Floats
) -> Far:
    """A `Far` from a database's rows: the scatter's, or some that were drawn from them.

    states: (rows, width); label: (rows,); copies: for each row, the scatter's rows with its text;
    nearest: (rows,) squared L2 distance to the nearest key of another text, not finite if unknown.
    """
    space = space_of(scatter)
    labels, total = left_out(space, states, copies)
    values = _values(labels, total, nearest)
    commonest = scatter.rows.max() / scatter.rows.sum()
    right = float((labels.argmin(axis=1) == label).mean()) if len(label) else 0.0
    weight = max(0.0, (right - commonest) / (1.0 - commonest)) ** 2 if commonest < 1.0 else 0.0
    return Far(space, weight, values)


def scores(far: Far, states: Floats, nearest: Floats) -> Floats:
    """How unlike the database's rows fresh rows are, (rows,); larger is farther.

    states: (rows, width); nearest: (rows,) squared L2 distance to the nearest key, or NaN.
    """
    values = _values(*distances(far.space, states), nearest)
    return _average(values, far.references, far.weight, own=False)


def p_values(far: Far, states: Floats, nearest: Floats) -> Array:
    """(rows,) p-values of the hypothesis that fresh rows are drawn as the database's were.

    A row is far at a level if its p-value is at most the level.  states: (rows, width); nearest:
    (rows,) squared L2 distance to the nearest key, or NaN.
    """
    return np.exp(-_surprise(scores(far, states, nearest), far.scores, own=False))


def _values(labels: Array, total: Array, nearest: Floats) -> Floats:
    """(3, rows) the values to rank, on scales with about exponential tails; NaN if unknown."""
    label = labels.min(axis=1)
    with np.errstate(invalid="ignore"):
        values = np.sqrt(np.maximum(nearest, 0.0)), np.log(label + _CONSTANT), label - total
    return _known(np.stack(values))


def _known(values: NDArray[np.floating]) -> Floats:
    found = values.astype(np.float32)
    return np.where(np.isfinite(found), found, np.float32(np.nan))


def _average(values: Floats, references: Floats, weight: float, *, own: bool) -> Floats:
    """(rows,) log of 1 / p summed over the three distances, weighted.  values: (3, rows)."""
    pairs = zip(values, references, strict=True)
    near, label, relative = (_surprise(value, reference, own=own) for value, reference in pairs)
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.logaddexp(near, label), relative + np.log(weight)).astype(np.float32)


def _surprise(values: Floats, reference: Floats, *, own: bool) -> Array:
    """(rows,) -log p of values (rows,) against sorted ones; 0 if either is not known.

    own: whether the values are themselves among the reference, so that each counts itself.
    """
    known = reference[: np.isfinite(reference).sum()].astype(np.float64)
    n = len(known)
    if n < 2:
        return np.zeros(len(values))
    k = min(int(np.ceil(np.sqrt(n))), n - 1)
    edge = known[n - k - 1]
    mean = (known[n - k :] - edge).mean()
    as_large = n - np.searchsorted(known, values.astype(np.float64))
    surprise = np.log(n + 1 - own) - np.log(as_large + 1 - own)
    excess = values - edge
    beyond = (excess > 0) & (mean > 0)
    surprise[beyond] = k * np.log1p(excess[beyond] / (k * mean)) - np.log((k + 1) / (n + 1))
    return np.where(np.isnan(values), 0.0, surprise)
