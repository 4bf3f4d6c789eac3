"""Exits and entries: what a database knows of its rows, as arrays."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raee.answers import Answers
from raee.config import ReaderName
from raee.errors import InputError, cut, listed
from raee.readers.reader import Reader, Source
from raee.readers.table import READERS, reader, readers
from raee.texts import TextHashes, Texts


@dataclass(frozen=True)
class Exit:
    """A reader at a depth, written `head@12`."""

    reader: ReaderName
    depth: int

    def __str__(self) -> str:
        return f"{self.reader}@{self.depth}"

    @property
    def of(self) -> Reader:
        """The reader."""
        return reader(self.reader)


def swept_exits(depth: int, key_depths: Iterable[int]) -> tuple[Exit, ...]:
    """The exits of a model of `depth` layers that need no fit."""
    return tuple(e for e in exits_of(depth, key_depths) if e.of.source != "fit")


def fitted_exits(depth: int) -> tuple[Exit, ...]:
    """The exits of a model of `depth` layers that a fit adds."""
    return tuple(e for e in exits_of(depth, ()) if e.of.source == "fit")


def exits_of(depth: int, key_depths: Iterable[int]) -> tuple[Exit, ...]:
    """All exits that a build gives a model of `depth` layers, in the order of an entry's lists."""
    keys = tuple(key_depths)
    built = [r for r in readers() if r.is_built]
    return tuple(Exit(r.name, layer) for r in built for layer in r.depths(depth, keys))


def parse_exits(names: Iterable[str]) -> tuple[Exit, ...]:
    """Exits from their names.  Raises InputError if a name is not an exit's."""
    result = []
    for name in names:
        reader, _, depth = name.partition("@")
        if reader not in READERS or not depth.isdecimal():
            raise InputError(
                f"{cut(repr(name))} is no exit; write it like head@4, probe@2 or vote@0"
            )
        result.append(Exit(reader, int(depth)))
    return tuple(result)


@dataclass(frozen=True)
class Entries:
    """What the database keeps of its labelled rows; row n is row n of the indexes."""

    exits: tuple[Exit, ...]
    labels: tuple[str, ...]
    label: NDArray[np.uint16]
    """(rows,) the right label."""
    answers: NDArray[np.uint16]
    """(rows, exits) each exit's answer; votes and probes answer without the row's text."""
    confidences: NDArray[np.float32]
    """(rows, exits) how sure each exit is of its answer, from 0 to 1; NaN if it was not read."""
    hashes: TextHashes
    """(rows,) the hashes of the rows' texts."""

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: NDArray | slice) -> "Entries":
        """Some of the rows."""
        return Entries(
            self.exits,
            self.labels,
            self.label[rows],
            self.answers[rows],
            self.confidences[rows],
            self.hashes[rows],
        )

    @cached_property
    def texts(self) -> Texts:
        """Which rows have equal texts."""
        return Texts(self.hashes)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(rows, exits) True if the exit was read and its answer is the row's label."""
        return (self.answers == self.label[:, None]) & ~np.isnan(self.confidences)

    @cached_property
    def complete(self) -> NDArray[np.int64]:
        """(complete rows,) rows whose exits were all read: policies are replayed on them."""
        return np.flatnonzero(~np.isnan(self.confidences).any(axis=1))

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """(exits,) share of the complete rows on which each exit is right; 0 without any."""
        return self._hits / max(len(self.complete), 1)

    def rates_without(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(rows asked, exits) the rates on all complete rows but those with the row's own text."""
        number, complete = self.texts.number, self.complete
        hits = np.zeros((len(self.texts), len(self.exits)), np.int64)
        np.add.at(hits, number[complete], self.right[complete])
        counts = np.bincount(number[complete], minlength=len(self.texts))[:, None]
        text = number[rows]
        return (self._hits - hits[text]) / np.maximum(len(complete) - counts[text], 1)

    @cached_property
    def _hits(self) -> NDArray[np.int64]:
        return self.right[self.complete].sum(axis=0)

    @cached_property
    def depths(self) -> NDArray[np.int64]:
        """(exits,) layers that a row runs to reach each exit."""
        return np.array([e.depth for e in self.exits])

    @cached_property
    def before_walk(self) -> NDArray[np.bool_]:
        """(exits,) True if a row needs no batch to leave there."""
        return np.array([e.of.before_walk for e in self.exits])

    def positions(self, reader: ReaderName) -> list[int]:
        """Positions of a reader's exits, by depth."""
        return [i for i, e in enumerate(self.exits) if e.reader == reader]

    @cached_property
    def heads(self) -> list[int]:
        """Positions of the exits at which the model itself answers, by depth."""
        return [i for i, e in enumerate(self.exits) if e.of.is_the_models]

    @cached_property
    def votes(self) -> list[int]:
        """Positions of the exits that ask the neighbours, by depth."""
        return [i for i, e in enumerate(self.exits) if e.of.source == "neighbours"]

    @cached_property
    def answering(self) -> list[int]:
        """Positions of the exits with answers of their own."""
        return [i for i, e in enumerate(self.exits) if e.of.answers_as is None]

    @property
    def full(self) -> int:
        """Position of the head at full depth."""
        return self.heads[-1]

    @property
    def key_depth(self) -> int:
        """Layers that a row has run when the neighbours of a plan are known."""
        return self.exits[self.votes[0]].depth

    def best(self, positions: Sequence[int]) -> int:
        """Position of the exit that is right most often among some; of equals the shallowest."""
        return max(positions, key=lambda i: (self.rates[i], -self.exits[i].depth))

    @property
    def at_full_depth(self) -> list[int]:
        """Positions of the exits at full depth with answers of their own."""
        deepest = self.exits[self.full].depth
        return [i for i in self.answering if self.exits[i].depth == deepest]

    @property
    def best_at_full_depth(self) -> int:
        """Position of the exit at full depth that is right most often."""
        return self.best(self.at_full_depth)

    def position_of(self, name: str) -> int:
        """Position of an exit by its name.  Raises InputError if the database has no such exit."""
        names = [str(e) for e in self.exits]
        if name not in names:
            raise InputError(
                f"exit {cut(repr(name))} is not in the database; it has {listed(names)}"
            )
        return names.index(name)


def in_order(exits: Sequence[Exit], parts: Mapping[Source, Answers]) -> Answers:
    """The answers of exits, in their order.

    parts: by source, the answers of the exits that have it, in the same order.
    """
    columns = {source: iter(range(part.answers.shape[1])) for source, part in parts.items()}
    order = [(parts[e.of.source], next(columns[e.of.source])) for e in exits]
    return Answers(
        np.column_stack([part.answers[:, i] for part, i in order]),
        np.column_stack([part.confidences[:, i] for part, i in order]),
    )
