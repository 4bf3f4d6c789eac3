"""Builds in memory: a database of some rows of a pool, and what it says of others."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from raee.probes import Fitted, Judges, LeftOut, averages, fit_probes, left_out_answers

from benchmarks.honesty.pools import LAYERS, Pool
from raee.calibration import calibrated, fit_temperatures
from raee.config import PAPER_NEIGHBOURS, RunnablePolicy
from raee.costs import Costs
from raee.exits import Answers, Entries, Neighbours, answers_of, exits_of
from raee.index import Index, new_index
from raee.neighbour_lists import nearest_other_texts
from raee.policies import POLICIES, Planned, layers_of
from raee.readers import vote
from raee.replay import Replayed, Trial, replay
from raee.sums import sums_of
from raee.texts import Texts, copies_of
from raee.tuning import NEIGHBOURS

COSTS = Costs(
    encode=8e-5,
    layer=9.5e-4,
    reads={
        "head": 2e-5,
        "vote": 6e-5,
        "probe": 2e-5,
        "probes": 2e-5,
        "de3": 3e-5,
        "logistic": 2e-5,
    },
)
"""As measured for MiniLM on two cores."""

EXITS = exits_of(LAYERS, (0,))

HELD_OUT = 2_500


@dataclass(frozen=True)
class Rows:
    """Rows that a database is made of, or that are asked of it."""

    label: NDArray[np.uint16]
    hashes: NDArray[np.uint64]
    answers: NDArray[np.uint16]
    """(rows, depths) of the heads."""
    confidences: NDArray[np.float32]
    states: NDArray[np.float32]
    """(depths, rows, width)."""

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, some: NDArray[np.int64] | slice) -> "Rows":
        return Rows(
            self.label[some],
            self.hashes[some],
            self.answers[some],
            self.confidences[some],
            self.states[:, some],
        )

    def __add__(self, more: "Rows") -> "Rows":
        return Rows(
            np.concatenate([self.label, more.label]),
            np.concatenate([self.hashes, more.hashes]),
            np.concatenate([self.answers, more.answers]),
            np.concatenate([self.confidences, more.confidences]),
            np.concatenate([self.states, more.states], axis=1),
        )


@dataclass(frozen=True)
class Built:
    """A database, and fresh rows as its exits answer them."""

    trial: Trial
    """Its own rows, each without its text."""
    fresh: Trial
    """With neighbours among the database's rows."""
    temperatures: dict[str, float]
    """Of heads and votes, by exit."""


def rows_of(pool: Pool, some: NDArray[np.int64]) -> Rows:
    """Some rows of a pool."""
    return Rows(pool.label, pool.hashes, pool.answers, pool.confidences, pool.states)[some]


def split(pool: Pool, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """So many rows of a pool, and up to HELD_OUT others."""
    order = np.random.default_rng((seed, size)).permutation(len(pool.label))
    return order[:size], order[size : size + HELD_OUT]


def build(rows: Rows, fresh: Rows, names: NDArray[np.str_]) -> Built:
    """Make a database of rows as a build does, and read fresh rows as a classification does."""
    labels, texts = len(names), Texts(rows.hashes)
    copies = copies_of(rows.hashes, rows.hashes, rows.label, labels)
    judges = Judges(rows.states.__getitem__, rows.label, rows.hashes, copies)
    fitted = fit_probes("mean", sums_of(rows.states, rows.label, labels), judges)
    index = new_index(rows.states.shape[2])
    index.add(rows.states[0])
    found = nearest_other_texts(index, rows.states[0], NEIGHBOURS, rows.hashes, texts)
    near = replace(found, own=np.arange(len(rows)))
    voted = answers_of([vote(near.first(PAPER_NEIGHBOURS), rows.label, labels)])
    entries = _entries(rows, [voted, left_out_answers(fitted.left_out)], names)
    temperatures = fit_temperatures(entries)
    of_fresh, near_fresh = _read(fitted, index, rows, fresh, labels)
    return Built(
        Trial(calibrated(entries, temperatures), np.arange(len(rows)), near),
        Trial(
            calibrated(_entries(fresh, of_fresh, names), temperatures),
            np.arange(len(fresh)),
            near_fresh,
        ),
        temperatures,
    )


def run_fresh(policy: RunnablePolicy, built: Built) -> Replayed:
    """What a policy does with the fresh rows."""
    kind, entries = POLICIES[policy.name], built.trial.entries
    if not isinstance(kind, Planned) or not kind.neighbours(policy):
        return replay(policy, built.fresh, COSTS)
    exits = kind.plan(policy, entries, built.fresh.neighbours)
    answers = built.fresh.entries.answers[np.arange(len(exits)), exits]
    layers = layers_of(policy, entries, exits)
    return Replayed(exits, answers, layers, COSTS.walked(layers))


def _entries(rows: Rows, others: list[Answers], names: NDArray[np.str_]) -> Entries:
    return Entries(
        EXITS,
        tuple(names.tolist()),
        rows.label,
        np.column_stack([rows.answers, *(o.answers for o in others)]),
        np.column_stack([rows.confidences, *(o.confidences for o in others)]).astype(np.float32),
        rows.hashes,
    )


def _read(
    fitted: Fitted, index: Index, rows: Rows, fresh: Rows, labels: int
) -> tuple[list[Answers], Neighbours]:
    """What the votes and the fitted exits say of fresh rows, and their neighbours."""
    probes, states = fitted.probes, fresh.states
    near = index.search(states[0], NEIGHBOURS)
    voted = answers_of([vote(near.first(PAPER_NEIGHBOURS), rows.label, labels)])
    logs = np.stack([m.log_probabilities(s) for m, s in zip(probes.maps, states, strict=True)])
    logs = np.maximum(logs, -1e30)
    running = probes.average_temperatures[:, None, None] * averages(logs)
    running -= np.logaddexp.reduce(running, axis=2, keepdims=True)
    distances = []
    for means, here in zip(probes.means, states.astype(np.float64), strict=True):
        squared = 1 - 2 * here @ means.T + np.square(means).sum(axis=1)
        distances.append(np.where(means.any(axis=1), np.sqrt(np.maximum(squared, 0)), np.inf))
    last = np.maximum(probes.regression.log_probabilities(states[-1]), -1e30)
    left_out = LeftOut(logs, running, np.stack(distances), last)
    return [voted, left_out_answers(left_out)], near
