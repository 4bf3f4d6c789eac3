"""`de3`: the probe's answer, with DE3-BERT's indicator of how much it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from raee.answers import answers_of
from raee.readers.fit import Fit
from raee.readers.linear import Array
from raee.readers.probe import READER as PROBE
from raee.readers.probe import ProbeFitter
from raee.readers.reader import Due, Here, Look, Reader, Reading
from raee.readers.sums import Sums
from raee.texts import Copies

if TYPE_CHECKING:
    from raee.readers.fit import Fitting


class De3(Reader):
    """DE3-BERT's hybrid rule (arXiv 2402.05948, section III), on the probes."""

    name = "de3"
    clause = "the probe by DE3-BERT's rule"
    description = "the probe, as sure as its entropy and the labels' prototypes say"
    look = Look("ink", "o", "-")
    answers_as = PROBE.name

    def fitter(self, fitting: Fitting) -> De3Fitter:
        """Measures how far the rows are from the labels' means."""
        return De3Fitter(fitting)

    def arrays(self, parameters: Array) -> dict[str, NDArray[Any]]:
        """The labels' means."""
        return {"means": parameters}

    def from_arrays(self, arrays: dict[str, NDArray[Any]]) -> Array:
        """(depths, labels, width) the prototypes; 0 for a label without rows."""
        return arrays["means"]

    def read(self, here: Here, due: Due) -> Reading:
        """The probe's probabilities, with 1 - the indicator as the confidence."""
        distributions = softmax(PROBE.logs(here, due), axis=1)
        means = here.parameters(self.name)[here.depth]
        vectors = here.vectors(due).astype(np.float64)
        squared = 1 - 2 * vectors @ means.T + np.square(means).sum(axis=1)
        distances = np.sqrt(np.maximum(squared, 0))
        distances[:, ~means.any(axis=1)] = np.inf
        return Reading(distributions, (1 - edr(distributions, distances)).astype(np.float32))


class De3Fitter:
    """The labels' means, and how far each row is from them without its text."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        self._means = label_means(fitting.sums)
        self.distances: list[Array] = []
        """By depth (rows, labels): from each row to each label's mean, without the row's text."""

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Measure the distances.  states: (rows, width)."""
        rows, copies = self._fitting.sums.rows, self._fitting.judges.copies
        self.distances.append(_left_out_distances(self._means[depth], rows, states, copies))

    def fit(self) -> Fit:
        """The means, and the answers without the text."""
        probe = self._fitting.fitter(PROBE.name)
        assert isinstance(probe, ProbeFitter)
        each = np.exp(probe.log_probabilities)
        found = answers_of([*each])
        for depth, (distributions, distances) in enumerate(zip(each, self.distances, strict=True)):
            found.confidences[:, depth] = 1 - edr(distributions, distances)
        return Fit(self._means, found, {})


def edr(distributions: NDArray[np.floating], distances: NDArray[np.floating]) -> Array:
    """DE3-BERT's exit indicator (arXiv 2402.05948, section III), (rows,) from 0, certain, to 1.

    The harmonic mean of the distribution's entropy, as a share of the largest, and the distance
    ratio DR = (1 + (r1 - r2) / max(r1, r2)) / 2 of the state to the answer's prototype (r1) and to
    the nearest other one (r2).  distributions, distances: (rows, labels).
    """
    rows, labels = distributions.shape
    if labels == 1:
        return np.zeros(rows)
    answer = distributions.argmax(axis=1)[:, None]
    entropy = entr(distributions.astype(np.float64)).sum(axis=1) / np.log(labels)
    others = distances.astype(np.float64)
    own = np.take_along_axis(others, answer, axis=1)[:, 0]
    np.put_along_axis(others, answer, np.inf, axis=1)
    nearest = others.min(axis=1)
    farther = np.maximum(own, nearest)
    with np.errstate(invalid="ignore"):
        ratio = 0.5 * (1 + (own - nearest) / np.maximum(farther, 1e-12))
    # A label without a prototype is infinitely far: what the ratio comes to in the limit.
    ratio = np.where(np.isfinite(farther), ratio, np.isinf(own))
    # Rounding may take the entropy of equal shares a little above the largest.
    entropy = np.minimum(entropy, 1.0)
    return 2 * ratio * entropy / np.maximum(ratio + entropy, 1e-12)


def label_means(sums: Sums) -> Array:
    """(depths, labels, width) the labels' means; 0 for a label without rows."""
    rows = sums.rows[:, None]
    # Rounding may have left something of a label whose rows are gone.
    return np.where(rows > 0, sums.first / np.maximum(rows, 1), 0.0)


def _left_out_distances(
    means: Array, rows: Array, states: NDArray[np.float32], copies: Copies
) -> Array:
    x = states.astype(np.float64)
    squared = np.square(x).sum(axis=1)[:, None] - 2 * x @ means.T + np.square(means).sum(axis=1)
    distances = np.sqrt(np.maximum(squared, 0))
    distances[:, rows == 0] = np.inf
    # Without k of a label's n rows, all at x, its mean lies n / (n - k) times as far from x.
    row = np.arange(len(x))[:, None]
    there, gone = rows[copies.labels], copies.counts
    farther = np.where(there > gone, there / np.maximum(there - gone, 1), np.inf)
    own = distances[row, copies.labels]
    with np.errstate(invalid="ignore"):  # a label that goes as a whole is at distance 0 of itself
        moved = np.where(farther < np.inf, own * farther, np.inf)
    # Nothing goes in the padding, whatever its label.
    np.put_along_axis(
        distances,
        np.where(gone > 0, copies.labels, copies.labels[:, :1]),
        np.where(gone > 0, moved, moved[:, :1]),
        axis=1,
    )
    return distances


READER = De3()
