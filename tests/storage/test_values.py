"""Every type has one meaning as id, text and label, whatever the file is."""

import datetime as dt
import json
import math
import uuid
from decimal import Decimal

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.corpus import CorpusSpec
from tests.raee.errors import refused
from tests.storage.corpora import read_all

_DAY = dt.datetime(2026, 11, 29, 12, 30, 0, 5)
_UUID = uuid.UUID("936da01f-9abd-4d9d-80c7-02af85c822a8")
_NAMES = [
    (pa.array(["a"]).dictionary_encode(), "a"),
    (pa.array(["grün"], pa.large_string()), "grün"),
    (pa.array(["a"], pa.string_view()), "a"),
    (pa.array([b"a"], pa.binary()), "a"),
    (pa.array([b"ab"], pa.binary(2)), "ab"),
    (pa.RunEndEncodedArray.from_arrays([1], ["a"]), "a"),
    (pa.array([2**63], pa.uint64()), "9223372036854775808"),
    (pa.array([2**53 + 1], pa.int64()), "9007199254740993"),
    (pa.array([-3], pa.int8()), "-3"),
    (pa.array([1.5], pa.float32()), "1.5"),
    (pa.array([3.7], pa.float32()), "3.7"),
    (pa.array([1e22], pa.float32()), "1e+22"),
    (pa.array(np.array([0.1], np.float16)), "0.1"),
    (pa.array([0.1], pa.float64()), "0.1"),
    (pa.array([1e22], pa.float64()), "1e+22"),
    (pa.array([Decimal("1.50")], pa.decimal128(5, 2)), "1.50"),
    (pa.array([Decimal("1.50")], pa.decimal256(50, 2)), "1.50"),
    (pa.array([Decimal("1e-13")], pa.decimal256(50, 14)), "0.00000000000010"),
    (pa.array([True]), "true"),
    (pa.array([_DAY.date()]), "2026-11-29"),
    (pa.array([_DAY.time()], pa.time64("us")), "12:30:00.000005"),
    (pa.array([_DAY], pa.timestamp("us")), "2026-11-29 12:30:00.000005"),
    (pa.array([_DAY.replace(microsecond=0)], pa.timestamp("ns")), "2026-11-29 12:30:00.000000000"),
    (pa.array([_DAY], pa.timestamp("us", "UTC")), "2026-11-29 12:30:00.000005+00:00"),
    (pa.array([_DAY], pa.timestamp("us", "Europe/Berlin")), "2026-11-29 13:30:00.000005+01:00"),
    (pa.array([_DAY], pa.timestamp("us", "+05:30")), "2026-11-29 18:00:00.000005+05:30"),
    (pa.array([_DAY], pa.timestamp("ms", "-0800")), "2026-11-29 04:30:00.000-08:00"),
    (pa.array([_DAY], pa.timestamp("us", "Mars/Base")), "2026-11-29 12:30:00.000005+00:00"),
    (pa.array([dt.date(1, 1, 1)]), "0001-01-01"),
    (pa.array([dt.datetime(9999, 12, 31)], pa.timestamp("s")), "9999-12-31 00:00:00.000"),
    (pa.array([dt.timedelta(days=1, hours=2)], pa.duration("s")), "P1DT2H"),
    (pa.array([_UUID.bytes], pa.uuid()), str(_UUID)),
]
_NO_NAMES = [
    (pa.array([["a"]]), "list"),
    (pa.array([["a", "b"]], pa.list_(pa.string(), 2)), "list"),
    (pa.array([{"a": 1}]), "dict"),
    (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), "dict"),
    (pa.array([["a"]], pa.list_view(pa.string())), "list"),
]
_NO_TEXTS = [
    (pa.array([Decimal("1.5")], pa.decimal128(5, 2)), "Decimal"),
    (pa.array([Decimal("1.5")], pa.decimal256(50, 2)), "Decimal"),
    (pa.array([_DAY.date()]), "date"),
    (pa.array([_DAY.time()]), "time"),
    (pa.array([_DAY], pa.timestamp("us", "+05:30")), "datetime"),
    (pa.array([dt.timedelta(1)]), "timedelta"),
    (pa.array([_UUID.bytes], pa.uuid()), "UUID"),
]
_OUT_OF_RANGE = [
    # As DuckDB and PostgreSQL write an infinite one.
    (pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), "date"),
    (pa.array([2**63 - 1], pa.timestamp("us")), "datetime"),
    (pa.array([-(2**63)], pa.timestamp("ms", "UTC")), "datetime"),
    (pa.array([253_402_300_800], pa.timestamp("s", "+05:30")), "datetime"),
    (pa.array([2**60], pa.duration("s")), "timedelta"),
    (pa.array([86_400_000_000], pa.time64("us")), "time"),
]


def _read(tmp_path, column, values):
    table = {"id": pa.array(["r"]), "text": pa.array(["t"]), "label": pa.array(["x"])}
    pq.write_table(pa.table(table | {column: values}), tmp_path / "a.parquet")
    _, rows, rejects = read_all(CorpusSpec(uri=str(tmp_path / "a.parquet"), id="id"), 5)
    return rows, [r.reason for r in rejects]


@pytest.mark.parametrize(("values", "expected"), _NAMES, ids=[str(v.type) for v, _ in _NAMES])
@pytest.mark.parametrize("column", ["id", "label"])
def test_a_scalar_of_parquet_has_a_text_form(tmp_path, column, values, expected):
    if isinstance(values, pa.RunEndEncodedArray):
        values = values.to_pylist()  # Parquet does not keep the encoding
    rows, rejects = _read(tmp_path, column, values)
    assert [getattr(row, column) for row in rows] == [expected]
    assert rejects == []


@pytest.mark.parametrize(("values", "kind"), _NO_NAMES, ids=[str(v.type) for v, _ in _NO_NAMES])
@pytest.mark.parametrize("column", ["id", "label", "text"])
def test_a_list_is_a_reject(tmp_path, column, values, kind):
    with refused(rf"1 of 1 rows cannot be used \({column} is no string but {kind}: 1\)"):
        _read(tmp_path, column, values)


@pytest.mark.parametrize(("values", "kind"), _NO_TEXTS, ids=[str(v.type) for v, _ in _NO_TEXTS])
def test_a_text_is_a_string(tmp_path, values, kind):
    with refused(rf"1 of 1 rows cannot be used \(text is no string but {kind}: 1\)"):
        _read(tmp_path, "text", values)


@pytest.mark.parametrize(
    ("values", "kind"), _OUT_OF_RANGE, ids=[str(v.type) for v, _ in _OUT_OF_RANGE]
)
@pytest.mark.parametrize("column", ["id", "label"])
def test_a_time_that_nothing_can_write_is_a_reject(tmp_path, column, values, kind):
    with refused(rf"\({column} is out of the range of a {kind}: 1\)"):
        _read(tmp_path, column, values)


@pytest.mark.parametrize("store_schema", [True, False])
def test_old_timestamps_of_any_year_are_themselves(tmp_path, store_schema):
    days = [dt.datetime(1000, 1, 1), dt.datetime(2026, 1, 1), dt.datetime(3000, 1, 1)]
    pq.write_table(
        pa.table({"text": ["a", "b", "c"], "label": pa.array(days, pa.timestamp("us"))}),
        tmp_path / "a.parquet",
        use_deprecated_int96_timestamps=True,
        store_schema=store_schema,
    )
    _, rows, _ = read_all(CorpusSpec(uri=str(tmp_path)), 5)
    assert [row.label for row in rows] == [
        f"{day} 00:00:00.000000" for day in ("1000-01-01", "2026-01-01", "3000-01-01")
    ]


def test_what_duckdb_writes_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    duckdb.sql(
        f"COPY (SELECT '{_UUID}'::UUID AS id, 'a' AS text, DATE '2026-01-01' AS label UNION ALL "
        f"SELECT NULL, 'b', DATE 'infinity' ORDER BY text) TO '{path}'"
    )
    _, rows, rejects = read_all(CorpusSpec(uri=str(path), id="id"), 5)
    assert [(row.id, row.label) for row in rows] == [(str(_UUID), "2026-01-01")]
    assert [r.reason for r in rejects] == ["label is out of the range of a date"]


@pytest.mark.parametrize("column", ["id", "label"])
def test_nan_and_null_are_missing(tmp_path, column):
    for values in (pa.array([math.nan]), pa.nulls(1), pa.array([None], pa.int64())):
        with refused(rf"\(no {column}: 1\)"):
            _read(tmp_path, column, values)


def test_bytes_that_are_no_utf_8_are_rejects(tmp_path):
    for column in ("id", "text", "label"):
        with refused(rf"\({column} is not valid UTF-8: 1\)"):
            _read(tmp_path, column, pa.array([b"\xff"]))


def test_csv_json_and_parquet_of_one_table_say_the_same(tmp_path):
    table = pl.DataFrame(
        {
            "id": [10, 11, 12, None],
            "text": ["a, b", 'say "no"', "line\nbreak", "c"],
            "label": [1.0, 2.0, None, 1.5],
            "date": [dt.date(2026, 1, 31)] * 4,
            "flag": [True, False, True, False],
        }
    )
    table.write_parquet(tmp_path / "a.parquet")
    table.write_csv(tmp_path / "a.csv")
    table.write_ndjson(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text(
        "\n".join(json.dumps(row, default=str) for row in table.iter_rows(named=True))
    )
    for columns in ({"label": "label"}, {"label": "flag"}, {"label": "date"}):
        found = [
            read_all(CorpusSpec(uri=str(tmp_path / name), id="id", **columns), 3)
            for name in ("a.parquet", "a.csv", "a.jsonl", "b.jsonl")
        ]
        for other in found[1:]:
            assert other[1] == found[0][1]
            assert [r.reason for r in other[2]] == [r.reason for r in found[0][2]]
            assert other[0].labels == found[0][0].labels
            assert other[0].fingerprint == found[0][0].fingerprint
