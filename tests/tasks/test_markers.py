import time

from storage.store import FileRecord, Folder
from tasks.markers import done, marker, rows_done

_FILE = FileRecord("part-00000.parquet", 5, "abc", rows=2)


def test_a_step_is_done_when_its_marker_says_so(tmp_path):
    folder = Folder(str(tmp_path / "work"))
    assert marker(folder, "shard-00000") is None
    done(folder, "shard-00000", [_FILE], 2, time.monotonic() - 1, cut=7)
    said = marker(folder, "shard-00000")
    assert (said["rows"], said["cut"], said["files"]) == (2, 7, [vars(_FILE)])
    assert 1 <= said["seconds"] < 60


def test_rows_done_are_those_of_the_steps_of_one_kind(tmp_path):
    folder = Folder(str(tmp_path))
    assert rows_done(folder, "shard", 5) == 0
    for step, rows in (
        ("shard-00000", 3),
        ("shard-00003", 4),
        ("shard-00005", 5),
        ("part-00001", 9),
    ):
        done(folder, step, [], rows, time.monotonic())
    assert rows_done(folder, "shard", 5) == 7
