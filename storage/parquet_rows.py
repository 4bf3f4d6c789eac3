"""Rows of Parquet files, a batch of some row groups' columns at a time.

pyarrow reads the pages, out of whatever the store opens: polars reads a file object as a whole, and
a remote file by a client of its own, with other credentials and other errors.  polars handles the
values from there on.
"""

from collections.abc import Collection, Iterator
from typing import IO

import pyarrow.parquet as pq

from storage.arrow_values import arrow_column
from storage.rows import Batch, Columns, check_columns, frame_of
from storage.values import Role

_BATCH_BYTES = 4 << 20
"""Bytes of the columns that are read at once, uncompressed."""

_MOST_ROWS = 20_000

_BUFFER_BYTES = 4 << 20
"""Bytes of a column that are read from a file at once: else all of a row group's are in memory."""


def parquet_names(file: IO[bytes]) -> list[str]:
    """The names of a file's columns."""
    return list(_parquet(file).schema_arrow.names)


def parquet_batches(
    file: IO[bytes], uri: str, columns: Columns, given: Collection[Role], start: int, end: int
) -> Iterator[Batch]:
    """The batches that hold the rows of a file from one on and up to another.

    given: the roles whose column may be missing.  Raises InputError if another one is.
    """
    parquet = _parquet(file)
    names = parquet.schema_arrow.names
    check_columns(uri, columns, given, names)
    columns = {role: name for role, name in columns.items() if name in names}
    groups, before, first = [], 0, None
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if before + rows > start and before < end:
            groups.append(group)
            first = before if first is None else first
        before += rows
    if first is None:
        return
    wanted = sorted(set(columns.values()))
    size = _batch_rows(parquet, groups, wanted)
    for batch in parquet.iter_batches(size, row_groups=groups, columns=wanted):
        if first + len(batch) > start:
            read = {role: arrow_column(batch[name], role) for role, name in columns.items()}
            yield Batch(first, [], frame_of(read, len(batch)))
        first += len(batch)
        if first >= end:
            return  # a row group may go on for long


def count_parquet(file: IO[bytes], uri: str, columns: Columns, given: Collection[Role]) -> int:
    """How many rows a file has, from its footer."""
    parquet = _parquet(file)
    check_columns(uri, columns, given, parquet.schema_arrow.names)
    return int(parquet.metadata.num_rows)


def _parquet(file: IO[bytes]) -> pq.ParquetFile:
    # Nanoseconds, the default, turn years before 1677 and after 2262 into others.
    return pq.ParquetFile(file, coerce_int96_timestamp_unit="us", buffer_size=_BUFFER_BYTES)


def _batch_rows(parquet: pq.ParquetFile, groups: list[int], wanted: list[str]) -> int:
    """Rows of a batch, so that texts of any length take about the same memory."""
    rows = size = 0
    for group in groups:
        found = parquet.metadata.row_group(group)
        rows += found.num_rows
        for number in range(found.num_columns):
            column = found.column(number)
            if any(f"{column.path_in_schema}.".startswith(f"{name}.") for name in wanted):
                size += column.total_uncompressed_size
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * rows // max(size, 1)))
