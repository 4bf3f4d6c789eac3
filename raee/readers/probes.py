"""`probes`: the average of the probes up to a depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from raee.answers import answers_of
from raee.readers.fit import Fit
from raee.readers.linear import Array, fit_temperature
from raee.readers.probe import READER as PROBE
from raee.readers.probe import ProbeFitter
from raee.readers.reader import Due, Here, Look, Reader, Reading

if TYPE_CHECKING:
    from raee.readers.fit import Fitting


class Probes(Reader):
    """The mean of the probes' log-probabilities up to a depth, with one temperature a depth."""

    name = "probes"
    clause = "the average of the probes so far"
    description = "the average of the probes up to a depth"
    look = Look("c2", "o", "-")
    adds_up = True
    costs_as = PROBE.name

    def fitter(self, fitting: Fitting) -> ProbesFitter:
        """Averages what the probes' fit has found."""
        return ProbesFitter(fitting)

    def arrays(self, parameters: Array) -> dict[str, Array]:
        """A temperature a depth."""
        return {"average_temperatures": parameters}

    def from_arrays(self, arrays: dict[str, Array]) -> Array:
        """(depths,) the temperatures."""
        return arrays["average_temperatures"]

    def pass_by(self, here: Here) -> Array:
        """(present rows, labels) the probe's log-probabilities."""
        return PROBE.logs(here, slice(None))

    def read(self, here: Here, due: Due) -> Reading:
        """The average, at the depth's temperature."""
        mean = here.so_far(self.name, due) / (here.depth + 1)
        return Reading(softmax(here.parameters(self.name)[here.depth] * mean, axis=1))


class ProbesFitter:
    """The fit of the averages' temperatures."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Nothing: the probes' fit sees the states."""

    def fit(self) -> Fit:
        """The temperatures, and the answers without the text."""
        probe = self._fitting.fitter(PROBE.name)
        assert isinstance(probe, ProbeFitter)
        running = averages(probe.log_probabilities)
        warmth = np.array([fit_temperature(s, self._fitting.judges.label) for s in running])
        logs = log_softmax(warmth[:, None, None] * running, axis=2)
        record = {"average_temperatures": warmth.tolist()}
        return Fit(warmth, answers_of([*np.exp(logs)]), record)


def averages(log_probabilities: Array) -> Array:
    """(depths, rows, labels): at each depth the mean of the log-probabilities up to it."""
    count = np.arange(1, len(log_probabilities) + 1)[:, None, None]
    return np.cumsum(log_probabilities, axis=0) / count


READER = Probes()
