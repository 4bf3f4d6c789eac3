"""Parquet files: one table in, one checked file out, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.store import FileRecord, Folder


def part_name(number: int) -> str:
    """The name of a part; its order is that of the rows."""
    return f"part-{number:05d}.parquet"


def write_table(folder: Folder, name: str, table: pa.Table) -> FileRecord:
    """Write a table; the same table gives the same bytes."""
    with folder.create(name) as file:
        pq.write_table(table, file, compression="zstd")
    return file.record(rows=table.num_rows)


def read_table(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns."""
    with folder.open(name) as file:
        return pq.read_table(file, columns=None if columns is None else list(columns))


def list_column(values: NDArray[Any]) -> pa.FixedSizeListArray:
    """Rows of an array (n, width) as a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).ravel()), values.shape[1]
    )


def list_values(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of fixed-size lists as an array (n, width)."""
    width = column.type.list_size
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
