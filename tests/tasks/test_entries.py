import numpy as np
import pyarrow as pa
import pytest

from raee.exits import exits_of
from raee.sweep import Sweep
from storage.parquet import list_values, part_name, write_table
from storage.scan import Reject, Row
from storage.store import Folder
from tasks.entries import (
    Answers,
    answers_of,
    columns_of,
    entries_table,
    key_column,
    read_entries,
    read_nearest,
    read_rows,
    rejects_table,
    spread_over,
    swept_table,
)

_LABELS = ("no", "yes")
_EXITS = exits_of(2, (0, 1))


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
    """A sweep of some texts, and its table."""
    rows = [Row(f"r{i}", text, _LABELS[i % 2]) for i, text in enumerate(texts)]
    n = len(rows)
    swept = Sweep(
        np.arange(n * 3, dtype=np.uint16).reshape(n, 3) % 2,
        np.linspace(0.5, 1, n * 3, dtype=np.float32).reshape(n, 3),
        (np.ones((n, 4), dtype=np.float32), np.ones((n, 4), dtype=np.float32)),
    )
    return swept, swept_table(rows, np.arange(n, dtype=np.uint16) % 2, swept, keep_text)


def _more(rows, exits, seed):
    """What some exits say of some rows."""
    dice = np.random.default_rng(seed)
    answers = dice.integers(0, 2, (rows, exits)).astype(np.uint16)
    return Answers(answers, dice.uniform(0.5, 1, (rows, exits)).astype(np.float32))


@pytest.mark.parametrize("keep_text", [True, False])
def test_entries_come_back_as_they_were_swept_voted_and_fitted(tmp_path, keep_text):
    folder = Folder(str(tmp_path))
    swept, table = _swept(["a", "b", "c", "d"], keep_text)
    sampled = np.array([True, False, True, True])
    votes, fitted = _more(4, 2, 0), _more(3, len(_EXITS) - 5, 1)
    nearest = np.array([0.5, 0, np.inf, 2], np.float32)
    entries = entries_table(table, [votes, spread_over(fitted, sampled)], nearest)
    assert entries.schema.names == [
        *("id", "text_hash"),
        *(["text"] if keep_text else []),
        *("label", "answers", "confidences", "nearest_distance"),
    ]
    paths = [part_name(n) for n in range(3)]
    for path, part in zip(paths, (entries[:1], entries[1:1], entries[1:]), strict=True):
        write_table(folder, path, part)
    back = read_entries(folder, paths, _EXITS, _LABELS)
    assert back.label.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(back.answers[:, :3], swept.answers)
    np.testing.assert_array_equal(back.confidences[:, :3], swept.confidences)
    np.testing.assert_array_equal(back.answers[:, 3:5], votes.answers)
    np.testing.assert_array_equal(back.confidences[:, 3:5], votes.confidences)
    np.testing.assert_array_equal(back.answers[sampled, 5:], fitted.answers)
    np.testing.assert_array_equal(back.confidences[sampled, 5:], fitted.confidences)
    assert np.isnan(back.confidences[1, 5:]).all()
    assert not back.right[1, 5:].any(), "an exit that was not read is not right"
    assert back.complete.tolist() == [0, 2, 3]
    assert (back.answers.dtype, back.confidences.dtype) == (np.uint16, np.float32)
    np.testing.assert_array_equal(read_nearest(folder, paths), nearest)


def test_entries_of_the_first_format_know_no_distances(tmp_path):
    folder = Folder(str(tmp_path))
    _, table = _swept(["a", "b"])
    entries = entries_table(table, [_more(2, 1, 0)], np.zeros(2, np.float32))
    write_table(folder, "new.parquet", entries)
    write_table(folder, "old.parquet", entries.drop_columns(["nearest_distance"]))
    assert read_nearest(folder, ["new.parquet"]).tolist() == [0, 0]
    assert read_nearest(folder, ["old.parquet"]) is None
    assert "nearest_distance" not in columns_of(folder, "old.parquet")


def test_answers_are_those_of_the_distributions():
    one = np.array([[0.2, 0.8], [0.5, 0.5]])
    other = np.array([[0.9, 0.1], [0.3, 0.7]])
    found = answers_of([one, other])
    assert found.answers.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(found.confidences, [[0.8, 0.9], [0.5, 0.7]])
    assert (found.answers.dtype, found.confidences.dtype) == (np.uint16, np.float32)


def test_a_shard_without_rows_is_a_table_of_the_same_columns():
    _, some = _swept(["a"])
    _, none = _swept([])
    assert none.schema == some.schema
    for key in range(2):
        assert list_values(none[key_column(key)]).shape == (0, 4)
    nobody = spread_over(_more(0, 8, 0), np.zeros(0, dtype=bool))
    entries = entries_table(none, [nobody], np.zeros(0, np.float32))
    assert list_values(entries["confidences"]).shape == (0, 11)


def test_rejects_may_have_no_id():
    rejects = [Reject(None, "a.csv", 1, "no id"), Reject("r2", "a.csv", 2, "text is null")]
    assert rejects_table(rejects).to_pylist() == [
        {"id": None, "source_file": "a.csv", "row": 1, "reason": "no id"},
        {"id": "r2", "source_file": "a.csv", "row": 2, "reason": "text is null"},
    ]
