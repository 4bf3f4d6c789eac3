from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raee.answers import Answers, Neighbours, answers_of, joined, spread_over
from raee.errors import InputError
from raee.exits import exits_of
from storage.parquet import list_values, part_name, read_table, write_table
from storage.store import Folder
from storage.version_files import VersionFiles
from tasks.entries import (
    columns_of,
    entries_table,
    lists_path,
    lists_table,
    read_entries,
    read_lists,
    read_nearest,
    read_rows,
    write_entries,
)

_LABELS = ("no", "yes")
_EXITS = exits_of(2, (0, 1))
_HASHES = np.array([1, 2], np.uint64)


def _files_in(folder):
    """All files of a folder as those of a version."""
    names = [found.name for found in folder.files()]
    return VersionFiles({name: (folder, folder.record(name)) for name in names})


@pytest.fixture
def parts(tmp_path):
    """Three parts, of 4, 0 and 3 entries."""
    folder = Folder(str(tmp_path))
    for number, rows in enumerate((range(4), range(0), range(4, 7))):
        table = pa.table({"id": [f"r{i}" for i in rows], "text": [f"text {i}" for i in rows]})
        table = table.cast(pa.schema([("id", pa.string()), ("text", pa.string())]))
        write_table(folder, f"entries/{part_name(number)}", table)
    return _files_in(folder)


@pytest.mark.parametrize("positions", [[], [0], [6, 0, 3], [5, 5, 1], [4, 3]])
def test_rows_come_in_the_order_in_which_they_are_asked(parts, positions):
    table = read_rows(parts, ["id"], positions)
    assert table.schema.names == ["id"]
    assert table["id"].to_pylist() == [f"r{i}" for i in positions]


_MANY = 7_000


def _many(folder, write):
    """A part of many entries, whose texts do not shrink, and another of one."""
    dice = np.random.default_rng(0)
    texts = [dice.bytes(50).hex() for _ in range(_MANY + 1)]
    rows = pa.table({"id": [f"r{i}" for i in range(_MANY + 1)], "text": texts})
    for number, part in enumerate((rows[:_MANY], rows[_MANY:])):
        write(folder, number, part)
    return [f"entries/{part_name(n)}" for n in range(2)], texts


def test_to_see_a_few_rows_the_texts_of_the_others_are_not_read(tmp_path):
    """A part that is damaged in its middle still gives its first and last rows."""
    paths, texts = _many(Folder(str(tmp_path)), write_entries)
    path = tmp_path / paths[0]
    middle = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    begin = middle.dictionary_page_offset or middle.data_page_offset
    data[begin : begin + middle.total_compressed_size] = bytes(middle.total_compressed_size)
    path.write_bytes(data)
    with pytest.raises(OSError):
        pq.read_table(path)
    positions = [_MANY - 1, 3, _MANY, 1_999, 3]
    found = read_rows(_files_in(Folder(str(tmp_path))), ["id", "text"], positions)
    assert found["text"].to_pylist() == [texts[i] for i in positions]
    assert found["id"].to_pylist() == [f"r{i}" for i in positions]


def test_rows_of_a_part_that_can_only_be_read_as_a_whole_are_found_as_well(tmp_path):
    def write_whole(folder, number, table):
        write_table(folder, f"entries/{part_name(number)}", table)

    folder = Folder(str(tmp_path))
    paths, texts = _many(folder, write_whole)
    assert pq.read_metadata(tmp_path / paths[0]).num_row_groups == 1
    positions = [_MANY, 2_000, 6_999, 0]
    found = read_rows(_files_in(folder), ["text"], positions)["text"].to_pylist()
    assert found == [texts[i] for i in positions]


def test_the_same_entries_give_the_same_bytes(tmp_path):
    records = []
    for name in ("a", "b"):
        folder = Folder(str(tmp_path / name))
        paths, _ = _many(folder, write_entries)
        records.append([folder.record(path) for path in paths])
    assert records[0] == records[1]


def test_a_column_that_entries_lack_is_bad_input(parts):
    with pytest.raises(InputError, match=r"part-00000.parquet has no column 'text_hash'"):
        read_rows(parts, ["text_hash"], [0])


def _rows(texts, keep_text=True):
    """Rows of a shard, as the sweep leaves them."""
    columns = {
        "id": pa.array([f"r{i}" for i in range(len(texts))], pa.string()),
        "text_hash": pa.array([f"hash of {text}" for text in texts], pa.string()),
        "text": pa.array(texts, pa.string()),
        "label": pa.array([i % 2 for i in range(len(texts))], pa.uint16()),
        "sampled": pa.array([True] * len(texts), pa.bool_()),
    }
    if not keep_text:
        del columns["text"]
    return pa.table(columns)


def _answers(rows, exits, seed):
    """Random answers of some exits for some rows."""
    dice = np.random.default_rng(seed)
    answers = dice.integers(0, 2, (rows, exits)).astype(np.uint16)
    return Answers(answers, dice.uniform(0.5, 1, (rows, exits)).astype(np.float32))


@pytest.mark.parametrize("keep_text", [True, False])
def test_entries_come_back_as_they_were_swept_voted_and_fitted(tmp_path, keep_text):
    folder = Folder(str(tmp_path))
    rows = _rows(["a", "b", "c", "d"], keep_text)
    sampled = np.array([True, False, True, True])
    heads, votes, fitted = _answers(4, 3, 0), _answers(4, 2, 1), _answers(3, len(_EXITS) - 5, 2)
    nearest = np.array([0.5, 0, np.inf, 2], np.float32)
    hashes = np.array([7, 2**64 - 1, 7, 0], np.uint64)
    answers = joined([heads, votes, spread_over(fitted, sampled)])
    entries = entries_table(rows, hashes, answers, nearest)
    assert entries.schema.names == [
        *("id", "text_hash"),
        *(["text"] if keep_text else []),
        *("label", "answers", "confidences", "nearest_distance", "tokens"),
    ]
    paths = [part_name(n) for n in range(3)]
    for path, part in zip(paths, (entries[:1], entries[1:1], entries[1:]), strict=True):
        write_table(folder, path, part)
    read = partial(read_table, folder)
    back = read_entries(read, paths, _EXITS, _LABELS)
    assert back.label.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(back.hashes, hashes)
    np.testing.assert_array_equal(back.answers[:, :3], heads.answers)
    np.testing.assert_array_equal(back.confidences[:, :3], heads.confidences)
    np.testing.assert_array_equal(back.answers[:, 3:5], votes.answers)
    np.testing.assert_array_equal(back.confidences[:, 3:5], votes.confidences)
    np.testing.assert_array_equal(back.answers[sampled, 5:], fitted.answers)
    np.testing.assert_array_equal(back.confidences[sampled, 5:], fitted.confidences)
    assert np.isnan(back.confidences[1, 5:]).all()
    assert not back.right[1, 5:].any(), "an exit that was not read is not right"
    assert back.complete.tolist() == [0, 2, 3]
    assert (back.answers.dtype, back.confidences.dtype) == (np.uint16, np.float32)
    np.testing.assert_array_equal(read_nearest(read, paths), nearest)


def test_entries_of_the_first_format_know_no_distances(tmp_path):
    """Readers know it by the manifest's format, and do not ask."""
    folder = Folder(str(tmp_path))
    entries = entries_table(_rows(["a", "b"]), _HASHES, _answers(2, 1, 0), np.zeros(2, np.float32))
    write_table(folder, "new.parquet", entries)
    write_table(folder, "old.parquet", entries.drop_columns(["nearest_distance"]))
    read = partial(read_table, folder)
    assert read_nearest(read, ["new.parquet"]).tolist() == [0, 0]
    assert "nearest_distance" not in columns_of(_files_in(folder), "old.parquet")
    with pytest.raises(InputError, match="nearest_distance"):
        read_nearest(read, ["old.parquet"])


def test_entries_of_other_exits_are_bad_input(tmp_path):
    folder = Folder(str(tmp_path))
    entries = entries_table(_rows(["a", "b"]), _HASHES, _answers(2, 3, 0), np.zeros(2, np.float32))
    write_table(folder, "part.parquet", entries)
    with pytest.raises(InputError, match="column answers is fixed_size"):
        read_entries(partial(read_table, folder), ["part.parquet"], _EXITS, _LABELS)


def test_before_format_4_texts_are_equal_if_their_characters_are(tmp_path):
    folder = Folder(str(tmp_path))
    answers = _answers(3, len(_EXITS), 0)
    hashes = np.arange(3, dtype=np.uint64)
    entries = entries_table(_rows(["a", "b", "a"]), hashes, answers, np.zeros(3, np.float32))
    write_table(folder, "old.parquet", entries.drop_columns(["tokens"]))
    read = partial(read_table, folder)
    back = read_entries(read, ["old.parquet"], _EXITS, _LABELS, 3)
    assert back.texts.repeated.tolist() == [True, False, True]
    with pytest.raises(InputError, match="tokens"):
        read_entries(read, ["old.parquet"], _EXITS, _LABELS)


def test_lists_of_neighbours_come_back_by_the_first_key_as_those_of_all_rows(tmp_path):
    folder = Folder(str(tmp_path))
    by_key = [
        Neighbours(np.array([[1, 2], [0, -1], [0, 1]]), np.array([[1, 2], [1, np.inf], [2, 3]])),
        Neighbours(np.array([[2], [2], [1]]), np.array([[9], [8], [8]])),
    ]
    by_key = [Neighbours(n.rows, n.distances.astype(np.float32)) for n in by_key]
    paths = [lists_path(n) for n in range(2)]
    for path, part in zip(paths, (slice(1), slice(1, 3)), strict=True):
        table = lists_table([n[part] for n in by_key])
        assert table.schema.names == ["rows-0", "distances-0", "rows-1", "distances-1"]
        write_table(folder, path, table)
    found = read_lists(partial(read_table, folder), paths, 3)
    np.testing.assert_array_equal(found.rows, by_key[0].rows)
    np.testing.assert_array_equal(found.distances, by_key[0].distances)
    assert found.own.tolist() == [0, 1, 2]
    assert found.shortest == 1


def test_answers_are_those_of_the_distributions():
    one = np.array([[0.2, 0.8], [0.5, 0.5]])
    other = np.array([[0.9, 0.1], [0.3, 0.7]])
    found = answers_of([one, other])
    assert found.answers.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(found.confidences, [[0.8, 0.9], [0.5, 0.7]])
    assert (found.answers.dtype, found.confidences.dtype) == (np.uint16, np.float32)


def test_a_part_without_rows_is_a_table_of_the_same_columns():
    nobody, everybody = (
        entries_table(
            _rows(texts),
            _HASHES[: len(texts)],
            joined(
                [
                    _answers(len(texts), 3, 0),
                    spread_over(_answers(len(texts), 8, 0), np.ones(len(texts), bool)),
                ]
            ),
            np.zeros(len(texts), np.float32),
        )
        for texts in ([], ["a"])
    )
    assert nobody.schema == everybody.schema
    assert list_values(nobody["confidences"]).shape == (0, 11)
