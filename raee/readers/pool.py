"""`pool`: all that has been read up to a depth, as a weighted product of its distributions.

A logarithmic opinion pool (Genest and Zidek, Statistical Science 1, 1986).  Its experts at depth l
are the n-grams, the votes at the keys' depths up to l, the model's own head at l, and the probes up
to l:

    log P(c) = sum_e a_e log P_e(c) + b_c + constant

The weights a_e are not negative; they and the labels' offsets b_c are those under which labels are
likeliest without the text (`raee.readers.weights`).  All experts have learnt the labels' shares,
which a product counts several times: that is what the offsets are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from raee.answers import answers_of
from raee.drawn import evenly
from raee.readers.fit import Fit
from raee.readers.head import READER as HEAD
from raee.readers.linear import Array
from raee.readers.probe import READER as PROBE
from raee.readers.probe import ProbeFitter
from raee.readers.reader import Due, Here, Look, Reader, Reading
from raee.readers.vote import READER as VOTE
from raee.readers.weights import fit_weights
from raee.readers.words import READER as WORDS
from raee.readers.words import WordsFitter
from raee.statistics.paired import better_beyond_noise, worse_p_value

if TYPE_CHECKING:
    from raee.readers.fit import Fitting

_LEAST = -20.0
"""Log-probability below which an expert's is not taken: one expert may not rule a label out."""

_VOTE_SHARE = 0.02
"""Share of a vote that goes to all labels alike: a label that no neighbour has is not ruled out."""

_FITTED_ON, _FITTED_ON_LEAST, _NUMBERS = 5_000, 500, 2**24
"""Rows that weights are fitted on, at most and, if there are many labels, at least: as many as keep
the experts' logs below so many numbers."""

_LEVEL = 0.05
"""One-sided level of the tests that decide what is read."""


@dataclass(frozen=True)
class Pools:
    """The weights at every depth."""

    words: Array
    """(depths,)."""
    heads: Array
    """(depths,)."""
    votes: Array
    """(depths, keys) by the keys in the order of their depths."""
    probes: Array
    """(depths, depths) of the pool at the first depth for the probe at the second."""
    offsets: Array
    """(depths, labels)."""
    key_depths: NDArray[np.int64]
    """(keys,)."""


class Pool(Reader):
    """The weighted product of everything read up to a depth."""

    name = "pool"
    clause = "the pool of all that was read"
    description = "n-grams, probes, votes and heads up to a depth, as a weighted product"
    look = Look("c2", "o", "-")
    adds_up = True
    costs_as = (PROBE.name, HEAD.name)

    def fitter(self, fitting: Fitting) -> PoolFitter:
        """Weighs what the other fits have found."""
        return PoolFitter(fitting)

    def arrays(self, parameters: Pools) -> dict[str, NDArray[Any]]:
        """The weights."""
        return {
            "pool_words": parameters.words,
            "pool_heads": parameters.heads,
            "pool_votes": parameters.votes,
            "pool_probes": parameters.probes,
            "pool_offsets": parameters.offsets,
            "pool_key_depths": parameters.key_depths,
        }

    def from_arrays(self, arrays: dict[str, NDArray[Any]]) -> Pools:
        """The weights."""
        return Pools(
            arrays["pool_words"],
            arrays["pool_heads"],
            arrays["pool_votes"],
            arrays["pool_probes"],
            arrays["pool_offsets"],
            arrays["pool_key_depths"],
        )

    def asks_once(self, parameters: Pools) -> list[str]:
        """The n-grams, and the votes if they count."""
        return [WORDS.name, *([VOTE.name] if parameters.votes.any() else [])]

    def pass_by(self, here: Here) -> dict[str, Array]:
        """By expert, (present rows, labels) the logs at this depth that a pool from here on weighs.

        The n-grams are among them in any case.
        """
        pools: Pools = here.parameters(self.name)
        later = [depth for depth in here.wanted(self.name) if depth >= here.depth]
        found = {}
        if here.depth == 0:
            found[WORDS.name] = bounded(WORDS.logs(here, slice(None)))
        for key, depth in enumerate(pools.key_depths):
            if depth == here.depth and pools.votes[later, key].any():
                votes = VOTE.read(here, slice(None)).distributions
                found[f"{VOTE.name}@{depth}"] = vote_logs(votes)
        if pools.probes[later, here.depth].any():
            found[f"{PROBE.name}@{here.depth}"] = bounded(PROBE.logs(here, slice(None)))
        return found

    def read(self, here: Here, due: Due) -> Reading:
        """The pool at this depth."""
        pools: Pools = here.parameters(self.name)
        known = here.so_far(self.name, due)
        total = np.tile(pools.offsets[here.depth], (len(known[WORDS.name]), 1))
        for expert, weight in weights_at(pools, here.depth).items():
            logs = head_logs(here.head(due)) if expert == HEAD.name else known[expert]
            total += weight * logs
        return Reading(softmax(total, axis=1))


def weights_at(pools: Pools, depth: int) -> dict[str, float]:
    """By expert, the weight at a depth, if it is not 0: `words`, `vote@0`, `probe@1`, `head`."""
    found = {WORDS.name: pools.words[depth], HEAD.name: pools.heads[depth]}
    for key, weight in zip(pools.key_depths, pools.votes[depth], strict=True):
        found[f"{VOTE.name}@{key}"] = weight
    for below in range(depth + 1):
        found[f"{PROBE.name}@{below}"] = pools.probes[depth, below]
    return {expert: float(weight) for expert, weight in found.items() if weight > 0}


def weigh_votes(record: Sequence[Mapping[str, float]]) -> bool:
    """Whether a pool weighs votes.  record: the manifest's, by depth the weights of experts."""
    return any(expert.startswith(f"{VOTE.name}@") for weights in record for expert in weights)


def bounded(logs: Array) -> Array:
    """Log-probabilities, none of which rules a label out."""
    return np.maximum(logs, _LEAST)


def head_logs(distributions: NDArray[np.floating]) -> Array:
    """(rows, labels) logarithms of a head's distributions."""
    return np.log(np.maximum(distributions.astype(np.float64), np.exp(_LEAST)))


def vote_logs(votes: NDArray[np.floating]) -> Array:
    """(rows, labels) logarithms of votes, of which some goes to all labels alike."""
    return np.log((1 - _VOTE_SHARE) * votes.astype(np.float64) + _VOTE_SHARE / votes.shape[1])


@dataclass(frozen=True)
class _Weighed:
    """A pool at a depth."""

    weights: dict[str, float]
    """By expert."""
    offsets: Array
    logs: Array
    """(rows, labels) without the text, by weights that were fitted without it, too."""


class PoolFitter:
    """The fit of the weights."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        fitting.plan(fitting.sums.depths)
        self._weighed: dict[tuple[int, tuple[str, ...]], _Weighed] = {}

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Nothing: the other fits see the states."""

    def fit(self) -> Fit:
        """The weights at every depth, and the answers without the text."""
        depths, every = self._fitting.sums.depths, self._reads_every_depth
        pools = []
        for depth in range(depths):
            pools.append(self._at(depth, self._experts(depth, every, self._votes)))
            self._fitting.passed()
        found = Pools(
            words=np.array([p.weights[WORDS.name] for p in pools]),
            heads=np.array([p.weights[HEAD.name] for p in pools]),
            votes=np.array(
                [[p.weights.get(f"{VOTE.name}@{k}", 0.0) for k in self._keys] for p in pools]
            ).reshape(depths, len(self._keys)),
            probes=np.array(
                [[p.weights.get(f"{PROBE.name}@{d}", 0.0) for d in range(depths)] for p in pools]
            ),
            offsets=np.stack([p.offsets for p in pools]),
            key_depths=np.array(self._keys, np.int64),
        )
        record = {
            "pool": [
                {expert: round(weight, 4) for expert, weight in weights_at(found, depth).items()}
                for depth in range(depths)
            ]
        }
        return Fit(found, answers_of([np.exp(p.logs) for p in pools]), record)

    @property
    def _keys(self) -> list[int]:
        return sorted(self._fitting.unfitted.votes)

    @cached_property
    def _reads_every_depth(self) -> bool:
        """Whether labels are likelier by more than noise if probes are read at every depth.

        If not, every second is read: each reading costs time.
        """
        deepest, label = self._fitting.sums.depths - 1, self._fitting.judges.label
        rows = np.arange(len(label))
        every, second = (
            self._at(deepest, self._experts(deepest, each, [])).logs[rows, label]
            for each in (True, False)
        )
        once = self._fitting.judges.texts.first_rows
        return worse_p_value(second[once], every[once]) < _LEVEL

    @cached_property
    def _votes(self) -> list[int]:
        """The keys' depths at which votes are an expert: a search must be worth its time.

        With the vote, the pool at the key's depth must be right more often beyond noise.
        """
        label, once = self._fitting.judges.label, self._fitting.judges.texts.first_rows
        found = []
        for depth in self._keys:
            without, with_it = (
                self._at(depth, self._experts(depth, True, votes)).logs.argmax(axis=1) == label
                for votes in ([], [depth])
            )
            if better_beyond_noise(with_it[once], without[once], _LEVEL):
                found.append(depth)
        return found

    def _experts(self, depth: int, every: bool, votes: Sequence[int]) -> list[str]:
        """The experts of a pool.  every: whether it reads all depths, or every second."""
        read = [d for d in range(depth + 1) if every or d % 2 == 0 or d == depth]
        asked = [f"{VOTE.name}@{key}" for key in votes if key <= depth]
        return [WORDS.name, HEAD.name, *asked, *(f"{PROBE.name}@{d}" for d in read)]

    def _at(self, depth: int, names: Sequence[str]) -> _Weighed:
        """The pool of some experts at a depth; most that are tried are those that are taken."""
        asked = depth, tuple(names)
        if asked not in self._weighed:
            self._weighed[asked] = self._weigh(depth, names)
        return self._weighed[asked]

    def _weigh(self, depth: int, names: Sequence[str]) -> _Weighed:
        label = self._fitting.judges.label
        experts = np.stack([self._logs(name, depth) for name in names])
        alike = np.array([name.startswith(PROBE.name) for name in names])
        some = self._fitted_on(experts)
        whole = fit_weights(experts[:, some], label[some], alike)
        logs = np.zeros(experts.shape[1:])
        for train, held in self._fitting.folds:
            rows = train[np.isin(train, some, assume_unique=True)]
            without = fit_weights(experts[:, rows], label[rows], alike, whole)
            logs[held] = without.logs(experts[:, held])
        weights = dict(zip(names, whole.experts.tolist(), strict=True))
        return _Weighed(weights, whole.offsets, logs)

    def _fitted_on(self, experts: NDArray[np.floating]) -> NDArray[np.int64]:
        """Rows that weights are fitted on: there are few weights, so some thousands will do."""
        number, rows, labels = experts.shape
        most = min(rows, _FITTED_ON, max(_FITTED_ON_LEAST, _NUMBERS // (number * labels)))
        return evenly(rows, most)

    def _logs(self, name: str, depth: int) -> Array:
        """(rows, labels) what an expert of the pool at a depth says without the text."""
        fitting = self._fitting
        reader, _, at = name.partition("@")
        if reader == HEAD.name:
            return head_logs(fitting.unfitted.heads[depth])
        if reader == VOTE.name:
            return vote_logs(fitting.unfitted.votes[int(at)])
        if reader == WORDS.name:
            words = fitting.fitter(WORDS.name)
            assert isinstance(words, WordsFitter)
            return bounded(words.log_probabilities)
        probe = fitting.fitter(PROBE.name)
        assert isinstance(probe, ProbeFitter)
        return bounded(probe.log_probabilities[int(at)])


READER = Pool()
