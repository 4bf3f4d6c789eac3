"""A look at a corpus that nobody has described: what it sees, and how much it reads for that."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.columns import look_at, usable_rows
from tests.raee.errors import refused
from tests.storage.corpora import uploaded, write_corpus

_ROWS = [{"id": i, "text": f"letter {i}", "label": "ab"[i % 2], "n": i / 4} for i in range(40)]


def _seen(look):
    return {column.name: column for column in look.columns}


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "csv.gz"])
def test_what_columns_hold_is_the_same_in_all_formats(tmp_path, form):
    look = look_at(write_corpus(tmp_path / f"a.{form}", _ROWS))
    assert (look.rows, look.is_complete, look.repeated) == (40, True, ())
    seen = _seen(look)
    assert {name: column.different for name, column in seen.items()} == {
        "id": 40,
        "text": 40,
        "label": 2,
        "n": 40,
    }
    assert (seen["text"].words, seen["text"].numbers, seen["label"].words) == (1, 0, 0)
    assert seen["text"].mean_characters == 8.75
    assert (seen["id"].whole, seen["n"].numbers) == (1, 1)
    assert seen["n"].whole == 0
    assert seen["id"].strings == (1 if "csv" in form else 0)


@pytest.mark.parametrize("kind", ["memory", "moto"])
def test_a_remote_corpus_is_looked_at_as_one_on_the_disk(tmp_path, store_on, kind):
    for form in ("csv", "parquet"):
        write_corpus(
            tmp_path / f"corpus/a.{form}", [{**row, "id": f"r{row['id']}"} for row in _ROWS]
        )
    look = look_at(uploaded(tmp_path / "corpus", store_on(kind)))
    assert (look.rows, look.is_complete) == (80, True)
    assert look.columns == look_at(str(tmp_path / "corpus")).columns


def test_missing_and_blank_values_are_none(tmp_path):
    rows = [{"a": "x", "b": value} for value in ("x", "", " ", None, "y")]
    seen = _seen(look_at(write_corpus(tmp_path / "a.jsonl", rows)))
    assert (seen["b"].values, seen["b"].different) == (2, 2)


@pytest.mark.parametrize(
    ("value", "is_time"),
    [
        ("2026-11-29", True),
        ("2026-11-29 12:30:00.000000", True),
        ("2026-1-2T12:30", True),
        ("29.11.26", True),
        ("11/29/2026 12:30 PM", True),
        ("2026", False),
        ("1.5", False),
        ("2026-11-29-17", False),
        ("10.0.0.17", False),
    ],
)
def test_dates_are_seen(tmp_path, value, is_time):
    seen = _seen(look_at(write_corpus(tmp_path / "a.jsonl", [{"a": "x", "b": value}])))
    assert seen["b"].times == is_time


def test_values_that_are_not_utf_8_are_seen(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\nx,gut\nx,sch\xf6n\n")
    seen = _seen(look_at(str(tmp_path / "a.csv")))
    assert (seen["a"].broken, seen["b"].broken, seen["b"].values) == (0, 0.5, 1)


def test_long_values_that_differ_at_their_ends_are_different(tmp_path):
    rows = [{"a": "x" * 5_000 + str(i % 10), "b": "y"} for i in range(20)]
    seen = _seen(look_at(write_corpus(tmp_path / "a.csv", rows)))
    assert (seen["a"].different, seen["a"].mean_characters) == (10, 5_001)


def test_of_a_long_file_the_first_rows_are_looked_at(tmp_path):
    table = pa.table({"text": [f"letter {i}" for i in range(60_000)], "label": ["a"] * 60_000})
    pq.write_table(table, tmp_path / "a.parquet")
    look = look_at(str(tmp_path / "a.parquet"))
    assert (look.rows, look.is_complete) == (50_000, False)
    assert usable_rows(look.spec, look).labels == {"a": 50_000}


def test_of_long_texts_no_more_is_read_than_some_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.columns._MOST_BLOCKS", 6)
    rows = [{"n": i, "text": "x" * 10_000} for i in range(2_000)]
    look = look_at(write_corpus(tmp_path / "a.csv", rows))
    assert not look.is_complete
    assert 500 < look.rows < 800  # three blocks of 2 MB: there are two columns


def test_of_many_files_some_are_looked_at_from_the_first_to_the_last(tmp_path):
    for i in range(40):
        rows = [{"text": f"letter {i} {n}", "label": f"{i:02d}"} for n in range(3)]
        write_corpus(tmp_path / f"corpus/{i:02d}.csv", rows)
    look = look_at(str(tmp_path / "corpus"))
    assert (look.rows, look.is_complete) == (16 * 3, False)
    labels = usable_rows(look.spec, look).labels
    assert len(labels) == 16
    assert (min(labels), max(labels)) == ("00", "39")


def test_a_table_of_many_columns_is_looked_at_as_a_whole(tmp_path):
    rows = [{f"c{i}": f"{i} {n}" for i in range(300)} for n in range(20)]
    look = look_at(write_corpus(tmp_path / "a.csv", rows))
    assert (look.rows, look.is_complete, len(look.columns)) == (20, True, 300)


def test_a_column_that_a_file_lacks_is_none(tmp_path):
    write_corpus(tmp_path / "corpus/1.csv", [{"a": 1, "b": 2, "c": 3}])
    write_corpus(tmp_path / "corpus/2.csv", [{"c": 1, "a": 2}])
    assert [column.name for column in look_at(str(tmp_path / "corpus")).columns] == ["a", "c"]


def test_files_without_a_common_column_are_refused(tmp_path):
    write_corpus(tmp_path / "corpus/1.csv", [{"a": 1, "b": 2}])
    write_corpus(tmp_path / "corpus/2.csv", [{"c": 1, "d": 2}])
    with refused("its files have no column in common; name some of them"):
        look_at(str(tmp_path / "corpus"))


def test_keys_that_the_first_object_lacks_are_columns(tmp_path):
    rows = [{"a": 1}, {"a": 2, "b": 3}]
    assert len(look_at(write_corpus(tmp_path / "a.jsonl", rows)).columns) == 2


def test_a_column_whose_name_is_no_utf_8_is_none(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,größe\nx,1\n".encode("cp1252"))
    assert [column.name for column in look_at(str(tmp_path / "a.csv")).columns] == ["text"]


def test_a_file_of_ragged_rows_keeps_its_usual_delimiter(tmp_path):
    rows = [f"letter; {i},a" if i % 2 else f"letter {i},a,b" for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["text; if any,label", *rows]))
    look = look_at(str(tmp_path / "a.csv"))
    assert look.spec.delimiter is None
    chosen = look.spec.model_copy(update={"text": "text; if any"})
    usable = usable_rows(chosen, look)
    assert (usable.labels, usable.rejected) == (
        {"a": 20},
        {"3 fields where the header has 2": 20},
    )


def test_a_quoted_line_break_is_no_end_of_a_row(tmp_path):
    rows = [f'"a;b\n\nletter {i}";{"ab"[i % 2]}' for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["text;label", *rows]))
    look = look_at(str(tmp_path / "a.csv"))
    assert (look.spec.delimiter, look.spec.quote, look.rows) == (";", '"', 40)
