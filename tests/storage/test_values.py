"""Every type has one meaning as id, text and label, whatever the file is."""

import datetime as dt
import json
import math
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.corpus import CorpusSpec
from tests.raee.errors import refused
from tests.storage.corpora import read_all

_DAY = dt.datetime(2026, 11, 29, 12, 30, 0, 5)
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
    (pa.array([0.1], pa.float64()), "0.1"),
    (pa.array([1e22], pa.float64()), "1e+22"),
    (pa.array([Decimal("1.50")], pa.decimal128(5, 2)), "1.50"),
    (pa.array([Decimal("1.50")], pa.decimal256(50, 2)), "1.50"),
    (pa.array([True]), "true"),
    (pa.array([_DAY.date()]), "2026-11-29"),
    (pa.array([_DAY.time()], pa.time64("us")), "12:30:00.000005"),
    (pa.array([_DAY], pa.timestamp("us")), "2026-11-29 12:30:00.000005"),
    (pa.array([_DAY.replace(microsecond=0)], pa.timestamp("ns")), "2026-11-29 12:30:00.000000000"),
    (pa.array([_DAY], pa.timestamp("us", "UTC")), "2026-11-29 12:30:00.000005+00:00"),
    (pa.array([dt.timedelta(days=1, hours=2)], pa.duration("s")), "P1DT2H"),
]
_NO_NAMES = [
    (pa.array([["a"]]), "list"),
    (pa.array([["a", "b"]], pa.list_(pa.string(), 2)), "list"),
    (pa.array([{"a": 1}]), "dict"),
    (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), "dict"),
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
