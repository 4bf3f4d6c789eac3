"""Parquet files: one table in, one checked file out, and back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raee.errors import InputError
from storage.checked import FileRecord
from storage.store import Folder


def part_name(number: int) -> str:
    """The name of a part; its order is that of the rows."""
    return f"part-{number:05d}.parquet"


def write_table(
    folder: Folder, name: str, table: pa.Table, group_rows: int | None = None
) -> FileRecord:
    """Write a table; the same table gives the same bytes.

    group_rows: rows of a row group, which can be read alone; by default there is one group.
    """
    # Lists of floats do not get smaller, and compressing takes four times as long as writing.
    plain = {_leaf(f) for f in table.schema if _is_floats(f.type)}
    others = [_leaf(f) for f in table.schema if _leaf(f) not in plain]
    compression = dict.fromkeys(plain, "none") | dict.fromkeys(others, "zstd")
    with folder.create(name) as file:
        pq.write_table(
            table,
            file,
            row_group_size=group_rows,
            compression=compression,
            use_dictionary=others,
        )
    return file.record(rows=table.num_rows)


def table_of(frame: pl.DataFrame) -> pa.Table:
    """A frame as a table whose types every reader of Parquet knows by their plain names."""
    table = frame.to_arrow()
    return table.cast(pa.schema([pa.field(f.name, _plain(f.type)) for f in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _leaf(field: pa.Field) -> str:
    """Parquet's name for the column of a field's values."""
    is_list = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
    return f"{field.name}.list.element" if is_list else field.name


def _is_floats(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)


def read_table(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns.

    Raises InputError if it is no Parquet, or lacks a column.
    """
    with folder.open(name) as file, folder.faults(name):
        return _read(file, columns, f"{folder}/{name}")


@contextmanager
def open_table(folder: Folder, path: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
    """A table, opened for `take_rows`.

    Raises InputError if it is no Parquet, or lacks a column.
    """
    with folder.open(path) as file, folder.faults(path):
        try:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            _require(columns, parquet.schema_arrow.names, f"{folder}/{path}")
            yield parquet
        except pa.ArrowException as error:
            raise _no_parquet(f"{folder}/{path}", error) from error


def take_rows(
    parquet: pq.ParquetFile, columns: Sequence[str], positions: Sequence[int]
) -> pa.Table:
    """Some columns of the rows at some positions, in that order.

    Only row groups with such a row are read.
    """
    asked = np.array(positions, np.int64)
    sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
    rows = np.array(sizes, np.int64)
    ends = np.cumsum(rows)
    holder = np.searchsorted(ends, asked, side="right")
    groups = np.unique(holder)
    table = parquet.read_row_groups(groups.tolist(), columns=list(columns))
    # How far each group moves from its begin in the file, once the groups between are left out.
    moved = np.cumsum(rows[groups]) - ends[groups]
    return table.take(pa.array(asked + moved[np.searchsorted(groups, holder)]))


@dataclass(frozen=True)
class Footer:
    """The description of a table at its file's end."""

    rows: int
    schema: pa.Schema
    largest: dict[str, Any]
    """By column, the largest value, in lists the largest of any; only if the file says it."""


def read_footer(folder: Folder, path: str) -> Footer:
    """The description of a table.  Raises InputError if it is no Parquet."""
    with folder.open(path) as file, folder.faults(path):
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowException as error:
            raise _no_parquet(f"{folder}/{path}", error) from error
        largest: dict[str, Any] = {}
        for group in range(parquet.metadata.num_row_groups):
            for number in range(parquet.metadata.num_columns):
                column = parquet.metadata.row_group(group).column(number)
                found = column.statistics
                if found is not None and found.has_min_max:
                    name = column.path_in_schema.partition(".")[0]
                    largest[name] = max(largest.get(name, found.max), found.max)
        return Footer(parquet.metadata.num_rows, parquet.schema_arrow, largest)


def read_local_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a table on the disk, as `read_table` does."""
    with path.open("rb") as file:
        return _read(file, columns, str(path))


def _read(file: IO[bytes], columns: Sequence[str] | None, where: str) -> pa.Table:
    try:
        table = pq.read_table(file, columns=None if columns is None else list(columns))
    except pa.ArrowException as error:
        raise _no_parquet(where, error) from error
    _require(columns or (), table.column_names, where)
    return table


def _require(columns: Sequence[str], there: Sequence[str], where: str) -> None:
    missing = [c for c in columns if c not in there]
    if missing:
        raise InputError(f"{where} has no column {missing[0]!r}")


def _no_parquet(where: str, error: Exception) -> InputError:
    return InputError(f"{where} is no Parquet: {str(error).splitlines()[0]}")


def list_column(values: NDArray[Any]) -> pa.Array:
    """An array as a column.

    (n, width) becomes fixed-size lists, (n,) a plain column, and (n,) arrays of int32, of different
    lengths, lists of those.
    """
    if values.dtype == object:
        starts = np.cumsum([0, *map(len, values)], dtype=np.int32)
        flat = np.concatenate([np.zeros(0, np.int32), *values])
        return pa.ListArray.from_arrays(pa.array(starts), pa.array(flat))
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).ravel()), values.shape[1]
    )


def list_values(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column as `list_column` takes it."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    width = column.type.list_size
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
