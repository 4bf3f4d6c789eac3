"""A build's shards, swept: what stands in which file, and back into arrays.

rows.parquet                 id, text_hash, text, label, sampled, new, fresh: all rows; fresh
                             is True where the row's states were read here
swept.parquet, taken.parquet text_hash, answers, confidences, key-0 ..: new rows, and those that
                             are taken over from the parent
states.parquet               text_hash, mean-00 ..: the states of the sampled rows
sums-mean.safetensors        sums of the states of the new rows, where there are any
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import safetensors.numpy
from numpy.typing import NDArray

from raee.probes import StateName
from raee.sums import Sums, sums_from
from storage.parquet import list_values, read_table
from storage.store import Folder
from tasks.build_plan import plan_of
from tasks.markers import numbered, output

ROWS, NEW, TAKEN, STATES = "rows.parquet", "swept.parquet", "taken.parquet", "states.parquet"


def shard_folder(work: str, number: int) -> Folder:
    """What a shard's sweep wrote."""
    return output(Folder(work), numbered("shard", number))


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
    folder = shard_folder(work, number)
    new = read_table(folder, ROWS, ["new"])["new"].to_numpy()
    found = [read_table(folder, name, columns) for name in (NEW, TAKEN)]
    result = []
    for column in columns:
        swept, taken = (list_values(table[column]) for table in found)
        values = np.zeros((len(new), swept.shape[1]), swept.dtype)
        values[new], values[~new] = swept, taken
        result.append(values)
    return result


def all_rows(work: str, column: str) -> NDArray:
    """A column of all shards' rows."""
    tables = [shard_table(work, n, [column]) for n in plan_of(work).numbers]
    return np.concatenate([t[column].to_numpy() for t in tables])


@lru_cache(maxsize=1)
def starts(work: str) -> NDArray[np.int64]:
    """The row at which each shard begins, and the number of all rows."""
    lengths = [len(shard_table(work, n, ["label"])) for n in plan_of(work).numbers]
    return np.cumsum([0, *lengths])
