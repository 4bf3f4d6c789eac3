"""Entries as Parquet tables, and back into arrays."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raee.answers import Answers, Neighbours
from raee.errors import InputError
from raee.exits import Entries, Exit
from raee.texts import TextHashes, text_hashes
from storage.checked import FileRecord
from storage.manifest import FIRST_BY_TEXT, FORMAT
from storage.parquet import (
    list_column,
    list_values,
    open_table,
    part_name,
    take_rows,
    write_table,
)
from storage.store import Folder
from storage.version_files import VersionFiles

TOKENS = "tokens"
"""The column of the hash of a text's token ids."""

TOKEN_IDS = "token_ids"
"""The column of readings that holds a text's token ids."""

_KEPT = ("id", "text_hash", "text", "label")

_GROUP_ROWS = 2_000
"""Entries in a row group: so many are read at once to see one of them."""


def key_column(number: int) -> str:
    """The column of readings that holds a key."""
    return f"key-{number}"


def entries_table(
    rows: pa.Table, hashes: TextHashes, answers: Answers, nearest: NDArray[np.float32]
) -> pa.Table:
    """A shard's entries: its rows, and the answers of all exits for them.

    hashes: (rows,) of their token ids.  answers: (rows, exits).  nearest: (rows,) squared L2
    distance to the nearest row of another text.
    """
    return pa.table(
        {name: rows[name] for name in _KEPT if name in rows.column_names}
        | {
            "answers": list_column(answers.answers),
            "confidences": list_column(answers.confidences),
            "nearest_distance": pa.array(nearest, pa.float32()),
            TOKENS: pa.array(hashes, pa.uint64()),
        }
    )


def write_entries(folder: Folder, number: int, table: pa.Table) -> FileRecord:
    """Write a part of a version's entries, of which `read_rows` reads some."""
    return write_table(folder, f"entries/{part_name(number)}", table, _GROUP_ROWS)


def lists_path(number: int) -> str:
    """The path in a version of a part's lists of neighbours."""
    return f"neighbours/{part_name(number)}"


def lists_table(found: Sequence[Neighbours]) -> pa.Table:
    """The neighbours of a shard's rows, by each key: columns rows-0, distances-0, rows-1 ..

    found: by key, (rows, k) each.
    """
    columns = {}
    for key, neighbours in enumerate(found):
        columns[f"rows-{key}"] = list_column(neighbours.rows)
        columns[f"distances-{key}"] = list_column(neighbours.distances)
    return pa.table(columns)


ReadColumns = Callable[[str, Sequence[str]], pa.Table]
"""Reads some columns of a table by its path: `partial(read_table, folder)`, or the like."""


def read_entries(
    read: ReadColumns,
    paths: Sequence[str],
    exits: tuple[Exit, ...],
    labels: Sequence[str],
    version_format: int = FORMAT,
) -> Entries:
    """The parts of a version as one set of arrays; ids and texts stay on disk.

    exits, labels: the version's, in order.  Confidences are as they were read, not calibrated.
    Before format 4, texts are equal if their characters are.  Raises InputError if a
    part lacks a column, or has one of another type than entries have.
    """
    text, of_text = TOKENS, pa.uint64()
    if version_format < FIRST_BY_TEXT:
        text, of_text = "text_hash", pa.string()
    kinds = {
        "label": pa.uint16(),
        "answers": pa.list_(pa.uint16(), len(exits)),
        "confidences": pa.list_(pa.float32(), len(exits)),
        text: of_text,
    }
    tables = [read(path, list(kinds)) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        for column, kind in kinds.items():
            found = table.schema.field(column).type
            if found != kind:
                raise InputError(f"{path}: column {column} is {found}, not {kind}")
    return Entries(
        exits=exits,
        labels=tuple(labels),
        label=np.concatenate([t["label"].to_numpy() for t in tables]),
        answers=np.concatenate([list_values(t["answers"]) for t in tables]),
        confidences=np.concatenate([list_values(t["confidences"]) for t in tables]),
        hashes=np.concatenate([_hashes(t[text]) for t in tables]),
    )


def _hashes(column: pa.ChunkedArray) -> TextHashes:
    if pa.types.is_uint64(column.type):
        return column.to_numpy()
    digests = [digest.encode() for digest in column.to_pylist()]
    return text_hashes([np.frombuffer(digest, np.uint8) for digest in digests])


def columns_of(files: VersionFiles, path: str) -> list[str]:
    """The names of a table's columns.  Raises KeyError if there is no such file."""
    with files.folder_of(path).open(path) as file:
        return list(pq.read_schema(file).names)


def read_nearest(read: ReadColumns, paths: Sequence[str]) -> NDArray[np.float32]:
    """(rows,) squared L2 distance of each entry to its nearest neighbour."""
    column = "nearest_distance"
    return np.concatenate([read(path, [column])[column].to_numpy() for path in paths])


def read_lists(read: ReadColumns, paths: Sequence[str], rows: int) -> Neighbours:
    """The neighbours of all of a version's rows by the first key, (rows, k), as they are listed.

    rows: how many rows the version has.
    """
    tables = [read(path, ["rows-0", "distances-0"]) for path in paths]
    return Neighbours(
        np.concatenate([list_values(t["rows-0"]) for t in tables]),
        np.concatenate([list_values(t["distances-0"]) for t in tables]),
        np.arange(rows),
    )


def read_rows(files: VersionFiles, columns: Sequence[str], positions: Sequence[int]) -> pa.Table:
    """Some columns of some entries, by their positions in the database, in the order asked.

    Raises InputError if a part is no Parquet, or lacks a column.
    """
    found, before, last = [], 0, max(positions, default=0)
    for path in files.below("entries/"):
        with open_table(files.folder_of(path), path, columns) as parquet:
            rows = parquet.metadata.num_rows
            within = [i for i in positions if before <= i < before + rows]
            table = take_rows(parquet, columns, [i - before for i in within])
        here = pa.array(within, pa.int64())  # of a type even if it is empty
        found.append(table.append_column("position", here))
        before += rows
        if before > last:
            break
    table = pa.concat_tables(found)
    order = pc.index_in(pa.array(positions, pa.int64()), table["position"])
    return table.take(order).drop_columns("position")
