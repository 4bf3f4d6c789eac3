"""A build's swept shards: which file holds what, and back into arrays.

`sweep_shard` writes them, all later steps of a build read them.

rows.parquet                 id, text_hash, text, label, sampled, worded, new, fresh: all rows;
                             n-grams are fitted on the worded ones; fresh is True if the row's
                             states were read here
swept.parquet, taken.parquet text_hash, answers, confidences, tokens, token_ids, key-0 ..: new rows,
                             and those whose readings are the parent's
states.parquet               text_hash, mean-00 .., head-00 ..: of the sampled rows, states and the
                             head's distributions
sums-mean.safetensors        sums of the states of the new rows, if there are any
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import safetensors.numpy
from numpy.typing import NDArray

from raee.readers.fit import StateName, WordRows
from raee.readers.ngrams import token_ids
from raee.readers.sums import Sums, sums_from
from raee.texts import TextHashes, Texts
from storage.parquet import list_values, read_table
from storage.store import Folder
from tasks.build.reuse import Hashes, hashes_of
from tasks.entries import TOKEN_IDS, TOKENS
from tasks.rows import rejected_in
from tasks.steps import Marker, StepRecord, Work

ROWS, NEW, TAKEN, STATES = "rows.parquet", "swept.parquet", "taken.parquet", "states.parquet"


class Swept(StepRecord):
    """The record of a shard's sweep."""

    new: int
    """Rows that were read here."""
    rejected: dict[str, int]
    """Rows that cannot be used, by reason."""
    shown: int = 0
    """Rows left out because the prompt shows their text as a demonstration."""


SWEEP = Marker("shard", Swept)


@dataclass(frozen=True)
class Marks:
    """The columns that many steps read of all shards' rows, in memory."""

    label: NDArray[np.uint16]
    """(rows,) indexes of the labels."""
    sampled: NDArray[np.bool_]
    """(rows,) True in the sample."""
    worded: NDArray[np.bool_]
    """(rows,) True if n-grams are fitted on the row."""
    new: NDArray[np.bool_]
    """(rows,) False if the row's readings are the parent's."""
    fresh: NDArray[np.bool_]
    """(rows,) True if the row's states were read in this build."""
    starts: NDArray[np.int64]
    """(shards + 1,) the row at which each shard begins, and the number of all rows."""
    hashes: TextHashes
    """(rows,) hashes of the texts' token ids."""

    @cached_property
    def texts(self) -> Texts:
        """Which rows have equal texts."""
        return Texts(self.hashes)

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """(shards + 1,) sampled rows before each shard, and all of them."""
        return np.r_[0, np.cumsum(self.sampled)][self.starts]

    def rows_of(self, number: int) -> slice:
        """The rows of a shard."""
        return slice(*self.starts[number : number + 2])


class SweptShards:
    """The shards of a build that are swept, read back."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.numbers = work.numbers

    def left(self, number: int) -> Swept:
        """The record of a shard's sweep.  Raises FileNotFoundError if it is not done."""
        return self._work.record(SWEEP, number)

    def folder(self, number: int) -> Folder:
        """The files of a shard's sweep.  Raises FileNotFoundError if it is not done."""
        return self._work.output(SWEEP, number)

    @property
    def rows(self) -> int:
        """How many rows all shards have: the plan's without a few that only a tokenizer rejects."""
        return sum(self.left(number).rows for number in self.numbers)

    @property
    def new(self) -> int:
        """How many rows of all shards were read in this build."""
        return sum(self.left(number).new for number in self.numbers)

    @property
    def shown(self) -> int:
        """How many rows of all shards are left out because the prompt shows their texts."""
        return sum(self.left(number).shown for number in self.numbers)

    @property
    def rejected(self) -> Counter[str]:
        """How many rows of all shards cannot be used, by reason."""
        return rejected_in(self.left(number).rejected for number in self.numbers)

    def table(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard's rows, or some columns of them."""
        return read_table(self.folder(number), ROWS, columns)

    def values(self, number: int, columns: Sequence[str]) -> list[NDArray]:
        """By column of readings, (rows, width) its values in the order of the shard's rows."""
        marks = self.marks
        return _values(self.folder(number), marks.new[marks.rows_of(number)], columns)

    def sums(self, number: int, state: StateName) -> Sums:
        """The sums of a state over a shard's new rows.  Raises FileNotFoundError if it has none."""
        return read_sums_of(self.folder(number), state)

    def states(self, state: StateName, depths: Sequence[int]) -> list[NDArray[np.float32]]:
        """By depth, (sampled rows, width) a state of all shards' sampled rows; read together."""
        return self._of_sampled([state_column(state, depth) for depth in depths])

    def states_and_heads(
        self, state: StateName, depths: Sequence[int], heads: int
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
        """The same, and (heads, sampled rows, labels) the head's distributions at all depths.

        They are read together: each read of a shard's file is a request or more to a server.
        """
        states = [state_column(state, depth) for depth in depths]
        found = self._of_sampled([*states, *(head_column(depth) for depth in range(heads))])
        return found[: len(states)], np.stack(found[len(states) :])

    def _of_sampled(self, columns: Sequence[str]) -> list[NDArray[np.float32]]:
        tables = [read_table(self.folder(n), STATES, columns) for n in self.numbers]
        return [np.concatenate([list_values(t[column]) for t in tables]) for column in columns]

    def words(self) -> WordRows:
        """The rows that n-grams are fitted on."""
        marks = self.marks
        found: list[NDArray[np.int32]] = []
        for number in self.numbers:
            (ids,) = self.values(number, [TOKEN_IDS])
            found += [*ids[marks.worded[marks.rows_of(number)]]]
        some = marks.worded
        judges = np.flatnonzero(marks.sampled[some])
        return WordRows(token_ids(found), marks.label[some], marks.hashes[some], judges)

    @cached_property
    def hashes(self) -> Hashes:
        """(rows,) the text hashes of all shards' rows."""
        return np.concatenate([hashes_of(self.table(n, ["text_hash"])) for n in self.numbers])

    @cached_property
    def marks(self) -> Marks:
        """The marks of all rows."""
        columns = ["label", "sampled", "worded", "new", "fresh"]
        tables = [self.table(n, columns) for n in self.numbers]
        hashes = [
            _values(self.folder(n), table["new"].to_numpy(), [TOKENS])[0]
            for n, table in zip(self.numbers, tables, strict=True)
        ]
        return Marks(
            **{c: np.concatenate([t[c].to_numpy() for t in tables]) for c in columns},
            starts=np.cumsum([0, *map(len, tables)]),
            hashes=np.concatenate(hashes),
        )


def state_column(state: StateName, depth: int) -> str:
    """The column of states that holds one of them at a depth."""
    return f"{state}-{depth:02d}"


def head_column(depth: int) -> str:
    """The column of states that holds the head's distributions at a depth."""
    return f"head-{depth:02d}"


def sums_name(state: StateName) -> str:
    """The file of the sums of a state."""
    return f"sums-{state}.safetensors"


def read_sums_of(folder: Folder, state: StateName) -> Sums:
    """The sums of a state that a step wrote.  Raises FileNotFoundError if it wrote none."""
    return sums_from(safetensors.numpy.load(folder.read(sums_name(state))))


def _values(folder: Folder, new: NDArray[np.bool_], columns: Sequence[str]) -> list[NDArray]:
    """new: (rows,) which of the shard's rows were read here."""
    if new.all() or not new.any():  # the other file is empty, and each read takes its time
        table = read_table(folder, NEW if new.all() else TAKEN, columns)
        return [list_values(table[column]) for column in columns]
    found = [read_table(folder, name, columns) for name in (NEW, TAKEN)]
    result = []
    for column in columns:
        swept, taken = (list_values(table[column]) for table in found)
        values = np.zeros((len(new), *swept.shape[1:]), swept.dtype)
        values[new], values[~new] = swept, taken
        result.append(values)
    return result
