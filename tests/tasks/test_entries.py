import numpy as np
import pyarrow as pa
import pytest

from raee.exits import exits_of
from raee.sweep import Sweep
from storage.parquet import list_values, part_name, write_table
from storage.scan import Reject, Row
from storage.store import Folder
from tasks.entries import read_entries, read_rows, rejects_table, swept_table, with_vote

_LABELS = ("no", "yes")
_EXITS = exits_of(2, 0)


@pytest.fixture
def parts(tmp_path):
    """A folder of three parts, of 4, 0 and 3 entries, and their paths."""
    folder = Folder(str(tmp_path))
    paths = []
    for number, rows in enumerate((range(4), range(0), range(4, 7))):
        table = pa.table({"id": [f"r{i}" for i in rows], "text": [f"text {i}" for i in rows]})
        table = table.cast(pa.schema([("id", pa.string()), ("text", pa.string())]))
        paths.append(f"entries/{part_name(number)}")
        write_table(folder, paths[-1], table)
    return folder, paths


@pytest.mark.parametrize("places", [[], [0], [6, 0, 3], [5, 5, 1], [4, 3]])
def test_rows_come_in_the_order_in_which_they_are_asked(parts, places):
    table = read_rows(*parts, ["id"], places)
    assert table.schema.names == ["id"]
    assert table["id"].to_pylist() == [f"r{i}" for i in places]


def _swept(texts, keep_text=True):
    rows = [Row(f"r{i}", text, _LABELS[i % 2]) for i, text in enumerate(texts)]
    n = len(rows)
    swept = Sweep(
        np.arange(n * 3, dtype=np.uint16).reshape(n, 3) % 2,
        np.linspace(0.5, 1, n * 3, dtype=np.float32).reshape(n, 3),
        np.ones((n, 4), dtype=np.float32),
    )
    return swept, swept_table(rows, _LABELS, swept, keep_text)


@pytest.mark.parametrize("keep_text", [True, False])
def test_entries_come_back_as_they_were_swept_and_voted(tmp_path, keep_text):
    folder = Folder(str(tmp_path))
    swept, table = _swept(["a", "b", "c", "d"], keep_text)
    votes, sure = np.array([1, 0, 1, 1], np.uint16), np.array([0.5, 0.6, 0.7, 0.8], np.float32)
    entries = with_vote(table, votes, sure)
    assert ("text" in entries.schema.names) == keep_text
    assert "key" not in entries.schema.names
    for number, part in enumerate((entries[:1], entries[1:1], entries[1:])):
        write_table(folder, part_name(number), part)
    back = read_entries(folder, [part_name(n) for n in range(3)], _EXITS, _LABELS)
    assert back.label.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(back.answers, np.column_stack([swept.answers, votes]))
    np.testing.assert_array_equal(back.confidences, np.column_stack([swept.confidences, sure]))
    assert (back.answers.dtype, back.confidences.dtype) == (np.uint16, np.float32)


def test_a_shard_without_rows_is_a_table_of_the_same_columns():
    _, some = _swept(["a"])
    _, none = _swept([])
    assert none.schema == some.schema
    assert list_values(none["key"]).shape == (0, 4)


def test_rejects_may_have_no_id():
    rejects = [Reject(None, "a.csv", 1, "no id"), Reject("r2", "a.csv", 2, "text is null")]
    assert rejects_table(rejects).to_pylist() == [
        {"id": None, "source_file": "a.csv", "row": 1, "reason": "no id"},
        {"id": "r2", "source_file": "a.csv", "row": 2, "reason": "text is null"},
    ]
