"""Sums of rows' states by label: a probe's fit needs no more, and they add up.

A sharded build adds its shards' sums, a nightly rebuild adds and subtracts rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Float64 sums over some rows' states x, unit vectors, at every depth."""

    rows: Array
    """(labels,) rows of each label, the same at every depth."""
    first: Array
    """(depths, labels, width) sum of x over each label's rows."""
    second: Array
    """(depths, width, width) sum of x x' over all rows."""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.rows + other.rows, self.first + other.first, self.second + other.second)

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(self.rows - other.rows, self.first - other.first, self.second - other.second)

    @property
    def depths(self) -> int:
        """How many depths there are, the embeddings' included."""
        return len(self.first)

    def tensors(self) -> dict[str, Array]:
        """Named arrays, as they are stored; the halves of `second` mirror each other."""
        upper = np.triu_indices(self.second.shape[1])
        return {
            "rows": self.rows,
            "first": self.first,
            "second_upper": self.second[:, *upper],
        }


def sums_from(tensors: dict[str, Array]) -> Sums:
    """Sums from their stored arrays."""
    first, packed = tensors["first"], tensors["second_upper"]
    width = first.shape[2]
    second = np.zeros((len(first), width, width))
    rows, columns = np.triu_indices(width)
    second[:, rows, columns] = packed
    second[:, columns, rows] = packed
    return Sums(tensors["rows"], first, second)


def no_rows(depths: int, labels: int, width: int) -> Sums:
    """The sums of no rows."""
    return Sums(
        np.zeros(labels), np.zeros((depths, labels, width)), np.zeros((depths, width, width))
    )


def sums_of(states: NDArray[np.float32], label: NDArray[np.uint16], labels: int) -> Sums:
    """The sums of some rows.

    states: (depths, rows, width) unit vectors; label: (rows,).
    """
    is_label = (label[:, None] == np.arange(labels)).astype(np.float64)
    exact = [depth.astype(np.float64) for depth in states]
    return Sums(
        is_label.sum(axis=0),
        np.stack([is_label.T @ x for x in exact]),
        np.stack([x.T @ x for x in exact]),
    )
