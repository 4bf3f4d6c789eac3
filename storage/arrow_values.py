"""Values of Parquet files: what each Arrow type is, before polars has it.

polars stops the process at a date that it cannot write, takes a UUID for bytes, and refuses time
zones that are no names: this module handles such values before.
"""

import datetime as dt
import re

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from storage.values import Column, Role, column_of, fault_of_type, where

_DAY = 86_400
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""The seconds at which the year 1 begins and the year 9999 ends, from 1970 on."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64 = 2**63 - 1

_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
"""A time zone that is no name, such as +05:30."""


def arrow_column(values: pa.Array, role: Role) -> Column:
    """A column of a Parquet file in its text form."""
    while True:
        kind = values.type
        if isinstance(kind, pa.UuidType):
            return _uuids(values.storage, role)
        if isinstance(kind, pa.BaseExtensionType):
            values = values.storage
        elif pa.types.is_dictionary(kind):
            values = values.dictionary_decode()
        elif pa.types.is_run_end_encoded(kind):
            values = pc.run_end_decode(values)
        else:
            break
    if pa.types.is_nested(kind):
        is_dict = pa.types.is_struct(kind) or pa.types.is_map(kind)
        return _of_no_form(values, role, "dict" if is_dict else "list")
    if pa.types.is_decimal256(kind):
        if role == "text":
            return _of_no_form(values, role, "Decimal")
        digits = [None if value is None else f"{value:f}" for value in values.to_pylist()]
        return column_of(pl.Series(digits, dtype=pl.String), role)
    if pa.types.is_temporal(kind):
        return _temporal(values, role)
    if pa.types.is_string_view(kind):
        values = values.cast(pa.binary_view())  # polars does not check that strings are UTF-8
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = values.cast(pa.large_binary())
    return column_of(_series(values), role)


def _series(values: pa.Array) -> pl.Series:
    series = pl.from_arrow(values)
    assert isinstance(series, pl.Series)
    return series


def _of_no_form(values: pa.Array, role: Role, name: str) -> Column:
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(values))
    return Column(nothing, where(_series(values.is_valid()), fault_of_type(role, name)))


def _uuids(values: pa.Array, role: Role) -> Column:
    """UUIDs as everybody writes them; their bytes are no UTF-8."""
    if role == "text":
        return _of_no_form(values, role, "UUID")
    digits = _series(values.cast(pa.binary())).bin.encode("hex").str
    parts = [digits.slice(start, n) for start, n in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    return column_of(pl.select(pl.concat_str(parts, separator="-")).to_series(), role)


def _temporal(values: pa.Array, role: Role) -> Column:
    """Dates and times; a value out of their range is a fault."""
    kind = values.type
    if role == "text":
        return _of_no_form(values, role, _name(kind))
    numbers = values.cast(pa.int32()) if kind.bit_width == 32 else values
    low, high = _range(kind)
    inside = _series(numbers.cast(pa.int64())).is_between(low, high)
    if inside.all():
        return column_of(_written(values), role)
    values = pc.if_else(inside.fill_null(False).to_arrow(), values, pa.scalar(None, kind))
    found = column_of(_written(values), role)
    return Column(found.values, where(~inside, f"{role} is out of the range of a {_name(kind)}"))


def _name(kind: pa.DataType) -> str:
    names = {"date": pa.types.is_date, "time": pa.types.is_time, "timedelta": pa.types.is_duration}
    return next((name for name, is_it in names.items() if is_it(kind)), "datetime")


def _range(kind: pa.DataType) -> tuple[int, int]:
    """The smallest and the largest number of a type that count."""
    if pa.types.is_date32(kind):
        return _FIRST // _DAY, _LAST // _DAY
    unit = 1_000 if pa.types.is_date64(kind) else _PER_SECOND[kind.unit]
    if pa.types.is_time(kind):
        return 0, _DAY * unit - 1
    first = -_LAST if pa.types.is_duration(kind) else _FIRST
    return max(first * unit, -_INT64), min((_LAST + 1) * unit - 1, _INT64)


def _written(values: pa.Array) -> pl.Series:
    """Dates and times in their text form; timestamps of an unknown zone are in UTC."""
    kind = values.type
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    offset = _OFFSET.fullmatch(zone) if zone else None
    if offset is not None:
        minutes = int(offset[2]) * 60 + int(offset[3])
        shift = dt.timedelta(minutes=-minutes if offset[1] == "-" else minutes)
        local = pc.add(values.cast(pa.timestamp(kind.unit)), pa.scalar(shift, pa.duration("s")))
        return _series(local).dt.to_string("iso") + f"{offset[1]}{offset[2]}:{offset[3]}"
    if zone:
        try:
            return _series(values).dt.to_string("iso")
        except pl.exceptions.ComputeError:
            values = values.cast(pa.timestamp(kind.unit, "UTC"))
    return _series(values).dt.to_string("iso")
