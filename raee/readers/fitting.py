"""The fit of all of a database's readers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from raee.answers import Answers, joined
from raee.readers.fit import Fitting, Judges, StateName, Unfitted, WordRows
from raee.readers.sums import Sums
from raee.readers.table import readers


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


def begin_fit(
    state: StateName,
    sums: Sums,
    judges: Judges,
    words: WordRows,
    unfitted: Unfitted,
    before: Mapping[str, Any],
    seed: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Fitting:
    """The fit of all fitted readers, which has not seen any states yet; as in `fit_readers`."""
    built = [reader for reader in readers() if reader.source == "fit" and reader.is_built]
    begin = {reader.name: reader.fitter for reader in built}
    return Fitting(state, sums, judges, words, unfitted, before, seed, begin, on_rows)


def fit_readers(
    state: StateName,
    sums: Sums,
    judges: Judges,
    words: WordRows,
    unfitted: Unfitted,
    before: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Fitted:
    """Fit a database's readers.

    sums: over all rows.  judges: the rows that carry the figures; unfitted: what else was read of
    them.  words: the rows that n-grams are fitted on.  before: by reader's name, what an earlier
    fit of much the same rows found, near which a search begins.  seed: of the folds.  on_rows is
    told of so many rows as the judges are, in step with what is done of the whole fit.
    """
    found = begin_fit(state, sums, judges, words, unfitted, before, seed, on_rows).fit()
    record: dict[str, Any] = {}
    for fit in found.values():
        record |= fit.record
    return Fitted(
        fits=Fits(state, {name: fit.parameters for name, fit in found.items()}),
        answers=joined([fit.answers for fit in found.values()]),
        record=record,
    )
