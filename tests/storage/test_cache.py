import errno
import mmap
import os
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.cache import local_file, local_files
from storage.checked import CheckedFile, FileRecord
from storage.store import Folder
from tests.raee.errors import refused
from tests.storage.remote import content, opened, record_of, remote_folder

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder, empty; the limit is 100 bytes."""
    monkeypatch.setenv("RAEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAEE_CACHE_BYTES", "100")
    return tmp_path / "cache"


@pytest.fixture
def there(tmp_path):
    """The folder that is remote."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def put(there: Path, name: str, size: int = 40) -> FileRecord:
    """Write a remote file; its content follows from its name."""
    data = content(sum(name.encode()), size)
    (there / name).write_bytes(data)
    return record_of(name, data)


def use(there: Path, *records: FileRecord) -> None:
    for record in records:
        with local_file(remote_folder(there), record) as path:
            assert path.stat().st_size == record.bytes


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def start(*arguments: str) -> subprocess.Popen:
    program = [sys.executable, "-m", "tests.storage.remote", *arguments]
    return subprocess.Popen(program, cwd=_ROOT, stdout=subprocess.PIPE)


def test_a_local_file_is_served_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("RAEE_CACHE", str(tmp_path / "cache"))
    folder = Folder(str(tmp_path / "store"))
    folder.write_new("keys/a.faiss", b"abc")
    with local_file(folder, folder.record("keys/a.faiss")) as path:
        assert path == tmp_path / "store/keys/a.faiss"
    assert not (tmp_path / "cache").exists()


def test_a_remote_file_comes_once(cache, there):
    record = put(there, "a")
    use(there, record)
    (there / "a").unlink()
    with local_file(remote_folder(there), record) as path:
        assert record_of("a", path.read_bytes()) == record
    assert path == cache / record.sha256
    assert opened(there) == ["a"]


def test_a_set_of_files_comes_in_its_order(store, cache):
    folder = Folder(store)
    files = {"keys/a": b"a" * 70, "keys/b": b"b" * 70, "c": b"a" * 70, "empty": b""}
    for name, data in files.items():
        folder.write_new(name, data)
    records = [record_of(name, data) for name, data in files.items()]
    with local_files(folder, records) as paths:
        assert [path.read_bytes() for path in paths] == list(files.values())


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"x" * 40, "a has another SHA-256 than its manifest says"),
        (b"x" * 39, "a has 39 bytes, its manifest says 40"),
        (b"x" * 41, "a has 41 bytes, its manifest says 40"),
        (b"", "a has 0 bytes, its manifest says 40"),
        (None, "a is missing"),
    ],
    ids=["other bytes", "cut", "longer", "empty", "missing"],
)
def test_a_damaged_file_is_refused_and_nothing_of_it_kept(cache, there, remote, data, fault):
    record = put(there, "a")
    folder = remote_folder(there) if remote else Folder(str(there))
    (there / "a").unlink()
    if data is not None:
        (there / "a").write_bytes(data)
    for _ in range(2):
        with refused(f"{folder} is damaged: {fault}. Roll back"), local_file(folder, record):
            pass
    assert not remote or names(cache) == set()
    put(there, "a")
    with local_file(folder, record) as path:
        assert path.stat().st_size == 40


def test_a_truncated_copy_in_the_cache_is_replaced(cache, there):
    record = put(there, "a")
    use(there, record)
    os.truncate(cache / record.sha256, 39)
    with local_file(remote_folder(there), record) as path:
        assert record_of("a", path.read_bytes()) == record


def test_a_checksum_that_is_none_names_no_file(cache, there):
    record = FileRecord("a", 1, "../../elsewhere")
    with refused("says no SHA-256 of a"):
        use(there, record)
    assert names(cache) == set()


def test_a_full_disk_leaves_nothing_behind(cache, there, monkeypatch):
    def write(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    record = put(there, "a")
    with monkeypatch.context() as full:
        full.setattr(CheckedFile, "write", write)
        with pytest.raises(OSError, match="No space left"):
            use(there, record)
    assert names(cache) == set()
    use(there, record)


def test_a_download_holds_little_in_memory(cache, there):
    with open(there / "a", "wb") as file:
        file.truncate(48 << 20)
    record = Folder(str(there)).record("a")
    tracemalloc.start()
    try:
        use(there, record)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_longest_unused_file_goes_first(cache, there):
    a, b, c, d = (put(there, name) for name in "abcd")
    use(there, a, b, a, c)
    assert names(cache) == {a.sha256, c.sha256}
    use(there, a, d)
    assert names(cache) == {a.sha256, d.sha256}


def test_room_is_made_before_a_file_comes(cache, there):
    a, b, c = (put(there, name) for name in "abc")
    use(there, a, b)
    with local_file(remote_folder(there), c):
        assert names(cache) == {b.sha256, c.sha256}


def test_a_file_larger_than_the_cache_is_served_and_goes_first(cache, there):
    a, b, large = put(there, "a"), put(there, "b"), put(there, "large", 101)
    use(there, a, b)
    with local_file(remote_folder(there), large) as path:
        assert record_of("large", path.read_bytes()) == large
    assert names(cache) == {a.sha256, b.sha256}


def test_files_in_use_stay(cache, there):
    a, b, c, d = (put(there, name) for name in "abcd")
    with local_files(remote_folder(there), [a, b, c]) as paths:
        use(there, d)
        assert names(cache) == {a.sha256, b.sha256, c.sha256}
        assert [path.stat().st_size for path in paths] == [40, 40, 40]
    assert len(names(cache)) == 2


def test_a_file_in_use_twice_stays_until_the_second_is_done_with_it(cache, there):
    a, b, c = (put(there, name) for name in "abc")
    with local_file(remote_folder(there), a):
        use(there, a)
        use(there, b, c)
        assert names(cache) == {a.sha256, c.sha256}


def test_what_was_mapped_stays_readable_after_its_eviction(cache, there):
    a, b, c = (put(there, name) for name in "abc")
    with local_file(remote_folder(there), a) as path, open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    use(there, b, c)
    assert not path.exists()
    assert record_of("a", mapped[:]) == a
    mapped.close()


def test_other_files_in_the_folder_are_left_alone(cache, there):
    cache.mkdir()
    for name in ("notes", "a.lock", "x.partial", "0" * 63):
        (cache / name).write_bytes(b"x" * 200)
    use(there, put(there, "a"))
    assert {"notes", "a.lock", "x.partial", "0" * 63} < names(cache)


def test_a_cache_that_is_deleted_meanwhile_is_made_again(cache, there):
    record = put(there, "a")
    with local_file(remote_folder(there), record) as path:
        path.unlink()
        cache.rmdir()
    use(there, record)


def test_the_cache_lies_in_the_users_cache_folder_unless_named(there, tmp_path, monkeypatch):
    for name in ("RAEE_CACHE", "RAEE_CACHE_BYTES", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    record = put(there, "a")
    use(there, record)
    assert names(tmp_path / ".cache/raee") == {record.sha256}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    use(there, record)
    assert names(tmp_path / "xdg/raee") == {record.sha256}


@pytest.mark.parametrize("said", ["0", "-1", "1e9", "20 GB", "1.5"])
def test_a_limit_that_is_no_number_of_bytes_is_refused(cache, there, monkeypatch, said):
    monkeypatch.setenv("RAEE_CACHE_BYTES", said)
    with refused(f"RAEE_CACHE_BYTES is '{said}'; give the bytes"):
        use(there, put(there, "a"))


def test_a_cache_folder_that_cannot_be_made_is_refused(there, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("RAEE_CACHE", str(tmp_path / "file/cache"))
    with refused("file/cache cannot be made: Not a directory; let RAEE_CACHE name"):
        use(there, put(there, "a"))


def test_of_threads_that_want_one_file_one_downloads_it(cache, there, monkeypatch):
    monkeypatch.setenv("REMOTE_READ_SECONDS", "0.02")
    record, ready = put(there, "a"), threading.Barrier(8)

    def ask(_):
        ready.wait()
        with local_file(remote_folder(there), record) as path:
            return record_of("a", path.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [record] * 8
    assert opened(there) == ["a"]


@pytest.mark.parametrize(
    ("sizes", "limit", "downloads"),
    [
        pytest.param([3_000_000], 10_000_000, 1, id="one file, room for it"),
        pytest.param([60, 50, 40, 30, 20], 1_000, 5, id="room for all"),
        pytest.param([60, 50, 40, 30, 120], 100, None, id="room for two, and one larger than all"),
    ],
)
def test_processes_share_the_cache(cache, there, monkeypatch, sizes, limit, downloads):
    for number, size in enumerate(sizes):
        (there / f"file-{number}").write_bytes(content(number, size))
    monkeypatch.setenv("RAEE_CACHE_BYTES", str(limit))
    monkeypatch.setenv("REMOTE_READ_SECONDS", "0.001")
    users = [
        start("use-files", str(there), str(seed), "40", ",".join(map(str, sizes)))
        for seed in range(6)
    ]
    (there / "go").touch()
    for user in users:
        user.communicate(timeout=120)
        assert user.returncode == 0
    assert downloads is None or len(opened(there)) == downloads
    assert {len(name) for name in names(cache)} <= {64}, "only whole files are left"
    assert sum(path.stat().st_size for path in cache.iterdir()) <= limit


def test_what_a_killed_process_leaves_is_cleared_and_the_file_comes_whole(
    cache, there, monkeypatch
):
    put(there, "old", 3_000_000)
    put(there, "new", 3_000_000)
    monkeypatch.setenv("RAEE_CACHE_BYTES", "5000000")
    killed = start("kill", str(there))
    output = killed.communicate(timeout=120)[0]
    assert killed.returncode == 0
    calls, partials = map(int, output.split())
    assert calls > 20
    assert partials > 5


class Uses(RuleBasedStateMachine):
    """Whoever uses what: files in use are whole, the others fit in the cache."""

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.cache, there = folder / "cache", folder / "there"
        environment = self.stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("RAEE_CACHE", str(self.cache))
        environment.setenv("RAEE_CACHE_BYTES", "100")
        there.mkdir()
        self.folder = remote_folder(there)
        self.records = [put(there, f"{size}", size) for size in (0, 1, 30, 50, 70, 100, 130)]
        self.held: list[tuple[ExitStack, Path, FileRecord]] = []

    @rule(number=st.integers(0, 6))
    def use(self, number):
        with local_file(self.folder, self.records[number]):
            pass

    @rule(number=st.integers(0, 6))
    def hold(self, number):
        holder, record = ExitStack(), self.records[number]
        path = holder.enter_context(local_file(self.folder, record))
        self.held.append((holder, path, record))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_go(self, data):
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))[0].close()

    @invariant()
    def files_in_use_are_whole_and_the_others_fit(self):
        for _, path, record in self.held:
            assert record_of(record.path, path.read_bytes()) == record
        if self.cache.exists():
            held = {record.sha256 for _, _, record in self.held}
            unused = [path for path in self.cache.iterdir() if path.name not in held]
            assert sum(path.stat().st_size for path in unused) <= 100

    def teardown(self):
        for holder, _, _ in self.held:
            holder.close()
        self.stack.close()


TestUses = Uses.TestCase
TestUses.settings = settings(max_examples=40, stateful_step_count=25)
