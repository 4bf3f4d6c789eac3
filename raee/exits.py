"""Exits and entries: what a database knows, as arrays."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raee.errors import InputError

ReaderName = Literal["head", "vote"]


@dataclass(frozen=True)
class Exit:
    """A reader at a depth, written `head@12`."""

    reader: ReaderName
    depth: int

    def __str__(self) -> str:
        return f"{self.reader}@{self.depth}"


def exits_of(depth: int, key_depth: int) -> tuple[Exit, ...]:
    """The exits of a model of `depth` layers, in the order of an entry's lists."""
    heads = tuple(Exit("head", layer) for layer in range(depth + 1))
    return (*heads, Exit("vote", key_depth))


def parse_exits(names: list[str]) -> tuple[Exit, ...]:
    """Exits from their names; raises InputError for one that is not an exit."""
    result = []
    for name in names:
        reader, _, depth = name.partition("@")
        if reader not in ("head", "vote") or not depth.isdecimal():
            raise InputError(f"{name!r} is no exit; write it like head@4 or vote@0")
        result.append(Exit(reader, int(depth)))  # type: ignore[arg-type]
    return tuple(result)


@dataclass(frozen=True)
class Entries:
    """What the database keeps of its labelled rows; row n is row n of the index."""

    exits: tuple[Exit, ...]
    labels: tuple[str, ...]
    label: NDArray[np.uint16]
    """(rows,) the right label."""
    answers: NDArray[np.uint16]
    """(rows, exits) each exit's answer; the vote's is leave-one-out."""
    confidences: NDArray[np.float32]
    """(rows, exits) the answer's probability."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(rows, exits) where the exit's answer is the row's label."""
        return self.answers == self.label[:, None]

    @property
    def heads(self) -> list[int]:
        """Places of the head exits, by depth."""
        return [i for i, e in enumerate(self.exits) if e.reader == "head"]

    @property
    def full(self) -> int:
        """Place of the head at full depth."""
        return self.heads[-1]

    @property
    def vote(self) -> int:
        """Place of the neighbours' vote."""
        return next(i for i, e in enumerate(self.exits) if e.reader == "vote")

    def place_of(self, name: str) -> int:
        """Place of an exit by its name; raises InputError where the database has no such exit."""
        names = [str(e) for e in self.exits]
        if name not in names:
            raise InputError(f"exit {name!r} is not in the database; it has {', '.join(names)}")
        return names.index(name)


@dataclass(frozen=True)
class Neighbours:
    """The nearest database rows of some queries, nearest first."""

    rows: NDArray[np.int64]
    """(queries, k) places in the database; -1 where the database has fewer than k rows."""
    distances: NDArray[np.float32]
    """(queries, k) squared L2; inf where there is no neighbour."""

    def first(self, k: int) -> "Neighbours":
        """The k nearest of them."""
        return Neighbours(self.rows[:, :k], self.distances[:, :k])

    def __getitem__(self, queries: NDArray | slice) -> "Neighbours":
        return Neighbours(self.rows[queries], self.distances[queries])


_NEAREST = 1e-12
"""Squared distance below which a neighbour counts as an exact duplicate: it dominates, finitely."""


def neighbour_weights(neighbours: Neighbours) -> NDArray[np.float64]:
    """Weights 1 / d (arXiv 2405.15198, section 3.3), (queries, k); 0 where there is none."""
    return np.where(
        neighbours.rows < 0,
        0.0,
        1.0 / np.maximum(neighbours.distances.astype(np.float64), _NEAREST),
    )
