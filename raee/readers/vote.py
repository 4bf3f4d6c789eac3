"""`vote`: the labels of the nearest database rows, weighted by their distance."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours, neighbour_weights
from raee.readers.reader import Due, Here, Look, Reader, Reading


class Vote(Reader):
    """The neighbours' vote by the key at its depth."""

    name = "vote"
    clause = "the neighbours' vote"
    description = "the labels of the nearest rows"
    look = Look("c3", "^", "-.")
    source = "neighbours"
    is_tempered = True

    def depths(self, deepest: int, key_depths: Sequence[int]) -> Sequence[int]:
        """At the keys' depths."""
        return key_depths

    def among(
        self, neighbours: Neighbours, label: NDArray[np.uint16], labels: int
    ) -> NDArray[np.float32]:
        """The neighbours' vote."""
        return vote(neighbours, label, labels)

    def read(self, here: Here, due: Due) -> Reading:
        """The vote of the neighbours that vote."""
        return Reading(self.among(here.neighbours(due), here.label, here.labels))


def vote(neighbours: Neighbours, labels: NDArray[np.uint16], n_labels: int) -> NDArray[np.float32]:
    """The neighbours' labels, weighted by 1 / d: (queries, labels) probabilities.

    labels: (rows,) the database's; n_labels: how many there are.  If a query has no neighbour, all
    labels are equally likely.  The weights are the paper's (arXiv 2405.15198, section 3.3).
    """
    weights = neighbour_weights(neighbours)
    of_neighbour = labels[np.maximum(neighbours.rows, 0)]
    votes = np.zeros((len(weights), n_labels))
    np.add.at(votes, (np.arange(len(weights))[:, None], of_neighbour), weights)
    total = votes.sum(axis=1, keepdims=True)
    uniform = np.full_like(votes, 1.0 / n_labels)
    return np.divide(votes, total, out=uniform, where=total > 0).astype(np.float32)


READER = Vote()
