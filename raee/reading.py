"""Reading a batch's exits on its way through the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.backbones import Backbone
from raee.batches import Batch
from raee.calibration import warmed
from raee.config import KeySpec
from raee.exits import Entries, Exit, Neighbours
from raee.far import Far, p_values
from raee.index import Index
from raee.probes import Linear, Probes, StateName, edr
from raee.prompts import Prompt
from raee.readers import HeadReader, probe_state, vote

_NO_PROBABILITY = -1e30
"""Logarithm of the probability of a label that a fit has not seen: finite, so that it can be
averaged, and 0 after a softmax."""


@dataclass(frozen=True)
class Database:
    """A version in memory, with the models that it was built with."""

    backbone: Backbone
    prompt: Prompt
    head: HeadReader
    key: KeySpec
    retriever: Backbone | None
    """The key's model where that is not the backbone."""
    indexes: tuple[Index, ...]
    """One a key, in the order of the key's depths."""
    entries: Entries
    vote_k: int
    """Neighbours that vote."""
    probes: Probes | None = None
    """None in a version that was built without."""
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """Of heads and votes, by exit: what their confidences are calibrated with."""
    nearest: NDArray[np.float32] | None = None
    """(rows,) of each row the squared L2 distance to its nearest neighbour by the first key."""
    far: Far | None = None
    """What says how unlike the database's a row is, at the first key's depth; before format 4 the
    distance to the nearest row alone does."""

    @property
    def index(self) -> Index:
        """The index that plans ask."""
        return self.indexes[0]


@dataclass(frozen=True)
class Reading:
    """What an exit says of some rows."""

    distributions: NDArray[np.float32]
    """(rows, labels)."""
    confidences: NDArray[np.float32]
    """(rows,) how sure it is: the answer's probability, calibrated; for `de3` one less its
    indicator."""


class BatchReader:
    """Reads the exits of one batch: `enter` every depth, then `read` exits there."""

    def __init__(
        self,
        database: Database,
        batch: Batch,
        wanted: Sequence[int],
        ratio: NDArray[np.float64] | None = None,
    ) -> None:
        """Begin a batch.

        wanted: places of the exits that may be read.  ratio: (labels,) of the corpus's label
        shares to the database's, for readers that learnt the latter.
        """
        self._database, self._batch, self._ratio = database, batch, ratio
        exits = database.entries.exits
        averaged = [exits[i].depth for i in wanted if exits[i].reader == "probes"]
        self._averaged = max(averaged, default=-1)
        self._sum = np.zeros((len(batch.rows), len(database.entries.labels)))
        self._neighbours: dict[int, Neighbours] = {}
        self._vectors: dict[StateName, Tensor] = {}

    def enter(self, depth: int, states: Tensor, rows: Tensor) -> None:
        """Come to a depth with the states of the rows that are still there."""
        self._depth, self._states, self._rows = depth, states, rows
        self._present = rows.cpu().numpy()
        self._vectors.clear()
        if depth <= self._averaged:
            self._sum[self._present] += self._probe_logs(slice(None))

    def nearest(self, k: int, known: Neighbours | None = None) -> Neighbours:
        """The nearest neighbours of the present rows by the key at this depth, or known ones.

        They are k, or as many as vote where that is more.
        """
        database = self._database
        if known is None:
            keys = self._whole("mean").cpu().numpy()
            index = database.indexes[database.key.depths.index(self._depth)]
            known = index.search(keys, max(k, database.vote_k))
        size = (len(self._batch.rows), known.rows.shape[1])
        found = Neighbours(np.full(size, -1, np.int64), np.full(size, np.inf, np.float32))
        found.rows[self._present], found.distances[self._present] = known.rows, known.distances
        self._neighbours[self._depth] = found
        return known

    def unlike(self, far: Far, found: Neighbours) -> NDArray[np.float32]:
        """(present rows,) p-value of each, drawn as the database's rows were or not.

        found: their neighbours by the first key.
        """
        states = self._whole("mean").cpu().numpy()
        return p_values(far, states, found.distances[:, 0]).astype(np.float32)

    def read(self, place: int, due: NDArray[np.int64] | slice = slice(None)) -> Reading:
        """An exit at this depth.

        due: places among the present rows of those that are read; by default all.
        """
        if not isinstance(due, slice) and len(due) == len(self._present):
            due = slice(None)
        database, exit = self._database, self._database.entries.exits[place]
        if exit.reader == "head":
            return self._tempered(exit, self._head(due))
        if exit.reader == "vote":
            return self._tempered(exit, self._prior(self._vote(due)))
        probes = database.probes
        assert probes is not None, "a version without probes has no exits of theirs"
        if exit.reader == "logistic":
            return _sure(self._prior(_softmax(self._logs(probes.regression, due))))
        if exit.reader == "probes":
            running = self._sum[self._present[due]] / (exit.depth + 1)
            warm = probes.average_temperatures[exit.depth] * running
            return _sure(self._prior(_softmax(warm)))
        distributions = _softmax(self._probe_logs(due))
        if exit.reader == "probe":
            return _sure(self._prior(distributions))
        means = probes.means[exit.depth]
        vectors = self._read_by_probes(due).astype(np.float64)
        squared = 1 - 2 * vectors @ means.T + np.square(means).sum(axis=1)
        distances = np.sqrt(np.maximum(squared, 0))
        distances[:, ~means.any(axis=1)] = np.inf
        indicator = edr(distributions, distances)
        return Reading(self._prior(distributions), (1 - indicator).astype(np.float32))

    def _tempered(self, exit: Exit, distributions: NDArray[np.float32]) -> Reading:
        factor = self._database.temperatures.get(str(exit), 1.0)
        sure = warmed(distributions.max(axis=1), factor, distributions.shape[1])
        return Reading(distributions, sure)

    def _head(self, due: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        rows, states = self._rows, self._states
        if not isinstance(due, slice):
            chosen = torch.as_tensor(due, device=rows.device)
            rows, states = rows[chosen], states[chosen]
        attention = self._batch.inputs["attention_mask"][rows]
        positions = self._batch.mask_positions[rows]
        return self._database.head(self._depth, states, attention, positions).cpu().numpy()

    def _vote(self, due: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        database = self._database
        if self._depth not in self._neighbours:
            self.nearest(database.vote_k)
        found = self._neighbours[self._depth][self._present[due]].first(database.vote_k)
        return vote(found, database.entries.label, len(database.entries.labels))

    def _probe_logs(self, due: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        assert self._database.probes is not None, "a version without probes reads none"
        return self._logs(self._database.probes.maps[self._depth], due)

    def _logs(self, linear: Linear, due: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        return np.maximum(linear.log_probabilities(self._read_by_probes(due)), _NO_PROBABILITY)

    def _read_by_probes(self, due: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        assert self._database.probes is not None, "a version without probes reads none"
        return self._whole(self._database.probes.state).cpu().numpy()[due]

    def _whole(self, state: StateName) -> Tensor:
        """The vectors of all present rows; made once a depth, whoever asks."""
        if state not in self._vectors:
            attention = self._batch.inputs["attention_mask"][self._rows]
            positions = self._batch.mask_positions[self._rows]
            self._vectors[state] = probe_state(
                self._database.backbone, state, self._states, attention, positions
            )
        return self._vectors[state]

    def _prior(self, distributions: NDArray[np.floating]) -> NDArray[np.float32]:
        """Distributions under the corpus's label shares (Saerens et al., 2002)."""
        if self._ratio is not None:
            distributions = distributions * self._ratio
            distributions = distributions / distributions.sum(axis=1, keepdims=True)
        return distributions.astype(np.float32)


def _sure(distributions: NDArray[np.float32]) -> Reading:
    return Reading(distributions, distributions.max(axis=1))


def _softmax(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
