"""Reading a batch's exits on its way through the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.answers import Neighbours
from raee.config import KeySpec
from raee.exits import Entries, Exit
from raee.model.backbones import Backbone
from raee.model.batches import Batch, Encoded
from raee.model.prompts import Prompt
from raee.neighbours.index import Index
from raee.readers.fit import StateName
from raee.readers.fitting import Fits
from raee.readers.head import HeadReader
from raee.readers.ngrams import TokenIds, token_ids
from raee.readers.reader import Array, Due, Reading
from raee.readers.states import probe_state
from raee.readers.table import reader
from raee.statistics.calibration import warmed
from raee.statistics.far import Far, p_values


@dataclass(frozen=True)
class Database:
    """A version in memory, with the models that it was built with."""

    backbone: Backbone
    prompt: Prompt
    head: HeadReader
    key: KeySpec
    retriever: Backbone | None
    """The key's model if that is not the backbone."""
    indexes: tuple[Index, ...]
    """One index a key, in the order of the key's depths."""
    entries: Entries
    vote_k: int
    """Neighbours that vote."""
    fits: Fits | None = None
    """The fitted readers; None in a version that was built without."""
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """By exit, the temperature that calibrates the confidences of heads and votes."""
    nearest: NDArray[np.float32] | None = None
    """(rows,) the squared L2 distance of each row to its nearest neighbour by the first key."""
    far: Far | None = None
    """What says how unlike the database's a row is, at the first key's depth; before format 4 the
    distance to the nearest row alone does."""

    @property
    def index(self) -> Index:
        """The index that plans ask."""
        return self.indexes[0]

    def parameters(self, name: str) -> Any:
        """A fitted reader's parameters; only a version that has been fitted has exits of it."""
        assert self.fits is not None, "a version without a fit has no exits of it"
        return self.fits.parameters[name]


@dataclass(frozen=True)
class Read:
    """What an exit says of some rows, as policies and predictions take it."""

    distributions: NDArray[np.float32]
    """(rows, labels)."""
    confidences: NDArray[np.float32]
    """(rows,) how sure it is, from 0 to 1: the answer's probability, calibrated; a reader that
    repeats another's answers has a confidence of its own in them."""


class TextReader:
    """Reads exits before the walk, of rows that are in no batch yet."""

    def __init__(
        self, database: Database, encoded: Encoded, ratio: NDArray[np.float64] | None = None
    ) -> None:
        """Begin with the rows of a classification.  ratio: as in `BatchReader`."""
        self._database, self._own_ids, self._ratio = database, encoded.own_ids, ratio
        self._rows = np.arange(len(encoded.token_ids))

    def read(self, position: int, rows: NDArray[np.int64]) -> Read:
        """Read the exit at a position, which must be before the walk, of some of the rows."""
        exit = self._database.entries.exits[position]
        self._rows = rows
        found = exit.of.read_early(self, slice(None))
        return _as_policies_take_it(self._database, exit, found, self._ratio)

    def token_ids(self, due: Due) -> TokenIds:
        """The rows' token ids."""
        return token_ids([self._own_ids[i] for i in self._rows[due]])

    def parameters(self, name: str) -> Any:
        """A fitted reader's parameters."""
        return self._database.parameters(name)


class BatchReader:
    """Reads the exits of one batch: `enter` every depth, then `read` exits there.

    It is what readers find at the depth that it has come to (`raee.readers.reader.Here`).
    """

    depth: int

    def __init__(
        self,
        database: Database,
        batch: Batch,
        wanted: Sequence[int],
        ratio: NDArray[np.float64] | None = None,
    ) -> None:
        """Begin a batch.

        wanted: positions of the exits that may be read.  ratio: (labels,) the corpus's label
        shares divided by the database's, for readers that learnt the latter.
        """
        self._database, self._batch, self._ratio = database, batch, ratio
        self.label, self.labels = database.entries.label, len(database.entries.labels)
        self._wanted: dict[str, list[int]] = {}
        for exit in (database.entries.exits[i] for i in sorted(wanted)):
            if exit.of.adds_up:
                self._wanted.setdefault(exit.reader, []).append(exit.depth)
        self._so_far: dict[str, dict[str, Array]] = {name: {} for name in self._wanted}
        self._neighbours: dict[int, Neighbours] = {}
        self._vectors: dict[StateName, Tensor] = {}

    def enter(self, depth: int, states: Tensor, rows: Tensor) -> None:
        """Come to a depth with the rows that are still there.

        states: (present rows, tokens, hidden); rows: (present rows,) positions in the batch, on the
        CPU.
        """
        self.depth, self._states, self._rows = depth, states, rows
        self._present = rows.numpy()
        self._vectors.clear()
        for name, depths in self._wanted.items():
            for what, found in reader(name).pass_by(self).items() if depth <= depths[-1] else ():
                kept = np.zeros((len(self._batch.rows), self.labels))
                kept[self._present] = found
                self._so_far[name][what] = kept

    def nearest(self, k: int, known: Neighbours | None = None) -> Neighbours:
        """The nearest neighbours of the present rows by the key at this depth, or known ones.

        There are k of each row, or as many as vote if that is more.
        """
        database = self._database
        k = max(k, database.vote_k)
        before = self._neighbours.get(self.depth)
        if known is None and before is not None and before.rows.shape[1] >= k:
            return before[self._present]
        if known is None:
            keys = self._whole("mean").cpu().numpy()
            known = database.indexes[database.key.depths.index(self.depth)].search(keys, k)
        size = (len(self._batch.rows), known.rows.shape[1])
        found = Neighbours(np.full(size, -1, np.int64), np.full(size, np.inf, np.float32))
        found.rows[self._present], found.distances[self._present] = known.rows, known.distances
        self._neighbours[self.depth] = found
        return known

    def unlike(self, far: Far, found: Neighbours) -> NDArray[np.float32]:
        """(present rows,) p-value of each row being drawn as the database's rows were.

        found: the rows' neighbours by the first key.
        """
        states = self._whole("mean").cpu().numpy()
        return p_values(far, states, found.distances[:, 0]).astype(np.float32)

    def read(self, position: int, due: Due = slice(None)) -> Read:
        """Read the exit at a position among the entries' exits; it must be at this depth.

        due: positions among the present rows of those that are read; by default all.
        """
        if not isinstance(due, slice) and len(due) == len(self._present):
            due = slice(None)
        exit = self._database.entries.exits[position]
        return _as_policies_take_it(self._database, exit, exit.of.read(self, due), self._ratio)

    def token_ids(self, due: Due) -> TokenIds:
        """The rows' token ids."""
        return token_ids([self._batch.token_ids[i] for i in self._present[due]])

    def head(self, due: Due) -> NDArray[np.float32]:
        """(due, labels) the distributions of the model's own head."""
        shown = [self._states, *self._tokens]
        if not isinstance(due, slice):
            chosen = torch.as_tensor(due, device=self._states.device)
            shown = [each[chosen] for each in shown]
        return self._database.head(self.depth, *shown).cpu().numpy()

    def neighbours(self, due: Due) -> Neighbours:
        """The neighbours that vote, (due, k), by the key at this depth."""
        if self.depth not in self._neighbours:
            self.nearest(self._database.vote_k)
        found = self._neighbours[self.depth][self._present[due]]
        return found.first(self._database.vote_k)

    def vectors(self, due: Due) -> NDArray[np.float32]:
        """(due, width) unit vectors: the state that readers are fitted on."""
        return self._whole(self._fits.state).cpu().numpy()[due]

    def parameters(self, name: str) -> Any:
        """A fitted reader's parameters."""
        return self._database.parameters(name)

    def wanted(self, name: str) -> Sequence[int]:
        """Depths at which a reader may be asked of this batch, ascending."""
        return self._wanted[name]

    def so_far(self, name: str, due: Due) -> Mapping[str, Array]:
        """By name, (due, labels) all that a reader has kept at the depths up to this one."""
        rows = self._present[due]
        return {what: kept[rows] for what, kept in self._so_far[name].items()}

    @property
    def _fits(self) -> Fits:
        assert self._database.fits is not None, "a version without a fit has no exits of it"
        return self._database.fits

    def _whole(self, state: StateName) -> Tensor:
        """The vectors of all present rows; made once a depth, whoever asks."""
        if state not in self._vectors:
            self._vectors[state] = probe_state(
                self._database.backbone,
                state,
                self.depth,
                self._states,
                *self._tokens,
            )
        return self._vectors[state]

    @property
    def _tokens(self) -> tuple[Tensor, Tensor]:
        """Which of the tokens shown are the present rows' own, and where they are read."""
        own, positions = self._batch.own, self._batch.answer_positions
        if len(self._rows) < len(own):
            own, positions = own[self._rows], positions[self._rows]
        return self._database.backbone.tokens_at(self.depth, own, positions)


def _as_policies_take_it(
    database: Database, exit: Exit, found: Reading, ratio: NDArray[np.float64] | None
) -> Read:
    """What an exit says, under the corpus's label shares, and as sure as it is worth."""
    distributions = found.distributions
    if exit.of.learns_shares and ratio is not None:  # Saerens et al., 2002
        distributions = distributions * ratio
        distributions = distributions / distributions.sum(axis=1, keepdims=True)
    distributions = distributions.astype(np.float32)
    sure = distributions.max(axis=1) if found.confidences is None else found.confidences
    if exit.of.is_tempered:
        labels = distributions.shape[1]
        sure = warmed(sure, database.temperatures.get(str(exit), 1.0), labels)
    return Read(distributions, sure)
