"""What exits say of rows, and what rows lie near each other, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """What some exits say of some rows."""

    answers: NDArray[np.uint16]
    """(rows, exits) the index of the label."""
    confidences: NDArray[np.float32]
    """(rows, exits) from 0 to 1."""


def answers_of(distributions: Sequence[NDArray[np.floating]]) -> Answers:
    """The answers of exits with distributions (rows, labels), and their probabilities."""
    return Answers(
        np.stack([d.argmax(axis=1) for d in distributions], axis=1).astype(np.uint16),
        np.stack([d.max(axis=1) for d in distributions], axis=1).astype(np.float32),
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers of several groups of exits on the same rows, side by side in their order."""
    return Answers(
        np.column_stack([part.answers for part in parts]),
        np.column_stack([part.confidences for part in parts]),
    )


def spread_over(found: Answers, sampled: NDArray[np.bool_]) -> Answers:
    """The answers of sampled rows among all rows; NaN is the confidence of an exit not read."""
    size = (len(sampled), found.answers.shape[1])
    answers, confidences = np.zeros(size, np.uint16), np.full(size, np.float32(np.nan))
    answers[sampled], confidences[sampled] = found.answers, found.confidences
    return Answers(answers, confidences)


@dataclass(frozen=True)
class Neighbours:
    """The nearest database rows of some queries, nearest first."""

    rows: NDArray[np.int64]
    """(queries, k) positions of database rows; -1 if the database has fewer than k rows."""
    distances: NDArray[np.float32]
    """(queries, k) squared L2; inf if there is no neighbour."""
    own: NDArray[np.int64] | None = None
    """(queries,) the database row that each query is, and whose text it did not find; None if the
    queries are no database rows."""

    @property
    def shortest(self) -> int:
        """Neighbours that every query has."""
        return int((self.rows >= 0).sum(axis=1).min(initial=self.rows.shape[1]))

    def first(self, k: int) -> "Neighbours":
        """The k nearest of them."""
        return Neighbours(self.rows[:, :k], self.distances[:, :k], self.own)

    def __getitem__(self, queries: NDArray | slice) -> "Neighbours":
        own = None if self.own is None else self.own[queries]
        return Neighbours(self.rows[queries], self.distances[queries], own)


_NEAREST = 1e-12
"""Squared distance below which a neighbour counts as an exact duplicate: it dominates, finitely."""


def neighbour_weights(neighbours: Neighbours) -> NDArray[np.float64]:
    """Weights 1 / d (arXiv 2405.15198, section 3.3), (queries, k); 0 if there is none."""
    return np.where(
        neighbours.rows < 0,
        0.0,
        1.0 / np.maximum(neighbours.distances.astype(np.float64), _NEAREST),
    )
