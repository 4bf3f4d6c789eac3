"""Builds in memory: a database of some rows of a pool, and its answers for others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.honesty.pools import LAYERS, Pool
from raee.answers import Answers, Neighbours, answers_of
from raee.config import PAPER_NEIGHBOURS
from raee.exits import Entries, Exit, exits_of, in_order
from raee.neighbours.index import Index, new_index
from raee.neighbours.lists import nearest_other_texts
from raee.policies.costs import Costs
from raee.policies.replay import Trial
from raee.policies.tuning import NEIGHBOURS
from raee.readers.fit import Judges, Unfitted, WordRows
from raee.readers.fitting import Fits, fit_readers
from raee.readers.ngrams import TokenIds, token_ids
from raee.readers.pool import weigh_votes
from raee.readers.reader import Due, Reading
from raee.readers.sums import sums_of
from raee.readers.table import reader, readers
from raee.readers.vote import vote
from raee.statistics.calibration import calibrated, fit_temperatures, warmed
from raee.texts import Texts, copies_of

COSTS = Costs(
    encode=8e-5,
    layer=9.5e-4,
    reads={
        "head": 2e-5,
        "vote": 6e-5,
        "probe": 2e-5,
        "de3": 3e-5,
        "logistic": 2e-5,
        "words": 1e-5,
        "pool": 4e-5,
    },
    enter=2e-5,
    once={"pool": ["words"]},
)
"""Seconds as measured for MiniLM on two cores."""

EXITS = exits_of(LAYERS, (0,))

HELD_OUT = 2_500
"""How many rows judge a database, at most."""


@dataclass(frozen=True)
class Rows:
    """Rows of which a database is made, or that it answers."""

    label: NDArray[np.uint16]
    """(rows,) indices of labels."""
    hashes: NDArray[np.uint64]
    """(rows,) of their token ids."""
    heads: NDArray[np.float32]
    """(depths, rows, labels) the heads' distributions."""
    token_ids: NDArray[np.object_]
    """(rows,) arrays of int32."""
    states: NDArray[np.float32]
    """(depths, rows, width)."""

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, some: NDArray[np.int64] | slice) -> "Rows":
        return Rows(
            self.label[some],
            self.hashes[some],
            self.heads[:, some],
            self.token_ids[some],
            self.states[:, some],
        )

    def __add__(self, more: "Rows") -> "Rows":
        return Rows(
            np.concatenate([self.label, more.label]),
            np.concatenate([self.hashes, more.hashes]),
            np.concatenate([self.heads, more.heads], axis=1),
            np.concatenate([self.token_ids, more.token_ids]),
            np.concatenate([self.states, more.states], axis=1),
        )


@dataclass(frozen=True)
class Built:
    """A database, and fresh rows as its exits answer them."""

    trial: Trial
    """Its own rows, each without its text."""
    fresh: Trial
    """The fresh rows, with neighbours among the database's rows."""
    temperatures: dict[str, float]
    """By exit, the temperatures of heads and votes."""
    readings: dict[Exit, Reading]
    """What each exit says of the fresh rows, as it is."""
    weighs_votes: bool
    """Whether a pool weighs the neighbours' votes."""


def rows_of(pool: Pool, some: NDArray[np.int64]) -> Rows:
    """Some rows of a pool."""
    return Rows(pool.label, pool.hashes, pool.heads, pool.token_ids, pool.states)[some]


def split(pool: Pool, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of `size` rows of a pool, and of up to HELD_OUT others."""
    order = np.random.default_rng((seed, size)).permutation(len(pool.label))
    return order[:size], order[size : size + HELD_OUT]


def build(rows: Rows, fresh: Rows, names: NDArray[np.str_]) -> Built:
    """Make a database of rows as a build does, and read fresh rows as a classification does.

    names: (labels,).
    """
    labels, texts = len(names), Texts(rows.hashes)
    copies = copies_of(rows.hashes, rows.hashes, rows.label, labels)
    judges = Judges(rows.states.__getitem__, rows.label, rows.hashes, copies)
    index = new_index(rows.states.shape[2])
    index.add(rows.states[0])
    found = nearest_other_texts(index, rows.states[0], NEIGHBOURS, rows.hashes, texts)
    near = replace(found, own=np.arange(len(rows)))
    votes = vote(near.first(PAPER_NEIGHBOURS), rows.label, labels)
    fitted = fit_readers(
        "mean",
        sums_of(rows.states, rows.label, labels),
        judges,
        WordRows(token_ids([*rows.token_ids]), rows.label, rows.hashes, np.arange(len(rows))),
        Unfitted(rows.heads, {0: votes}),
    )
    answers = in_order(
        EXITS,
        {
            "sweep": answers_of([*rows.heads]),
            "neighbours": answers_of([votes]),
            "fit": fitted.answers,
        },
    )
    entries = _entries(rows, answers, names)
    temperatures = fit_temperatures(entries)
    entries = calibrated(entries, temperatures)
    readings, near_fresh = _read(fitted.fits, index, rows, fresh, labels)
    of_fresh = _entries(fresh, _as_policies_take_it(readings, temperatures, None), names)
    return Built(
        Trial(entries, np.arange(len(rows)), near),
        Trial(entries, np.arange(len(fresh)), near_fresh, of_fresh),
        temperatures,
        readings,
        weigh_votes(fitted.record["pool"]),
    )


def fresh_under(built: Built, ratio: NDArray[np.float64]) -> Trial:
    """The fresh rows as a classification reads them that corrects readers which learnt shares.

    ratio: (labels,) a corpus's label shares divided by the database's.
    """
    found = _as_policies_take_it(built.readings, built.temperatures, ratio)
    changed = replace(built.fresh.tried, answers=found.answers, confidences=found.confidences)
    return replace(built.fresh, fresh=changed)


def _entries(rows: Rows, found: Answers, names: NDArray[np.str_]) -> Entries:
    labels = tuple(names.tolist())
    return Entries(EXITS, labels, rows.label, found.answers, found.confidences, rows.hashes)


def _read(
    fits: Fits, index: Index, rows: Rows, fresh: Rows, labels: int
) -> tuple[dict[Exit, Reading], Neighbours]:
    """What all exits say of fresh rows, in the exits' order, and these rows' neighbours."""
    near = index.search(fresh.states[0], NEIGHBOURS)
    here = _Arrays(fits, fresh, near, rows.label, labels)
    found: dict[Exit, Reading] = {}
    for depth in range(LAYERS + 1):
        here.enter(depth)
        found |= {e: e.of.read(here, slice(None)) for e in EXITS if e.depth == depth}
    return {e: found[e] for e in EXITS}, near


def _as_policies_take_it(
    readings: Mapping[Exit, Reading],
    temperatures: Mapping[str, float],
    ratio: NDArray[np.float64] | None,
) -> Answers:
    """What exits say under a corpus's label shares, as `raee.reading` gives it to policies."""
    answers, confidences = [], []
    for exit, found in readings.items():
        says = found.distributions
        if exit.of.learns_shares and ratio is not None:
            says = says * ratio
            says = says / says.sum(axis=1, keepdims=True)
        says = says.astype(np.float32)
        sure = says.max(axis=1) if found.confidences is None else found.confidences
        answers.append(says.argmax(axis=1).astype(np.uint16))
        confidences.append(warmed(sure, temperatures.get(str(exit), 1.0), says.shape[1]))
    return Answers(np.stack(answers, axis=1), np.stack(confidences, axis=1))


class _Arrays:
    """All that fitted readers ask for at a depth, from states that are all there."""

    depth: int

    def __init__(
        self, fits: Fits, rows: Rows, near: Neighbours, label: NDArray[np.uint16], labels: int
    ) -> None:
        self._fits, self._rows, self._near = fits, rows, near
        self.label, self.labels = label, labels
        adding = [r.name for r in readers() if r.adds_up and r.is_built]
        self._so_far: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in adding}

    def enter(self, depth: int) -> None:
        """Come to a depth."""
        self.depth = depth
        for name, kept in self._so_far.items():
            kept |= reader(name).pass_by(self)

    def token_ids(self, due: Due) -> TokenIds:
        """The rows' token ids."""
        return token_ids([*self._rows.token_ids[due]])

    def head(self, due: Due) -> NDArray[np.float32]:
        """(due, labels) the heads at this depth."""
        return self._rows.heads[self.depth, due]

    def neighbours(self, due: Due) -> Neighbours:
        """The rows' neighbours among the database's."""
        return self._near[due].first(PAPER_NEIGHBOURS)

    def wanted(self, name: str) -> range:
        """All depths."""
        return range(LAYERS + 1)

    def vectors(self, due: Due) -> NDArray[np.float32]:
        """(due, width) the states at this depth."""
        return self._rows.states[self.depth, due]

    def parameters(self, name: str) -> Any:
        """A fitted reader's parameters."""
        return self._fits.parameters[name]

    def so_far(self, name: str, due: Due) -> dict[str, NDArray[np.float64]]:
        """By name, (due, labels) what a reader has kept of the depths."""
        return {what: kept[due] for what, kept in self._so_far[name].items()}
