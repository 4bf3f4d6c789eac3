"""What `collect` deletes, and what it never does."""

import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.gc
from raee.errors import InputError
from storage.aliases import aliases, promote, rollback
from storage.gc import CLAIM, collect, leftovers
from storage.store import FileRecord, Folder
from storage.versions import (
    MANIFEST,
    database_folder,
    has_version,
    new_version_id,
    publish,
    read_manifest,
    verify,
    version_folder,
    version_ids,
)
from tests.raee.errors import refused
from tests.storage.databases import NAME, manifest, publish_version

_DAYS = 8
"""Days that leave old what is not to be touched for seven."""


@pytest.fixture
def age(monkeypatch) -> Callable[[str, str], None]:
    """Makes the files that lie below a path of the database old, as any store lists them."""
    files, old = Folder.files, set()

    def listed(folder):
        earlier = timedelta(days=_DAYS)
        return [
            dataclasses.replace(f, modified=f.modified - earlier) if _is_old(folder, f) else f
            for f in files(folder)
        ]

    def _is_old(folder, found):
        # A file that takes the place of an old one is young.
        return (f"{folder}/{found.name}", found.bytes, found.modified) in old

    def age(store: str, path: str = "") -> None:
        database = database_folder(store, NAME)
        for found in files(database):
            if f"{found.name}/".startswith(path):
                old.add((f"{database}/{found.name}", found.bytes, found.modified))

    monkeypatch.setattr(Folder, "files", listed)
    return age


def _swept(store: str, name: str) -> FileRecord:
    """Readings that have just been put in place; where they are there, what they are."""
    database, path = database_folder(store, NAME), f"swept/{name}"
    if not database.exists(path):
        database.write_new(path, name.encode() * 10)
    return database.record(path)


def _publish(store: str, swept: tuple[str, ...] = (), version: str | None = None, **changed) -> str:
    """Publish a version of two files and some readings."""
    version = new_version_id() if version is None else version
    folder = version_folder(store, NAME, version)
    for path in ("entries/part-00000.parquet", "report.html"):
        folder.write_new(path, f"{version} {path}".encode())
    files = tuple(folder.record(path) for path in ("entries/part-00000.parquet", "report.html"))
    records = [dataclasses.asdict(_swept(store, name)) for name in swept]
    publish(folder, manifest(version, files, swept=records, **changed))
    return version


def _begin(store: str, key: str, version: str, parent: str | None = None, **more) -> Folder:
    """The work folder of a build that has swept a shard."""
    builds = database_folder(store, NAME) / f"work/{key}"
    work = builds / version
    work.write_new("plan.json", json.dumps({"version": version, "parent": parent} | more).encode())
    builds.write_new(CLAIM, json.dumps({"version": version}).encode())
    work.write_new("shard-00000.json", b"{}")
    work.write_new("shard-00000/0a1b2c3d/rows.parquet", b"rows" * 100)
    return work


def _names(store: str) -> set[str]:
    """All files of the database, tombstones apart."""
    listed = database_folder(store, NAME).files()
    return {f.name for f in listed if f.bytes or not f.name.endswith(f"/{MANIFEST}")}


def _check(store: str) -> None:
    """Every listed version is whole, with its readings."""
    for version in version_ids(store, NAME):
        said = read_manifest(store, NAME, version)
        assert verify(version_folder(store, NAME, version), said.files) == []
        assert verify(database_folder(store, NAME), said.swept) == []


class TestVersions:
    def test_that_an_alias_points_at_or_that_are_among_the_newest_stay(self, store, age):
        first, second, *rest = (_publish(store) for _ in range(5))
        promote(store, NAME, first)
        promote(store, NAME, second, "staging")
        found = collect(store, NAME, keep=2)
        assert [(f.kind, f.path) for f in found] == [("version", f"versions/{rest[0]}")]
        assert version_ids(store, NAME) == [first, second, *rest[1:]]
        assert not version_folder(store, NAME, rest[0]).files(), "no empty manifest either"
        _check(store)
        assert leftovers(store, NAME, keep=2) == []

    def test_that_an_alias_pointed_at_before_go_and_a_rollback_says_so(self, store):
        first, second = _publish(store), _publish(store)
        promote(store, NAME, first)
        promote(store, NAME, second)
        collect(store, NAME, keep=1)
        with refused(f"has no version '{first}'; the newest is {second}"):
            rollback(store, NAME)
        assert aliases(store, NAME) == {"production": second}

    def test_share_readings_that_stay_as_long_as_one_of_them(self, store, age):
        _publish(store, ("a-00000.parquet", "a-00001.parquet"))
        second = _publish(store, ("a-00001.parquet", "b-00000.parquet"))
        age(store)
        version, readings = collect(store, NAME, keep=1)
        assert (version.kind, readings.kind) == ("version", "readings")
        assert [f.name for f in readings.files] == ["swept/a-00000.parquet"]
        assert version_ids(store, NAME) == [second]
        _check(store)
        assert leftovers(store, NAME, keep=1) == []

    def test_of_all_rows_stay_where_the_newest_are_pruned(self, store):
        """A rebuild starts from the newest that is not pruned."""
        _publish(store)
        whole = _publish(store)
        pruned = [_publish(store, pruned={"of": whole}) for _ in range(3)]
        collect(store, NAME, keep=2)
        assert version_ids(store, NAME) == [whole, *pruned[1:]]

    @pytest.mark.parametrize("takes_over", [True, False])
    def test_that_a_build_under_way_started_from_stay_with_their_readings(
        self, store, age, takes_over
    ):
        parent = _publish(store, ("a-00000.parquet",))
        _publish(store)
        age(store)
        _begin(store, "0123", new_version_id(), parent, takes_over=takes_over)
        assert leftovers(store, NAME, keep=1) == []

    def test_stay_until_their_own_build_has_promoted_them(self, store):
        """Planned before one that was published sooner, so it is not the newest."""
        slow, quick = new_version_id(), new_version_id()
        work = _begin(store, "0123", slow)
        _publish(store, version=quick)
        _publish(store, version=slow)
        assert leftovers(store, NAME, keep=1) == []
        promote(store, NAME, slow)
        work.remove()
        assert leftovers(store, NAME, keep=1) == []
        assert version_ids(store, NAME) == [slow, quick]


class TestReadings:
    def test_that_no_version_names_go_when_they_are_old(self, store, age):
        _publish(store, ("a-00000.parquet",))
        _swept(store, "b-00000.parquet")
        age(store)
        _swept(store, "c-00000.parquet")
        (found,) = collect(store, NAME)
        assert [f.name for f in found.files] == ["swept/b-00000.parquet"]
        assert database_folder(store, NAME).exists("swept/c-00000.parquet")
        _check(store)

    def test_of_a_build_that_is_about_to_publish_stay_however_old_their_copies(self, store, age):
        version = new_version_id()
        _swept(store, f"{version}-00000.parquet")
        age(store)
        _begin(store, "0123", version)
        assert leftovers(store, NAME) == []

    def test_that_a_version_published_meanwhile_names_stay(self, store, age, monkeypatch):
        _publish(store)
        _swept(store, "a-00000.parquet")
        _swept(store, "b-00000.parquet")
        age(store)

        def list_versions(*args):
            monkeypatch.undo()
            _publish(store, ("a-00000.parquet",))
            return version_ids(*args)

        monkeypatch.setattr(storage.gc, "version_ids", list_versions)
        (found,) = collect(store, NAME)
        assert [f.name for f in found.files] == ["swept/b-00000.parquet"]
        _check(store)


class TestBuilds:
    def test_that_died_long_ago_leave_nothing(self, store, age):
        kept, version = _publish(store), new_version_id()
        _begin(store, "0123", version, kept)
        version_folder(store, NAME, version).write_new("entries/part-00000.parquet", b"entries")
        _swept(store, f"{version}-00000.parquet")
        before = _names(store)
        age(store)
        found = collect(store, NAME)
        assert [(f.kind, f.path) for f in found] == [
            ("work folder", "work/0123"),
            ("unpublished version", f"versions/{version}"),
            ("readings", "swept"),
        ]
        assert {f.name for one in found for f in one.files} == before - _names(store)
        assert _names(store) == {name for name in before if kept in name and "work" not in name}
        assert leftovers(store, NAME) == []

    def test_that_wake_up_cannot_publish_what_was_emptied(self, store, age):
        _publish(store)
        version = new_version_id()
        folder = version_folder(store, NAME, version)
        folder.write_new("entries/part-00000.parquet", b"entries")
        age(store)
        collect(store, NAME)
        with pytest.raises(FileExistsError):
            publish(folder, manifest(version))
        assert version not in version_ids(store, NAME)
        age(store)
        (mark,) = collect(store, NAME)
        assert (mark.path, mark.bytes) == (f"versions/{version}", 0)
        assert folder.files() == []

    @pytest.mark.parametrize("published", [True, False])
    def test_cannot_publish_before_the_last_file_is_gone(self, store, age, monkeypatch, published):
        version = _publish(store)
        folder, delete = version_folder(store, NAME, version), Folder.delete
        _publish(store)
        if not published:
            folder.delete(MANIFEST)
        age(store)
        tries = []

        def publish_again(there, name):
            if name.startswith(f"versions/{version}/") and not name.endswith(MANIFEST):
                with pytest.raises(FileExistsError):
                    publish(folder, manifest(version))
                tries.append(name)
            delete(there, name)

        monkeypatch.setattr(Folder, "delete", publish_again)
        collect(store, NAME, keep=1)
        assert len(tries) == 2

    def test_that_died_just_now_can_go_on(self, store, age):
        version = new_version_id()
        version_folder(store, NAME, version).write_new("entries/part-00000.parquet", b"entries")
        age(store)  # copies may be as old as what they were copied from
        _begin(store, "0123", version)
        assert leftovers(store, NAME) == []

    def test_of_which_one_file_is_young_are_under_way(self, store, age):
        _publish(store)
        work = _begin(store, "0123", new_version_id())
        age(store)
        work.write_new("shard-00001/9f9f9f9f/rows.parquet", b"rows")
        assert leftovers(store, NAME) == []

    def test_that_are_published_leave_no_work_folder(self, store, age):
        version = _publish(store)
        _begin(store, "0123", version)
        assert leftovers(store, NAME) == []
        age(store)
        (found,) = collect(store, NAME)
        assert (found.path, found.why[:24]) == ("work/0123", "its version is published")
        assert version_ids(store, NAME) == [version]
        _check(store)

    def test_that_have_no_work_folder_are_under_way_while_their_files_are_young(self, store):
        """As a version that is being pruned."""
        version_folder(store, NAME, new_version_id()).write_new("report.html", b"report")
        assert leftovers(store, NAME) == []

    def test_are_left_alone_where_they_wake_up_after_the_look(self, store, age, monkeypatch):
        version = new_version_id()
        work = _begin(store, "0123", version)
        version_folder(store, NAME, version).write_new("report.html", b"report")
        age(store)
        look = storage.gc._leftovers

        def wake(*args):
            found = look(*args)
            work.write_new("shard-00001.json", b"{}")
            return found

        monkeypatch.setattr(storage.gc, "_leftovers", wake)
        before = _names(store)
        assert collect(store, NAME) == []
        assert _names(store) == {*before, f"work/0123/{version}/shard-00001.json"}
        assert not version_folder(store, NAME, version).exists(MANIFEST), "it could not publish"

    def test_that_publish_after_the_look_have_published(self, store, age, monkeypatch):
        version = new_version_id()
        folder = version_folder(store, NAME, version)
        folder.write_new("report.html", b"report")
        age(store)
        write_new = Folder.write_new

        def published(there, name, data):
            if not data:
                write_new(folder, MANIFEST, manifest(version).model_dump_json().encode())
            write_new(there, name, data)

        monkeypatch.setattr(Folder, "write_new", published)
        assert collect(store, NAME) == []
        assert version_ids(store, NAME) == [version]
        assert folder.read("report.html") == b"report"

    def test_begun_anew_in_a_folder_that_is_collected_go_on(self, store, age, monkeypatch):
        _begin(store, "0123", new_version_id())
        age(store)
        again, delete = new_version_id(), Folder.delete

        def begin(folder, name):
            delete(folder, name)
            if name == CLAIM:
                _begin(store, "0123", again)

        monkeypatch.setattr(Folder, "delete", begin)
        collect(store, NAME)
        assert {name.split("/")[2] for name in _names(store)} == {CLAIM, again}
        assert len(_names(store)) == 4


class TestUnfinishedFiles:
    @pytest.fixture
    def store(self, store_on):
        return store_on("local")  # no other store has them

    def test_of_killed_writers_go_when_they_are_old(self, store, age):
        version = _publish(store, ("a-00000.parquet",))
        promote(store, NAME, version)
        _begin(store, "0123", new_version_id())
        database = Path(store) / "databases" / NAME
        whole = _names(store)
        for path in (
            f"versions/{version}/.report.html.0a1b2c3d.partial",
            "aliases/production/.00000002.json.0a1b2c3d.partial",
            "swept/.b-00000.parquet.0a1b2c3d.partial",
            "work/0123/.build.json.0a1b2c3d.partial",
        ):
            (database / path).write_bytes(b"half")
            folder = database_folder(store, NAME) / str(Path(path).parent)
            assert not any("partial" in name for name in folder.names())
        assert leftovers(store, NAME) == []
        age(store)
        (database / "work/0123/young").write_bytes(b"a build is under way")
        (database / "swept/.c-00000.parquet.0a1b2c3d.partial").write_bytes(b"under way")
        collect(store, NAME)
        young = {"swept/.c-00000.parquet.0a1b2c3d.partial", "work/0123/young"}
        assert _names(store) == whole | young

    def test_leave_no_empty_folders(self, store, age):
        _publish(store)
        _publish(store)
        _begin(store, "0123", new_version_id())
        age(store)
        collect(store, NAME, keep=1)
        database = Path(store) / "databases" / NAME
        assert list((database / "work").iterdir()) == []
        assert [path.name for path in (database / "versions").iterdir()] == (
            version_ids(store, NAME)
        )


def test_what_lies_elsewhere_is_not_collected(store, age):
    _publish(store)
    database = database_folder(store, NAME)
    for path in ("notes.txt", "versions/notes.txt", "work/notes.txt", "versions/.old/report.html"):
        database.write_new(path, b"mine")
    database_folder(store, "other").write_new("swept/a-00000.parquet", b"another database's")
    age(store)
    assert leftovers(store, NAME) == []


def test_a_look_changes_nothing(store, age):
    for _ in range(3):
        _publish(store, ("a-00000.parquet",))
    _begin(store, "0123", new_version_id())
    _swept(store, "b-00000.parquet")
    age(store)
    before = database_folder(store, NAME).files()
    found = leftovers(store, NAME, keep=1)
    assert database_folder(store, NAME).files() == before
    assert collect(store, NAME, keep=1) == found, "what was announced is what went"
    assert sum(one.bytes for one in found) == (
        sum(f.bytes for f in before) - sum(f.bytes for f in database_folder(store, NAME).files())
    )


def test_with_no_age_at_all_everything_unused_goes(store):
    kept = _publish(store, ("a-00000.parquet",))
    _begin(store, "0123", new_version_id())
    _swept(store, "b-00000.parquet")
    now = datetime.now(UTC)
    # A store may tell times by the second.
    while datetime.now(UTC).replace(microsecond=0) <= now.replace(microsecond=0):
        time.sleep(0.05)
    collect(store, NAME, older_than=timedelta(0))
    assert {name.split("/")[0] for name in _names(store)} == {"versions", "swept"}
    assert version_ids(store, NAME) == [kept]
    _check(store)


class TestNothingIsCollected:
    def test_of_a_database_that_is_not_there(self, store):
        _publish(store)
        with refused("there is no database dmeo in .* .databases there: demo."):
            collect(store, "dmeo")

    def test_by_figures_that_make_no_sense(self, store):
        _publish(store)
        with refused("0 versions to keep; at least the newest one stays"):
            collect(store, NAME, keep=0)
        with refused("nothing is older than -1 days; give 0 or more"):
            collect(store, NAME, older_than=timedelta(days=-1))

    @pytest.mark.parametrize(
        ("path", "content"),
        [
            ("versions/{0}/manifest.json", b"{"),
            ("versions/{0}/manifest.json", b'{"format": 99}'),
            ("aliases/production/00000001.json", b"{}"),
            ("work/0123/{1}/plan.json", b"[]"),
            ("work/0123/{1}/plan.json", b"\xff"),
        ],
    )
    def test_where_nobody_knows_what_must_stay(self, store, path, content):
        first, begun, _ = _publish(store), new_version_id(), _publish(store)
        promote(store, NAME, first)
        _begin(store, "0123", begun, first)
        path = path.format(first, begun)
        with database_folder(store, NAME).create(path) as file:
            file.write(content)
        before = database_folder(store, NAME).files()
        with refused(f"{re.escape(path)} is (damaged|of format 99)"):
            collect(store, NAME, keep=1)
        assert database_folder(store, NAME).files() == before


def test_a_version_that_is_promoted_after_the_look_stays(store, monkeypatch):
    first, second, _ = (_publish(store) for _ in range(3))
    overwrite = storage.gc._overwrite_manifest

    def promoted(folder, data):
        if folder.uri == version_folder(store, NAME, first).uri and not data:
            promote(store, NAME, first)
        overwrite(folder, data)

    monkeypatch.setattr(storage.gc, "_overwrite_manifest", promoted)
    before = read_manifest(store, NAME, first)
    (found,) = collect(store, NAME, keep=1)
    assert found.path == f"versions/{second}"
    assert read_manifest(store, NAME, first) == before
    _check(store)


def test_of_those_that_promote_and_collect_at_once_one_sees_the_other(store_on, monkeypatch):
    store, dice = store_on("local"), random.Random(0)
    overwrite, told = storage.gc._overwrite_manifest, []

    def slowly(folder, data):
        time.sleep(dice.random() / 500)
        overwrite(folder, data)
        time.sleep(dice.random() / 500)

    monkeypatch.setattr(storage.gc, "_overwrite_manifest", slowly)

    def change(version):
        start.wait()
        time.sleep(dice.random() / 200)
        try:
            promote(store, NAME, version)
        except InputError as error:
            told.append((version, str(error)))

    def collect_all():
        start.wait()
        collect(store, NAME, keep=1)

    for _ in range(60):
        version, _ = _publish(store), _publish(store)
        start = threading.Barrier(3)
        at_once = [threading.Thread(target=change, args=[version])]
        at_once += [threading.Thread(target=collect_all) for _ in range(2)]
        for thread in at_once:
            thread.start()
        for thread in at_once:
            thread.join()
        points_at = aliases(store, NAME).get("production")
        assert points_at is None or has_version(store, NAME, points_at) or points_at == told[-1][0]
        if points_at is not None and not has_version(store, NAME, points_at):
            assert "was deleted just now" in told[-1][1]
        _check(store)


_KILLED = """
import os
import sys
from storage.gc import collect
store, call = sys.argv[1], int(sys.argv[2])
calls = 0
def die(event, _):
    global calls
    if event in ("open", "os.remove", "os.rename", "os.rmdir", "os.scandir"):
        calls += 1
        if calls == call:
            os.kill(os.getpid(), 9)
sys.addaudithook(die)
collect(store, "demo", keep=1)
print("done", calls)
"""


def _make_old(store: str) -> None:
    long_ago = time.time() - timedelta(days=_DAYS).total_seconds()
    for path in Path(store).rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))


def test_one_that_is_killed_leaves_whole_versions_and_the_next_does_the_rest(tmp_path):
    def history(store):
        old, kept = _publish(store, ("a", "b")), _publish(store, ("b", "c"))
        promote(store, NAME, kept)
        newest = _publish(store, ("c", "d"))
        dead = new_version_id()
        _begin(store, "0123", dead, old)
        version_folder(store, NAME, dead).write_new("report.html", b"report")
        _make_old(store)
        return [kept, newest]

    def run(store, call):
        command = [sys.executable, "-c", _KILLED, store, str(call)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    history(str(tmp_path / "undisturbed"))
    calls = int(run(str(tmp_path / "undisturbed"), 0).stdout.split()[1])
    for call in random.Random(1).sample(range(1, calls + 1), 10):
        store = str(tmp_path / f"killed-{call}")
        kept = history(store)
        assert run(store, call).returncode == -9
        assert set(kept) <= set(version_ids(store, NAME))
        _check(store)
        _make_old(store)
        collect(store, NAME, keep=1)
        collect(store, NAME, keep=1)
        assert version_ids(store, NAME) == kept
        _check(store)
        _make_old(store)
        collect(store, NAME, keep=1)
        assert {name.split("/")[0] for name in _names(store)} == {"aliases", "swept", "versions"}
        assert leftovers(store, NAME, keep=1) == []


@st.composite
def _histories(draw):
    """Versions (readings that they share, whether pruned), aliases, builds, and what is young."""
    count = draw(st.integers(1, 6))
    numbers = st.integers(0, count - 1)
    return {
        "versions": [
            {
                "swept": draw(st.sets(st.integers(0, 6), max_size=3)),
                "pruned": draw(st.booleans()),
            }
            for _ in range(count)
        ],
        "aliases": draw(st.lists(st.tuples(st.sampled_from(["production", "b"]), numbers))),
        "builds": draw(
            st.lists(
                st.fixed_dictionaries(
                    {
                        "live": st.booleans(),
                        "makes": st.none() | numbers,
                        "parent": st.none() | numbers,
                    }
                ),
                max_size=3,
            )
        ),
        "orphans": draw(st.lists(st.booleans(), max_size=3)),
        "keep": draw(st.integers(1, 4)),
    }


@given(_histories())
@settings(max_examples=40)
def test_what_stays_is_whole_and_untouched_and_what_goes_is_all_the_rest(past):
    with tempfile.TemporaryDirectory() as folder:
        store, day = str(Path(folder) / "store"), datetime(2026, 1, 1, tzinfo=UTC)
        ids = [new_version_id(day + timedelta(days=i)) for i in range(len(past["versions"]))]
        for version, said in zip(ids, past["versions"], strict=True):
            names = tuple(f"s{number}" for number in said["swept"])
            _publish(store, names, version, pruned={"of": "x"} if said["pruned"] else None)
        for alias, number in past["aliases"]:
            promote(store, NAME, ids[number], alias)
        live, young = [build for build in past["builds"] if build["live"]], set()
        made = []
        for number, build in enumerate(past["builds"]):
            parent = None if build["parent"] is None else ids[build["parent"]]
            makes = None if build["makes"] is None else ids[build["makes"]]
            if makes is None:
                makes = new_version_id()
                version_folder(store, NAME, makes).write_new("report.html", b"report")
                _swept(store, f"{makes}-00000.parquet")
            _begin(store, f"{number:04d}", makes, parent)
            if build["live"]:
                made.append(makes)
                young.add(f"work/{number:04d}/{makes}/shard-00000.json")
        for number, is_young in enumerate(past["orphans"]):
            _swept(store, f"orphan-{number}")
            young |= {f"swept/orphan-{number}"} if is_young else set()

        pointed_at = {alias: ids[number] for alias, number in past["aliases"]}
        whole = [v for v, said in zip(ids, past["versions"], strict=True) if not said["pruned"]]
        stay = {*ids[-past["keep"] :], *whole[-1:], *pointed_at.values(), *made}
        stay |= {ids[build["parent"]] for build in live if build["parent"] is not None}
        retained = [version for version in ids if version in stay]
        swept = {f.path for v in retained for f in read_manifest(store, NAME, v).swept}

        def stays(path):
            top, rest = path.split("/", 1)
            if top == "swept":
                return path in swept | young or rest.startswith(tuple(f"{v}-" for v in made))
            if top == "work":
                return past["builds"][int(rest[:4])]["live"]
            return top == "aliases" or rest.split("/")[0] in stay

        _make_old(store)
        database = Path(store) / "databases" / NAME
        for path in young:
            os.utime(database / path)
        before = {f.name: f for f in database_folder(store, NAME).files()}
        collect(store, NAME, past["keep"])
        after = {f.name: f for f in database_folder(store, NAME).files() if f.bytes}
        assert after == {name: found for name, found in before.items() if stays(name)}
        assert version_ids(store, NAME) == retained
        _check(store)
        assert leftovers(store, NAME, past["keep"]) == []


def test_a_store_where_one_could_undo_what_another_wrote_is_not_collected_in(store, monkeypatch):
    def cannot(_):
        raise InputError("the store cannot refuse")

    publish_version(store)
    publish_version(store)
    monkeypatch.setattr(storage.gc, "require_conditional_writes", cannot)
    with refused("the store cannot refuse"):
        collect(store, NAME, keep=1)
    assert len(version_ids(store, NAME)) == 2
