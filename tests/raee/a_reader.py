"""A reader that raee does not have: how near a state is to the labels' means."""

import numpy as np
from scipy.special import softmax

from raee.answers import answers_of
from raee.readers.de3 import label_means
from raee.readers.fit import Fit
from raee.readers.reader import Look, Reader, Reading

_SHARPNESS = 10.0


class Centroid(Reader):
    name = "centroid"
    clause = "the nearest label mean"
    description = "the label whose mean is nearest"
    look = Look("ink", "o", "-")

    def fitter(self, fitting):
        return _Fitter(fitting)

    def arrays(self, parameters):
        return {"centroids": parameters}

    def from_arrays(self, arrays):
        return arrays["centroids"]

    def read(self, here, due):
        return Reading(_nearness(here.vectors(due), here.parameters(self.name)[here.depth]))


class _Fitter:
    def __init__(self, fitting):
        self._means, self._found = label_means(fitting.sums), []

    def see(self, depth, states):
        self._found.append(_nearness(states, self._means[depth]))

    def fit(self):
        return Fit(self._means, answers_of(self._found), {"sharpness": _SHARPNESS})


def _nearness(vectors, means):
    return softmax(_SHARPNESS * vectors.astype(np.float64) @ means.T, axis=1)


READER = Centroid()
