"""The fit of a database's readers: what they are fitted on, and how one asks for another's fit.

A fitted reader sees a row's state x at a depth, a unit vector: `mean` over the row's tokens, or the
one at its `answer` position.  All figures on the database's own rows are without the row's text
(`raee.texts`): exact for closed forms, cross-fitted for others, with equal texts in one fold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.exits import Answers, joined
from raee.readers.reader import Fit, Fitter
from raee.readers.states import StateName
from raee.readers.sums import Sums
from raee.readers.table import readers
from raee.texts import Copies, TextHashes, Texts

States = Callable[[int], NDArray[np.float32]]
"""`states(depth) -> (rows, width)` unit vectors."""
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of the rows that are fitted on, and of the rows that are held out."""

_FOLDS = 5


@dataclass(frozen=True)
class Judges:
    """The rows that carry the figures without the text; the sums contain all of them."""

    states: States
    label: NDArray[np.uint16]
    """(rows,) the right labels."""
    hashes: TextHashes
    """(rows,) the hashes of their texts."""
    copies: Copies
    """For each row, the rows of the sums that have its text."""

    @cached_property
    def texts(self) -> Texts:
        """Which rows have equal texts."""
        return Texts(self.hashes)

    def folds(self, seed: int) -> Sequence[Fold]:
        """The rows in folds, equal texts in one."""
        texts = self.texts
        if len(texts) < 2:  # nothing can be held out
            every = np.arange(len(texts.number))
            return [(every, every)]
        number = min(_FOLDS, len(texts))
        fold = texts.folds(number, seed)
        return [(np.flatnonzero(fold != n), np.flatnonzero(fold == n)) for n in range(number)]


@dataclass(frozen=True)
class Fits:
    """The fitted readers of a database."""

    state: StateName
    """The state that they read."""
    parameters: Mapping[str, Any]
    """By reader's name, what its fit found."""


@dataclass(frozen=True)
class Fitted:
    """The fit of all readers, with its record for the manifest."""

    fits: Fits
    answers: Answers
    """(rows, fitted exits) on the rows that carry the figures, each without its text; in order."""
    record: Mapping[str, Any]
    """What the manifest says of it."""


class Fitting:
    """A fit under way: who asks for another reader's fit gets it, in whatever order."""

    def __init__(self, state: StateName, sums: Sums, judges: Judges, seed: int) -> None:
        self.state, self.sums, self.judges, self.seed = state, sums, judges, seed
        fitted = [reader for reader in readers() if reader.source == "fit"]
        self._fitters: dict[str, Fitter] = {r.name: r.fitter(self) for r in fitted}

    @property
    def labels(self) -> int:
        """How many labels there are."""
        return len(self.sums.rows)

    def fitter(self, name: str) -> Any:
        """Another reader's fit under way."""
        return self._fitters[name]

    def fit(self) -> dict[str, Fit]:
        """Show all fitters the states, each depth once, and have them fit."""
        for depth in range(self.sums.depths):
            states = self.judges.states(depth)
            for fitter in self._fitters.values():
                fitter.see(depth, states)
        return {name: fitter.fit() for name, fitter in self._fitters.items()}


def fit_readers(state: StateName, sums: Sums, judges: Judges, seed: int = 0) -> Fitted:
    """Fit a database's readers.

    sums: over all rows.  judges: the rows that carry the figures.  seed: of the folds.
    """
    found = Fitting(state, sums, judges, seed).fit()
    record: dict[str, Any] = {}
    for fit in found.values():
        record |= fit.record
    return Fitted(
        fits=Fits(state, {name: fit.parameters for name, fit in found.items()}),
        answers=joined([fit.answers for fit in found.values()]),
        record=record,
    )
