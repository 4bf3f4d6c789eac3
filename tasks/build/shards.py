"""A build's shards, swept: what stands in which file, and back into arrays.

rows.parquet                 id, text_hash, text, label, sampled, new, fresh: all rows; fresh
                             is True where the row's states were read here
swept.parquet, taken.parquet text_hash, answers, confidences, tokens, key-0 ..: new rows, and those
                             that are taken over from the parent
states.parquet               text_hash, mean-00 ..: the states of the sampled rows
sums-mean.safetensors        sums of the states of the new rows, where there are any
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.numpy
from numpy.typing import NDArray

from raee.readers.states import StateName
from raee.readers.sums import Sums, sums_from
from raee.texts import TextHashes, Texts
from storage.parquet import list_values, read_table
from storage.store import Folder
from tasks.build.plan import plan_of
from tasks.build.takeover import Hashes, hashes_of
from tasks.entries import TOKENS
from tasks.markers import account_of, numbered, written
from tasks.rows import rejected_in

ROWS, NEW, TAKEN, STATES = "rows.parquet", "swept.parquet", "taken.parquet", "states.parquet"


@dataclass(frozen=True)
class Marks:
    """What is asked of all rows again and again, read once; rows are those of all shards."""

    label: NDArray[np.uint16]
    """(rows,)."""
    sampled: NDArray[np.bool_]
    """(rows,) True in the sample."""
    new: NDArray[np.bool_]
    """(rows,) False where the row's readings are taken over."""
    fresh: NDArray[np.bool_]
    """(rows,) True where the row's states were read in this build."""
    starts: NDArray[np.int64]
    """(shards + 1,) the row at which each shard begins, and the number of all rows."""
    hashes: TextHashes
    """(rows,) of their token ids."""

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


def shard_account(work: str, number: int) -> Mapping[str, Any]:
    """What a shard's sweep left.  Raises FileNotFoundError where it is not done."""
    return account_of(work, numbered("shard", number))


def rows_swept(work: str) -> int:
    """The rows of all shards: those of the plan without a few that only a tokenizer rejects."""
    return sum(shard_account(work, n)["rows"] for n in plan_of(work).numbers)


def rows_rejected(work: str) -> Counter[str]:
    """The rows of all shards that could not be used, by reason."""
    return rejected_in(shard_account(work, number) for number in plan_of(work).numbers)


def shard_folder(work: str, number: int) -> Folder:
    """What a shard's sweep wrote."""
    return Folder(work) / written(numbered("shard", number), shard_account(work, number))


def state_column(state: StateName, depth: int) -> str:
    """The column of states that holds one of them at a depth."""
    return f"{state}-{depth:02d}"


def sums_name(state: StateName) -> str:
    """The file of the sums of a state."""
    return f"sums-{state}.safetensors"


def read_sums_of(folder: Folder, state: StateName) -> Sums:
    """The sums that a step wrote."""
    return sums_from(safetensors.numpy.load(folder.read(sums_name(state))))


def shard_table(work: str, number: int, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard's rows, or some columns of them."""
    return read_table(shard_folder(work, number), ROWS, columns)


def shard_values(work: str, number: int, columns: Sequence[str]) -> list[NDArray]:
    """For each column of readings (rows, width), in the order of the shard's rows."""
    marks = marks_of(work)
    return _values(shard_folder(work, number), marks.new[marks.rows_of(number)], columns)


def _values(folder: Folder, new: NDArray[np.bool_], columns: Sequence[str]) -> list[NDArray]:
    """new: (rows,) which of the shard's rows were read, not taken over."""
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


def all_hashes(work: str) -> Hashes:
    """(rows,) the text hashes of all shards' rows."""
    numbers = plan_of(work).numbers
    return np.concatenate([hashes_of(shard_table(work, n, ["text_hash"])) for n in numbers])


@lru_cache(maxsize=1)
def marks_of(work: str) -> Marks:
    """The marks of all rows of a build whose shards are swept."""
    columns = ["label", "sampled", "new", "fresh"]
    numbers = plan_of(work).numbers
    tables = [shard_table(work, n, columns) for n in numbers]
    hashes = [
        _values(shard_folder(work, n), table["new"].to_numpy(), [TOKENS])[0]
        for n, table in zip(numbers, tables, strict=True)
    ]
    return Marks(
        **{c: np.concatenate([t[c].to_numpy() for t in tables]) for c in columns},
        starts=np.cumsum([0, *map(len, tables)]),
        hashes=np.concatenate(hashes),
    )
