from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.parquet import (
    list_column,
    list_values,
    part_name,
    read_footer,
    read_table,
    write_table,
)
from storage.store import Folder
from tests.raee.errors import refused

_TABLE = pa.table({"n": range(10), "text": [str(n) * n for n in range(10)]})


def test_a_table_comes_back_as_it_was(store):
    folder = Folder(store)
    record = write_table(folder, "entries/part-00000.parquet", _TABLE)
    assert record == replace(folder.record(record.path), rows=10)
    assert read_table(folder, record.path).equals(_TABLE)
    assert read_table(folder, record.path, ["text"]).equals(_TABLE.select(["text"]))


def test_the_same_table_gives_the_same_bytes(store):
    folder = Folder(store)
    first = write_table(folder, "a.parquet", _TABLE)
    second = write_table(folder, "b.parquet", pa.concat_tables([_TABLE]))
    assert first.sha256 == second.sha256


def test_a_table_is_plain_parquet(tmp_path):
    write_table(Folder(str(tmp_path)), "a.parquet", _TABLE)
    assert pq.read_table(tmp_path / "a.parquet").equals(_TABLE)


def test_a_footer_says_what_a_table_is(store):
    folder = Folder(store)
    lists = list_column(np.arange(20, dtype=np.uint16).reshape(10, 2))
    record = write_table(folder, "a.parquet", _TABLE.append_column("lists", lists))
    footer = read_footer(folder, record.path)
    assert footer.rows == 10
    assert footer.schema == read_table(folder, record.path).schema
    assert footer.largest == {"n": 9, "text": "9" * 9, "lists": 19}


def test_the_largest_of_a_table_is_that_of_all_its_row_groups(tmp_path):
    for values in ([5, 1, 1, 1], [1, 1, 1, 5], [1, 5, 1, 1]):
        pq.write_table(pa.table({"n": values}), tmp_path / "a.parquet", row_group_size=2)
        assert read_footer(Folder(str(tmp_path)), "a.parquet").largest == {"n": 5}


def test_a_footer_that_does_not_say_the_largest_is_no_fault(tmp_path):
    pq.write_table(_TABLE, tmp_path / "a.parquet", write_statistics=False)
    assert read_footer(Folder(str(tmp_path)), "a.parquet").largest == {}


@pytest.mark.parametrize("content", [b"", b"garbage" * 9])
def test_the_footer_of_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with refused("a.parquet is no Parquet: "):
        read_footer(Folder(str(tmp_path)), "a.parquet")


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_an_array_comes_back_from_its_column(store, rows):
    folder = Folder(store)
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    write_table(folder, "a.parquet", pa.table({"v": list_column(values)}))
    column = read_table(folder, "a.parquet")["v"]
    assert column.type == pa.list_(pa.float32(), 3)
    back = list_values(column)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, values)


def test_slices_and_chunks_of_a_column_keep_their_rows():
    values = np.arange(24, dtype=np.uint16).reshape(8, 3)
    column = pa.chunked_array([list_column(values)[2:5], list_column(values)[6:]])
    np.testing.assert_array_equal(list_values(column), values[[2, 3, 4, 6, 7]])


def test_an_array_of_another_memory_order_keeps_its_rows():
    values = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(list_values(pa.chunked_array([list_column(values)])), values)


def test_parts_sort_by_their_numbers():
    names = [part_name(n) for n in (0, 9, 10, 99, 12_345)]
    assert names == sorted(names)
    assert names[1] == "part-00009.parquet"


def test_vectors_are_written_plain_and_all_else_compressed(tmp_path):
    table = pa.table(
        {
            "id": pa.array(["a", "b"]),
            "key": list_column(np.ones((2, 3), np.float32)),
            "answers": list_column(np.ones((2, 3), np.uint16)),
        }
    )
    write_table(Folder(str(tmp_path)), "t.parquet", table)
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    found = {c.path_in_schema: c.compression for c in columns}
    assert found == {
        "id": "ZSTD",
        "key.list.element": "UNCOMPRESSED",
        "answers.list.element": "ZSTD",
    }


@pytest.mark.parametrize(
    "rows", [[], [[]], [[7, 2**31 - 1], [], [0]], [[], []]], ids=["none", "one", "some", "empty"]
)
def test_rows_of_different_lengths_come_back_as_they_were(store, rows):
    values = np.empty(len(rows), object)
    values[:] = [np.array(row, np.int32) for row in rows]
    table = pa.table({"ids": list_column(values)})
    assert table.schema.field("ids").type == pa.list_(pa.int32())
    assert table["ids"].to_pylist() == rows
    folder = Folder(store)
    write_table(folder, "a.parquet", table)
    found = list_values(read_table(folder, "a.parquet")["ids"])
    assert [row.tolist() for row in found] == rows
    assert all(row.dtype == np.int32 for row in found)
    twice = list_values(pa.concat_tables([table, table])["ids"])
    assert [row.tolist() for row in twice] == 2 * rows
