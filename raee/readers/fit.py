"""A reader's fit: what it is given, what it leaves, and how one asks for another's.

A fitted reader sees a row's state x at a depth, a unit vector: `mean` over the row's tokens, or the
one at its `answer` position.  All figures on the database's own rows are without the row's text
(`raee.texts`): exact for closed forms, cross-fitted for others, with equal texts in one fold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from raee.answers import Answers
from raee.readers.ngrams import TokenIds
from raee.readers.sums import Sums
from raee.texts import Copies, TextHashes, Texts

StateName = Literal["mean", "answer"]

States = Callable[[int], NDArray[np.float32]]
"""`states(depth) -> (rows, width)` unit vectors."""
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of the rows that are fitted on, and of the rows that are held out."""

FOLDS = 5


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
        number = min(FOLDS, len(texts))
        fold = texts.folds(number, seed)
        return [(np.flatnonzero(fold != n), np.flatnonzero(fold == n)) for n in range(number)]


@dataclass(frozen=True)
class WordRows:
    """The rows that n-grams are fitted on; those that carry the figures are among them."""

    token_ids: TokenIds
    label: NDArray[np.uint16]
    """(rows,) the right labels."""
    hashes: TextHashes
    """(rows,) hashes of their texts."""
    judges: NDArray[np.int64]
    """(judging rows,) positions of the rows that carry the figures, in their order."""


@dataclass(frozen=True)
class Unfitted:
    """What was read of the rows that carry the figures, each without its text, and needs no fit."""

    heads: NDArray[np.float32]
    """(depths, rows, labels) the distributions of the model's own head."""
    votes: Mapping[int, NDArray[np.floating]]
    """By a key's depth, (rows, labels) the neighbours' votes."""


@dataclass(frozen=True)
class Fit:
    """A reader, fitted."""

    parameters: Any
    answers: Answers
    """(rows, the reader's depths) on the rows that carry the figures, each without its text."""
    record: dict[str, Any]
    """What the manifest records of the fit: with the sums, all that it takes to repeat it."""


class Fitter(Protocol):
    """A fit under way, which is shown the states once, depth by depth."""

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Take the states at a depth: (rows, width), of the rows that carry the figures."""

    def fit(self) -> Fit:
        """The reader's fit, asked for once all depths were seen."""


class Fitting:
    """A fit under way: who asks for another reader's fit gets it, in whatever order."""

    def __init__(
        self,
        state: StateName,
        sums: Sums,
        judges: Judges,
        words: WordRows,
        unfitted: Unfitted,
        before: Mapping[str, Any],
        seed: int,
        begin: "Mapping[str, Callable[[Fitting], Fitter]]",
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """begin: by name, what begins each reader's fit; the others: as in `fit_readers`."""
        self.state, self.sums, self.judges, self.seed = state, sums, judges, seed
        self.words, self.unfitted, self.before = words, unfitted, before
        self._on_rows, self._told = on_rows, 0
        self._planned, self._passed = 0, 0
        self._fitters = {name: begins(self) for name, begins in begin.items()}

    @property
    def labels(self) -> int:
        """How many labels there are."""
        return len(self.sums.rows)

    @cached_property
    def folds(self) -> Sequence[Fold]:
        """The folds of the rows, the same for all that is cross-fitted."""
        return self.judges.folds(self.seed)

    def fitter(self, name: str) -> Any:
        """Another reader's fit under way."""
        return self._fitters[name]

    def plan(self, passes: int) -> None:
        """Announce that a fitter will go over the rows so many times, when it begins."""
        self._planned += passes

    def passed(self, passes: int = 1) -> None:
        """Tell of passes that were planned, as they are done or turn out not to be needed."""
        self._passed += passes
        self._tell(len(self.judges.label) * self._passed // self._planned)

    def fit(self) -> dict[str, Fit]:
        """Show all fitters the states, each depth once, and have them fit."""
        for depth in range(self.sums.depths):
            states = self.judges.states(depth)
            for fitter in self._fitters.values():
                fitter.see(depth, states)
        found = {name: fitter.fit() for name, fitter in self._fitters.items()}
        self._tell(len(self.judges.label))
        return found

    def _tell(self, rows: int) -> None:
        self._on_rows(rows - self._told)
        self._told = rows
