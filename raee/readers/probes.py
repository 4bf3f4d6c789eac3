"""`probes`: the average of the probes up to a depth, in databases from before there were pools."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from raee.readers.linear import Array
from raee.readers.probe import READER as PROBE
from raee.readers.reader import Due, Here, Look, Reader, Reading


class Probes(Reader):
    """The mean of the probes' log-probabilities up to a depth, with one temperature a depth."""

    name = "probes"
    clause = "the average of the probes so far"
    description = "the average of the probes up to a depth"
    look = Look("c2", "o", "-")
    adds_up = True
    is_built = False
    successor = "pool"
    costs_as = (PROBE.name,)

    def arrays(self, parameters: Array) -> dict[str, NDArray[Any]]:
        """A temperature a depth."""
        return {"average_temperatures": parameters}

    def from_arrays(self, arrays: dict[str, NDArray[Any]]) -> Array:
        """(depths,) the temperatures."""
        return np.asarray(arrays["average_temperatures"])

    def pass_by(self, here: Here) -> dict[str, Array]:
        """The probe's log-probabilities."""
        return {str(here.depth): PROBE.logs(here, slice(None))}

    def read(self, here: Here, due: Due) -> Reading:
        """The average, at the depth's temperature."""
        mean = np.mean([*here.so_far(self.name, due).values()], axis=0)
        return Reading(softmax(here.parameters(self.name)[here.depth] * mean, axis=1))


READER = Probes()
