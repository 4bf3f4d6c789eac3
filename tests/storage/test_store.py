import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import s3fs

import storage.store
from raee.errors import InputError
from storage.store import Folder
from tests.raee.errors import refused
from tests.rights import open_to_all, somebody_else

_THREADS = 16


def test_a_new_file_is_written_whole(store):
    folder = Folder(store)
    folder.write_new("deep/er/a.json", b"abc")
    assert folder.read("deep/er/a.json") == b"abc"
    assert folder.exists("deep/er/a.json")
    assert folder.size("deep/er/a.json") == 3
    assert (folder / "deep").names() == ["er"]


def test_a_taken_name_stays_as_it_is(store):
    folder = Folder(store)
    folder.write_new("a.json", b"first")
    with pytest.raises(FileExistsError):
        folder.write_new("a.json", b"second")
    assert folder.read("a.json") == b"first"
    assert folder.names() == ["a.json"]


def test_of_racing_threads_one_writes_the_file(shared_store):
    folder = Folder(shared_store)
    for number in range(5):
        start = threading.Barrier(_THREADS)

        def write(i, name=f"{number:08d}.json", start=start):
            start.wait()
            try:
                folder.write_new(name, b"%d" % i * 10_000)
            except FileExistsError:
                return None
            return i

        with ThreadPoolExecutor(_THREADS) as pool:
            winners = [i for i in pool.map(write, range(_THREADS)) if i is not None]
        assert len(winners) == 1
        assert folder.read(f"{number:08d}.json") == b"%d" % winners[0] * 10_000
    assert len(folder.files()) == 5, "a loser left its partial file"


def test_of_racing_processes_one_writes_each_file(shared_store):
    program = """
import sys, time
from storage.store import Folder
me, folder = sys.argv[1], Folder(sys.argv[2])
folder.write_new(f"ready-{me}", b"")
while not folder.exists("go"):
    time.sleep(0.001)
for n in range(25):
    try:
        folder.write_new(f"race/{n:03d}", me.encode() * 5_000)
        print(n)
    except FileExistsError:
        pass
"""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(i), shared_store], stdout=subprocess.PIPE
        )
        for i in range(3)
    ]
    folder = Folder(shared_store)
    while not all(folder.exists(f"ready-{i}") for i in range(3)):
        assert all(r.poll() is None for r in racers)
    folder.write_new("go", b"")
    won = {i: racer.communicate(timeout=60)[0].split() for i, racer in enumerate(racers)}
    assert sorted(int(n) for numbers in won.values() for n in numbers) == list(range(25))
    for i, numbers in won.items():
        for n in numbers:
            assert folder.read(f"race/{int(n):03d}") == b"%d" % i * 5_000
    assert len((folder / "race").files()) == 25


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path):
    with pytest.raises(TypeError):
        Folder(str(tmp_path)).write_new("a.json", "not bytes")
    assert os.listdir(tmp_path) == []


def test_a_created_file_stands_with_its_checksum(store):
    folder = Folder(store)
    pieces = [b"abc", memoryview(b"defg"), np.arange(5, dtype=np.float32), b""]
    with folder.create("sub/a.bin") as file:
        written = [file.write(piece) for piece in pieces]
    data = b"".join(bytes(piece) for piece in pieces)
    assert written == [3, 4, 20, 0]
    assert folder.read("sub/a.bin") == data
    record = file.record(rows=7)
    assert (record.path, record.bytes, record.rows) == ("sub/a.bin", len(data), 7)
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert folder.record("sub/a.bin") == file.record()


def test_a_created_file_replaces_the_one_before(store):
    folder = Folder(store)
    for data in (b"a longer one", b"short"):
        with folder.create("a.bin") as file:
            file.write(data)
        assert folder.read("a.bin") == data
    assert folder.names() == ["a.bin"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    folder = Folder(str(tmp_path))
    folder.write_new("a.bin", b"old")
    with folder.create("a.bin") as file:
        file.write(b"new " * 100_000)
        assert folder.read("a.bin") == b"old"
        assert folder.names() == ["a.bin"]
    assert folder.read("a.bin") == b"new " * 100_000


@pytest.mark.parametrize("there_before", [True, False])
def test_a_block_that_fails_leaves_nothing_behind(tmp_path, there_before):
    folder = Folder(str(tmp_path))
    if there_before:
        folder.write_new("a.bin", b"old")

    def fail():
        with folder.create("a.bin") as file:
            file.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == ["a.bin"] * there_before
    assert not there_before or folder.read("a.bin") == b"old"


def test_what_a_killed_writer_leaves_is_not_seen(tmp_path):
    program = """
import os, sys
from storage.store import Folder
with Folder(sys.argv[1]).create("a.bin") as file:
    file.write(b"half of it")
    os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    folder = Folder(str(tmp_path))
    assert done.returncode == 9
    assert len(os.listdir(tmp_path)) == 1, "the killed writer left a partial file"
    assert folder.names() == []
    assert not folder.exists("a.bin")
    with folder.create("a.bin") as file:
        file.write(b"whole")
    assert folder.names() == ["a.bin"]


def test_names_are_sorted_and_none_where_there_is_no_folder(store):
    folder = Folder(store)
    assert folder.names() == []
    for name in ("b", "a/x", "c", ".hidden"):
        folder.write_new(name, b"")
    assert folder.names() == ["a", "b", "c"]


def test_a_file_in_a_folders_place_is_an_input_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="a file stands where a folder should be"):
        Folder(str(tmp_path / "file/databases")).names()


def test_missing_files_are_reported_as_such(store):
    folder = Folder(store)
    assert not folder.exists("a")
    for ask in (folder.read, folder.size, folder.record, folder.open):
        with pytest.raises(FileNotFoundError):
            ask("a")


def test_an_open_file_can_be_sought(store):
    folder = Folder(store)
    folder.write_new("a", b"0123456789")
    with folder.open("a") as file:
        file.seek(4)
        assert file.read(3) == b"456"


@pytest.mark.parametrize("size", [0, 7, 8, 9, 30])
def test_an_open_file_has_all_its_bytes_however_many(store, monkeypatch, size):
    """A remote store is asked for 8 bytes first, and whether that is all."""
    monkeypatch.setattr(storage.store, "_SMALL", 8)
    folder, data = Folder(store), bytes(range(size))
    folder.write_new("a", data)
    with folder.open("a") as file:
        assert file.read() == data
        file.seek(size // 2)
        assert file.read() == data[size // 2 :]
    assert b"".join(folder.chunks("a")) == data


_ODD_NAMES = [
    "two words",
    "grün 😀",
    "100%",
    "%20",
    "a+b",
    "a#b",
    "what?",
    "a&b=c;d,e",
    'it\'s "quoted"',
    "[ab]",
    "*",
    "back\\slash",
    "~",
    "$HOME",
    "{}",
]


def test_names_mean_themselves_whatever_is_in_them(store):
    folder, copies = Folder(store) / "from?[here]", Folder(store) / "to #1"
    for name in _ODD_NAMES:
        folder.write_new(f"{name}/{name}", name.encode())
        with folder.create(f"{name}/{name}.created") as file:
            file.write(name.encode())
    assert folder.names() == sorted(_ODD_NAMES)
    paths = [f"{name}/{name}" for name in _ODD_NAMES]
    assert [found.name for found in folder.files()] == sorted(
        [*paths, *(f"{path}.created" for path in paths)]
    )
    folder.copy(paths, copies)
    for path, name in zip(paths, _ODD_NAMES, strict=True):
        assert folder.exists(path)
        assert copies.read(path) == folder.read(f"{path}.created") == name.encode()
        assert folder.record(path).bytes == folder.size(path) == len(name.encode())
        folder.delete(path)
        assert not folder.exists(path)
        assert (folder / name).names() == [f"{name}.created"]


@pytest.mark.parametrize("name", ["a*", "a?", "[a]b", "a"])
def test_a_folder_whose_name_looks_like_a_pattern_is_removed_alone(store, name):
    folder = Folder(store)
    for other in ("ab", "a*", "a?", "[a]b", "a", "abc"):
        folder.write_new(f"{other}/x", b"")
    (folder / name).remove()
    assert folder.names() == sorted({"ab", "a*", "a?", "[a]b", "a", "abc"} - {name})


def test_files_are_found_with_their_sizes_and_times(store):
    folder = Folder(store)
    assert folder.files() == []
    before = datetime.now(UTC) - timedelta(seconds=2)  # servers' clocks tick in seconds
    for name in ("b/c", "b/a/x", "a", "b.x"):
        folder.write_new(name, b"x" * len(name))
    found = folder.files()
    assert [(f.name, f.bytes) for f in found] == [("a", 1), ("b.x", 3), ("b/a/x", 5), ("b/c", 3)]
    assert all(before <= f.modified <= datetime.now(UTC) + timedelta(seconds=2) for f in found)
    assert [f.name for f in (folder / "b").files()] == ["a/x", "c"]


def test_a_listing_bears_that_files_come_and_go(tmp_path):
    """As a build's partial files do, while another process lists its store."""
    folder = Folder(str(tmp_path))
    for number in range(50):
        folder.write_new(f"a/{number}", b"")
    stop = threading.Event()

    def bustle():
        while not stop.is_set():
            with folder.create("a/b") as file:
                file.write(b"x")

    with ThreadPoolExecutor(1) as pool:
        bustling = pool.submit(bustle)
        found = [{f.name for f in folder.files()} for _ in range(200)]
        stop.set()
        bustling.result()
    assert all({f"a/{number}" for number in range(50)} <= names for names in found)


def test_a_file_that_comes_between_two_looks_of_a_listing_is_no_error(store_on, monkeypatch):
    folder = Folder(store_on("moto"))
    folder.write_new("a", b"1")
    list_objects = s3fs.S3FileSystem._lsdir
    looks = []

    async def before_it_came(self, path, *args, **kwargs):
        looks.append(path)
        return [] if len(looks) == 1 else await list_objects(self, path, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_lsdir", before_it_came)
    assert folder.files() == []
    assert [f.name for f in folder.files()] == ["a"]


def test_copies_of_missing_files_are_reported_as_such(store):
    folder = Folder(store)
    with pytest.raises(FileNotFoundError):
        folder.copy(["a"], folder / "b")


def test_a_removed_folder_is_gone_with_all_that_is_in_it(store):
    folder = Folder(store)
    folder.write_new("work/deep/a", b"")
    folder.write_new("b", b"")
    (folder / "work").remove()
    assert folder.names() == ["b"]
    (folder / "work").remove()  # again, where it is gone


def test_a_folders_address_names_it_again(store):
    folder = Folder(store) / "a" / "b"
    folder.write_new("c", b"x")
    assert Folder(folder.uri).read("c") == b"x"
    assert str(Folder(f"{folder.uri}/")) == folder.uri


def test_a_relative_folder_does_not_move_with_the_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Folder("here")
    monkeypatch.chdir("/")
    folder.write_new("a", b"x")
    assert (tmp_path / "here/a").read_bytes() == b"x"


def test_an_empty_address_is_not_the_current_folder():
    with pytest.raises(InputError, match="address is empty"):
        Folder("")


def test_an_unknown_protocol_is_an_input_error():
    with pytest.raises(InputError, match="nowhere://bucket"):
        Folder("nowhere://bucket/store")


def _asked_below(folder):
    """All that may meet something else than it needs, by name."""

    def create():
        with folder.create("a/b") as file:
            file.write(b"x")

    return {
        "read": lambda: folder.read("a/b"),
        "open": lambda: folder.open("a/b"),
        "size": lambda: folder.size("a/b"),
        "record": lambda: folder.record("a/b"),
        "names": (folder / "a").names,
        "files": (folder / "a").files,
        "write_new": lambda: folder.write_new("a/b", b"x"),
        "create": create,
        "copy": lambda: folder.copy(["c"], folder, ["a/b"]),
    }


@pytest.mark.parametrize("ask", _asked_below(Folder("/nowhere")))
class TestSomethingElseInTheWay:
    """Is one line that names it, and no second try would find it otherwise."""

    def test_a_file_where_a_folder_should_be(self, tmp_path, ask):
        (tmp_path / "a").write_bytes(b"mine")
        (tmp_path / "c").write_bytes(b"")
        with refused(f"^{tmp_path}/a: a file stands where a folder should be$"):
            _asked_below(Folder(str(tmp_path)))[ask]()
        assert (tmp_path / "a").read_bytes() == b"mine"

    def test_a_folder_where_a_file_should_be(self, tmp_path, ask):
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "c").write_bytes(b"")
        asked = _asked_below(Folder(str(tmp_path)))[ask]
        if ask == "write_new":
            with pytest.raises(FileExistsError):
                asked()
        elif ask in ("names", "files", "size"):
            asked()
        else:
            with refused(f"^{tmp_path}/a/b: a folder stands where a file should be$"):
                asked()
        assert os.listdir(tmp_path / "a/b") == []
        assert os.listdir(tmp_path / "a") == ["b"]

    def test_links_in_a_circle(self, tmp_path, ask):
        (tmp_path / "a").symlink_to("a")
        (tmp_path / "c").write_bytes(b"")
        said = "(its links lead in a circle|a file stands where a folder should be)"
        with refused(f"^{tmp_path}/a(/b)?: {said}$"):
            _asked_below(Folder(str(tmp_path)))[ask]()

    def test_no_right_to_read_or_write(self, ask):
        with open_to_all() as root:
            (root / "a").mkdir(mode=0)
            (root / "c").write_bytes(b"")
            with somebody_else(), refused(f"^{root}/a(/b)?: access denied; may you read and"):
                _asked_below(Folder(str(root)))[ask]()


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    with refused("x{300}.*: a name is too long$"):
        Folder(str(tmp_path)).write_new("x" * 300, b"")


def test_what_is_not_there_below_a_file_is_deleted_already(tmp_path):
    (tmp_path / "a").write_bytes(b"mine")
    Folder(str(tmp_path)).delete("a/b")
    assert not Folder(str(tmp_path)).exists("a/b")
