"""Linear maps from a state to label scores, and temperatures that make probabilities of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Array = NDArray[np.float64]

NO_PROBABILITY = -1e30
"""Logarithm of the probability of a label that a fit has not seen: finite, so that it can be
averaged, and 0 after a softmax."""


@dataclass(frozen=True)
class Linear:
    """A linear map to label scores, with the temperature that makes probabilities of them."""

    weights: Array
    """(labels, width)."""
    biases: Array
    """(labels,); -inf for a label that the fit has not seen."""
    temperature: float

    def log_probabilities(self, states: NDArray[np.floating]) -> Array:
        """(rows, labels) log-probabilities of states (rows, width)."""
        return log_softmax(self.temperature * (states @ self.weights.T + self.biases), axis=1)

    def finite_logs(self, states: NDArray[np.floating]) -> Array:
        """The same, with a label that the fit has not seen at NO_PROBABILITY."""
        return np.maximum(self.log_probabilities(states), NO_PROBABILITY)


def fit_temperature(scores: Array, label: NDArray[np.uint16]) -> float:
    """The factor on scores (rows, labels) under which the rows' labels are likeliest.

    Rows whose label has the score -inf say nothing about it.
    """
    return fit_likelihood(scores, label)[0]


def fit_likelihood(scores: Array, label: NDArray[np.uint16]) -> tuple[float, float]:
    """The temperature of scores (rows, labels), and the labels' mean log-likelihood under it."""
    own = scores[np.arange(len(scores)), label]
    known = np.isfinite(own)
    if not known.any():
        return 1.0, 0.0
    scores, own = scores[known], own[known]
    most = scores.max(axis=1)
    below, lacks = scores - most[:, None], most - own

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        total = np.exp(factor * below).sum(axis=1)
        return float(np.mean(np.log(total) + factor * lacks))

    found = minimize_scalar(loss, bounds=(-7, 7), method="bounded")
    return float(np.exp(found.x)), -float(found.fun)
