"""Values of a corpus: what each type is as an id, as a text and as a label.

CSV, JSON lines and Parquet files of one table mean the same rows: whatever a value's type, its text
form is what a CSV file has.

    string, bytes, categorical      as it is; bytes are UTF-8
    integer, decimal                its digits
    float                           the shortest digits that give it back; NaN is missing
    boolean                         true or false
    date, time, timestamp           2026-11-29, 12:30:00, 2026-11-29 12:30:00.000000
    UUID                            as RFC 9562 writes them
    duration                        P1DT2H
    list, struct, map               none: the row is rejected

A text is a string or bytes; a row whose text is of another type is rejected.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from raee.errors import is_unicode

Role = Literal["id", "text", "label"]
ROLES: tuple[Role, ...] = ("id", "text", "label")

BLANK_ID = "no id"
BLANK_LABEL = "no label"

NO_UTF_8 = " is not valid UTF-8"

_NARROW: dict[Any, Callable[[float], Any]] = {pl.Float16: np.float16, pl.Float32: np.float32}


@dataclass(frozen=True)
class Column:
    """A column's values in their text form."""

    values: pl.Series
    """Strings; null if the value is missing or has no text form."""
    faults: pl.Series
    """Strings: why a value cannot be used; null if it can be used, or is missing."""


def column_of(values: pl.Series, role: Role) -> Column:
    """A column of any type in its text form."""
    kind = values.dtype
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(values))
    if kind == pl.Null:
        return Column(nothing, nothing)
    if kind == pl.String:
        return Column(values, nothing)
    if kind == pl.Binary:
        read = _decoded(values)
        return Column(read, where(values.is_not_null() & read.is_null(), role + NO_UTF_8))
    if isinstance(kind, pl.Categorical | pl.Enum):
        return Column(values.cast(pl.String), nothing)
    if role == "text" or kind.is_nested() or kind == pl.Object:
        return Column(
            nothing, where(values.is_not_null(), fault_of_type(role, kind.to_python().__name__))
        )
    return Column(_scalars(values), nothing)


def value_of(value: Any, role: Role) -> tuple[str | None, str | None]:
    """A value of a JSON object in its text form, and why it cannot be used."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, None
    if isinstance(value, str):
        return (value, None) if is_unicode(value) else (None, role + NO_UTF_8)
    if role == "text" or isinstance(value, list | dict):
        return None, fault_of_type(role, type(value).__name__)
    if isinstance(value, bool):
        return str(value).lower(), None
    return str(value), None


def fault_of_type(role: Role, name: str) -> str:
    """The fault of a value that has no text form.  name: of its type."""
    return f"{role} is no string but {name}"


def where(these: pl.Series, fault: str) -> pl.Series:
    """A column of faults: `fault` for the values that are True in `these`, null for the others."""
    frame = pl.select(pl.when(these).then(pl.lit(fault)).otherwise(pl.lit(None, pl.String)))
    return frame.to_series()


def _decoded(values: pl.Series) -> pl.Series:
    """Bytes as strings; null if they are no UTF-8."""
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series([_text(value) for value in values], dtype=pl.String)


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _scalars(values: pl.Series) -> pl.Series:
    kind = values.dtype
    if kind.is_float():
        # They are as Python and JSON write them; often there are few different ones.
        unique = values.unique()
        narrow = _NARROW.get(kind, float)
        written = [
            None if v is None or math.isnan(v) else str(float(str(narrow(v))))
            for v in unique.to_list()
        ]
        return values.replace_strict(unique, pl.Series(written, dtype=pl.String))
    if kind.is_temporal():
        return values.dt.to_string("iso")
    return values.cast(pl.String)
