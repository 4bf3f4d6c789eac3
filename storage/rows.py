"""Batches of a corpus's rows as frames, whatever they are read from."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from raee.errors import InputError, listed
from storage.blocks import Mark
from storage.values import ROLES, Column, Role, value_of

Columns = Mapping[Role, str]
"""The names of the columns that are read, by role."""

SCHEMA = {"id": pl.String, "text": pl.String, "label": pl.String, "fault": pl.String}


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a file."""

    before: int
    """How many rows of the file come before them."""
    marks: list[Mark]
    """Where reading can begin; none in Parquet, which is read by row."""
    frame: pl.DataFrame
    """Columns id, text, label: strings, null if they are missing or not read; and fault: why a row
    cannot be used, null if nothing in the file speaks against it."""

    def __len__(self) -> int:
        return len(self.frame)


def frame_of(columns: Mapping[Role, Column], rows: int) -> pl.DataFrame:
    """A batch's frame, as `Batch.frame` is; rows: how many there are."""
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
    faults = [column.faults for column in columns.values() if column.faults.null_count() < rows]
    return pl.DataFrame(
        {role: columns[role].values if role in columns else nothing for role in ROLES}
        | {"fault": pl.select(pl.coalesce(*faults)).to_series() if faults else nothing},
        schema=SCHEMA,
    )


def batch_of_values(
    before: int, marks: list[Mark], rows: Sequence[Mapping[Role, Any] | str]
) -> Batch:
    """A batch of rows that were read one by one: their values, or why a row cannot be read."""
    kept: list[tuple[str | None, ...]] = []
    for row in rows:
        if isinstance(row, str):
            kept.append((None, None, None, row))
            continue
        found = [value_of(row.get(role), role) for role in ROLES]
        fault = next((fault for _, fault in found if fault is not None), None)
        kept.append((*(value for value, _ in found), fault))
    return Batch(before, marks, pl.DataFrame(kept, schema=SCHEMA, orient="row"))


def check_columns(
    uri: str, columns: Columns, given: Collection[Role], there: Sequence[str]
) -> None:
    """Raises InputError if a file lacks a column, or has two of one name.

    given: the roles that it may lack.
    """
    counts = Counter(there)
    for role, column in columns.items():
        if not counts[column] and role not in given:
            raise InputError(f"{uri}: no column {column!r}; it has {listed(map(repr, there))}")
        if counts[column] > 1:
            raise InputError(f"{uri}: {counts[column]} columns are named {column!r}")
