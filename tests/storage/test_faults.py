"""A store that fails: each operation is done whole, or is one clear error and can be done again."""

import errno
import io
import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import storage.store
from raee.errors import InputError
from storage.cache import local_files
from storage.corpus import CorpusSpec
from storage.database import verify
from storage.faults import may_pass
from storage.parquet import read_table, write_table
from storage.store import Folder
from tests.storage.corpora import COMPRESSED, FORMATS, read_all, write_corpus
from tests.storage.databases import NAME, demo, manifest
from tests.storage.faulty import EVER, Fault, full, put, weather
from tests.storage.remote import content, record_of

_DATA = content(1, 10_000)
_TABLE = pa.table({"n": pa.array(range(3_000))})
_VERSION = "20260102-000000-000000-00000001"
_BEFORE = "20260101-000000-000000-00000001"
_FILES = {"a.bin": _DATA, "b.bin": content(2, 7_000)}
_RECORDS = tuple(record_of(name, data) for name, data in _FILES.items())
_MANIFESTS = {version: manifest(version, _RECORDS) for version in (_BEFORE, _VERSION)}

_ERRORS: dict[str, Callable[[], Exception]] = {
    "error": lambda: OSError(errno.EIO, "Input/output error"),
    "connection": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "time-out": lambda: TimeoutError("timed out"),
    "silent": ConnectionError,
    "full": full,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, tmp_path):
    """Files are read and written in several parts; the cache is the test's own."""
    monkeypatch.setattr(storage.store, "_BLOCK", 4_000)
    monkeypatch.setenv("RAEE_CACHE", str(tmp_path / "cache"))


class _Operation(NamedTuple):
    do: Callable[[str], object]
    """Given a store, as `_ready` leaves it; returns what is read."""
    names: tuple[str, ...] = ()
    """Files that there are afterwards and were not before."""


def _create(store: str) -> None:
    with Folder(store).create("new/a.bin") as file:
        for start in range(0, len(_DATA), 3_000):
            file.write(_DATA[start : start + 3_000])


def _cached(store: str) -> list[bytes]:
    with local_files(_version(store), _RECORDS) as paths:
        return [path.read_bytes() for path in paths]


def _version(store: str) -> Folder:
    return demo(store).version(_VERSION).folder


_PLACE = f"databases/{NAME}/versions/{_VERSION}"

_OPERATIONS = {
    "create": _Operation(_create, ("new/a.bin",)),
    "write_new": _Operation(lambda s: Folder(s).write_new("new/a.bin", _DATA), ("new/a.bin",)),
    "write_table": _Operation(
        lambda s: write_table(Folder(s), "new.parquet", _TABLE), ("new.parquet",)
    ),
    "copy": _Operation(
        lambda s: _version(s).copy(list(_FILES), Folder(s) / "new"), ("new/a.bin", "new/b.bin")
    ),
    "record": _Operation(lambda s: _version(s).record("a.bin")),
    "read": _Operation(lambda s: _version(s).read("a.bin")),
    "size": _Operation(lambda s: _version(s).size("a.bin")),
    "exists": _Operation(lambda s: [_version(s).exists(name) for name in ("a.bin", "none")]),
    "names": _Operation(lambda s: _version(s).names()),
    "files": _Operation(lambda s: [found.name for found in Folder(s).files()]),
    "read_table": _Operation(lambda s: read_table(Folder(s), "t.parquet").to_pydict()),
    "local_files": _Operation(_cached),
    "versions": _Operation(lambda s: [demo(s).ids(), demo(s).version(_BEFORE).manifest().id]),
    "verify": _Operation(lambda s: verify(_version(s), _RECORDS)),
    "publish": _Operation(
        lambda s: demo(s).version(_VERSION).publish(_MANIFESTS[_VERSION]),
        (f"{_PLACE}/manifest.json",),
    ),
    "promote": _Operation(
        lambda s: demo(s).promote(_BEFORE).version,
        (f"databases/{NAME}/aliases/production/00000001.json",),
    ),
}

_folders = itertools.count()


def _ready(root: Path) -> str:
    """A new store: a version, another one that lacks only its manifest, and a table."""
    path = root / f"store-{next(_folders)}"
    shutil.rmtree(root / "cache", ignore_errors=True)
    for version in (_BEFORE, _VERSION):
        for name, data in _FILES.items():
            put(f"{path}/databases/{NAME}/versions/{version}/{name}", data)
    said = _MANIFESTS[_BEFORE].model_dump_json(indent=1).encode()
    put(f"{path}/databases/{NAME}/versions/{_BEFORE}/manifest.json", said)
    table = io.BytesIO()
    pq.write_table(_TABLE, table)
    put(f"{path}/t.parquet", table.getvalue())
    return f"faulty://{path}"


def _tree(store: str) -> dict[str, bytes]:
    path = Path(store.removeprefix("faulty://"))
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def _contents(store: str) -> dict[str, bytes]:
    """What is there, dated records of an alias and hidden files of no content apart."""
    tree = {name: data for name, data in _tree(store).items() if not name.startswith(".probe-")}
    for name in [name for name in tree if "/aliases/" in name]:
        tree[name] = json.loads(tree[name])["version"].encode()
    return tree


def _undisturbed(root: Path, name: str) -> tuple[str, object, dict[str, int]]:
    store = _ready(root)
    with weather() as account:
        found = _OPERATIONS[name].do(store)
    return store, found, dict(account.calls)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", _ERRORS)
@pytest.mark.parametrize("name", _OPERATIONS)
def test_an_error_at_any_call_leaves_the_store_whole_and_the_next_try_succeeds(
    tmp_path, name, error, late
):
    """late: the call is done, and only its answer is lost."""
    after, expected, calls = _undisturbed(tmp_path, name)
    assert calls, "nothing was asked of the store"
    points = [(call, n + 1) for call, times in calls.items() for n in range(times)]
    for call, first in points:
        store, point = _ready(tmp_path), f"{call} {first}"
        before = set(_tree(store))
        with weather(Fault(call, _ERRORS[error], first, late=late)):
            found = _tried(name, store)
        if isinstance(found, Exception):
            _check_error(found, store, error)
        else:
            assert found == expected, point
        left = _contents(store)
        assert set(left) - before <= set(_OPERATIONS[name].names), f"{point}: leftovers"
        whole = _contents(after)
        assert all(data == whole[path] for path, data in left.items()), f"{point}: a short file"
        for cached in (tmp_path / "cache").glob("*"):
            assert cached.read_bytes() in _FILES.values(), f"{point}: a short file in the cache"
        if f"{_PLACE}/manifest.json" not in left:
            assert demo(store).ids() == [_BEFORE]
        if name == "promote" and demo(store).current("production") is not None:
            continue  # it is done, though nobody was told
        assert _OPERATIONS[name].do(store) == expected, point
        assert _contents(store) == whole, point


def _tried(name: str, store: str) -> object:
    """What an operation returns, or the error that it raises."""
    try:
        return _OPERATIONS[name].do(store)
    except (OSError, InputError) as error:
        return error


def _check_error(raised: Exception, store: str, error: str) -> None:
    assert isinstance(raised, OSError), "it is worth another try"
    assert may_pass(raised) == (error != "full")
    said = str(raised)
    assert "\n" not in said
    assert store in said
    if error != "silent":
        assert str(_ERRORS[error]()).rpartition("] ")[2] in said


@pytest.mark.parametrize("name", [n for n, o in _OPERATIONS.items() if o.names])
def test_a_full_disk_leaves_no_short_file(tmp_path, name):
    with weather() as account:
        after = _ready(tmp_path)
        needed = account.written
        _OPERATIONS[name].do(after)
        needed = account.written - needed
    for room in (0, needed // 2, needed - 1):
        store = _ready(tmp_path)
        before = set(_tree(store))
        with weather(room=room), pytest.raises(OSError, match="No space left on device") as full:
            _OPERATIONS[name].do(store)
        assert full.value.errno == errno.ENOSPC
        assert store in str(full.value)
        # Of several files those that came before are there, whole.
        left = _contents(store)
        assert set(left) - before <= set(_OPERATIONS[name].names[:-1])
        assert left.items() <= _contents(after).items()
        assert demo(store).ids() == [_BEFORE]
        _OPERATIONS[name].do(store)
        assert _contents(store) == _contents(after)


class TestReadsCutShort:
    """The file looks as if it ended earlier than it does."""

    @pytest.mark.parametrize(
        "name", ["record", "read", "versions", "verify", "local_files", "read_table"]
    )
    def test_are_never_taken_for_the_whole(self, tmp_path, name):
        _, expected, calls = _undisturbed(tmp_path, name)
        for first in range(1, calls["read"] + 1):
            store = _ready(tmp_path)
            with weather(Fault("read", first=first, short=True)):
                found = _tried(name, store)
            assert found == expected or store in str(found), first
            assert _OPERATIONS[name].do(store) == expected

    @pytest.mark.parametrize("form", [*FORMATS, *COMPRESSED])
    def test_of_a_corpus_lose_no_row(self, tmp_path, form):
        rows = [{"text": f"line {i}", "label": "ab"[i % 2]} for i in range(400)]
        spec = CorpusSpec(uri=f"faulty://{write_corpus(tmp_path / f'corpus.{form}', rows)}")
        with weather() as account:
            _, expected, _ = read_all(spec, 150)
        assert len(expected) == len(rows)
        told = []
        for first in range(1, account.calls["read"] + 1):
            with weather(Fault("read", first=first, short=True)):
                try:
                    assert read_all(spec, 150)[1] == expected, first
                except (OSError, InputError) as error:
                    told.append(str(error))
        assert told, "the look over the corpus met a short file"
        assert all(spec.uri in line for line in told)

    def test_nothing_of_them_stays_in_the_cache(self, tmp_path):
        store = _ready(tmp_path)
        cut = Fault("read", short=True, times=EVER)
        with weather(cut), pytest.raises(OSError, match=r"a\.bin: cut short in reading"):
            _cached(store)
        assert list((tmp_path / "cache").iterdir()) == []


def test_slow_calls_only_take_time(tmp_path):
    store = _ready(tmp_path)
    faults = [Fault(call, seconds=0.01, times=3) for call in ("read", "open", "write", "pipe_file")]
    begun = time.monotonic()
    with weather(*faults):
        assert _cached(store) == list(_FILES.values())
        _create(store)
        demo(store).version(_VERSION).publish(_MANIFESTS[_VERSION])
    assert time.monotonic() - begun > 0.05
    assert demo(store).ids() == [_BEFORE, _VERSION]
    assert _tree(store)["new/a.bin"] == _DATA


def test_a_taken_name_is_refused_like_on_a_server(tmp_path):
    store = _ready(tmp_path)
    with pytest.raises(FileExistsError):
        Folder(store).write_new("t.parquet", b"other")
    assert _tree(store)["t.parquet"] != b"other"
