"""What `collect` deletes of versions and readings, and what it never does."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import storage.gc
from raee.errors import InputError
from storage.database import Database, new_version_id
from storage.gc import collect
from storage.leftovers import leftovers
from tests.raee.errors import refused
from tests.storage.databases import NAME, demo, publish_version
from tests.storage.leftovers import (
    begin_build,
    check_whole,
    names,
    publish_sharing,
    put_readings,
)


class TestVersions:
    def test_that_an_alias_points_at_or_that_are_among_the_newest_stay(self, store, age):
        first, second, *rest = (publish_sharing(store) for _ in range(5))
        demo(store).promote(first)
        demo(store).promote(second, "staging")
        found = collect(demo(store), keep=2)
        assert [(f.kind, f.path) for f in found] == [("version", f"versions/{rest[0]}")]
        assert demo(store).ids() == [first, second, *rest[1:]]
        assert not demo(store).version(rest[0]).folder.files(), "no empty manifest either"
        check_whole(store)
        assert leftovers(demo(store), keep=2) == []

    def test_that_an_alias_pointed_at_before_go_and_a_rollback_says_so(self, store):
        first, second = publish_sharing(store), publish_sharing(store)
        demo(store).promote(first)
        demo(store).promote(second)
        collect(demo(store), keep=1)
        with refused(f"has no version '{first}'; the newest is {second}"):
            demo(store).rollback()
        assert demo(store).aliases() == {"production": second}

    def test_share_readings_that_stay_as_long_as_one_of_them(self, store, age):
        publish_sharing(store, ("a-00000.parquet", "a-00001.parquet"))
        second = publish_sharing(store, ("a-00001.parquet", "b-00000.parquet"))
        age(store)
        version, readings = collect(demo(store), keep=1)
        assert (version.kind, readings.kind) == ("version", "readings")
        assert [f.name for f in readings.files] == ["swept/a-00000.parquet"]
        assert demo(store).ids() == [second]
        check_whole(store)
        assert leftovers(demo(store), keep=1) == []

    def test_of_all_rows_stay_where_the_newest_are_pruned(self, store):
        """A rebuild starts from the newest that is not pruned."""
        publish_sharing(store)
        whole = publish_sharing(store)
        pruned = [publish_sharing(store, pruned={"of": whole}) for _ in range(3)]
        collect(demo(store), keep=2)
        assert demo(store).ids() == [whole, *pruned[1:]]

    @pytest.mark.parametrize("takes_over", [True, False])
    def test_that_a_build_under_way_started_from_stay_with_their_readings(
        self, store, age, takes_over
    ):
        parent = publish_sharing(store, ("a-00000.parquet",))
        publish_sharing(store)
        age(store)
        begin_build(store, "0123", new_version_id(), parent, takes_over=takes_over)
        assert leftovers(demo(store), keep=1) == []

    def test_stay_until_their_own_build_has_promoted_them(self, store):
        """Planned before one that was published sooner, so it is not the newest."""
        slow, quick = new_version_id(), new_version_id()
        work = begin_build(store, "0123", slow)
        publish_sharing(store, version=quick)
        publish_sharing(store, version=slow)
        assert leftovers(demo(store), keep=1) == []
        demo(store).promote(slow)
        work.remove()
        assert leftovers(demo(store), keep=1) == []
        assert demo(store).ids() == [slow, quick]


class TestReadings:
    def test_that_no_version_names_go_when_they_are_old(self, store, age):
        publish_sharing(store, ("a-00000.parquet",))
        put_readings(store, "b-00000.parquet")
        age(store)
        put_readings(store, "c-00000.parquet")
        (found,) = collect(demo(store))
        assert [f.name for f in found.files] == ["swept/b-00000.parquet"]
        assert demo(store).folder.exists("swept/c-00000.parquet")
        check_whole(store)

    def test_of_a_build_that_is_about_to_publish_stay_however_old_their_copies(self, store, age):
        version = new_version_id()
        put_readings(store, f"{version}-00000.parquet")
        age(store)
        begin_build(store, "0123", version)
        assert leftovers(demo(store)) == []

    def test_that_a_version_published_meanwhile_names_stay(self, store, age, monkeypatch):
        publish_sharing(store)
        put_readings(store, "a-00000.parquet")
        put_readings(store, "b-00000.parquet")
        age(store)

        listed = Database.ids

        def list_versions(database):
            monkeypatch.undo()
            publish_sharing(store, ("a-00000.parquet",))
            return listed(database)

        monkeypatch.setattr(Database, "ids", list_versions)
        (found,) = collect(demo(store))
        assert [f.name for f in found.files] == ["swept/b-00000.parquet"]
        check_whole(store)


class TestUnfinishedFiles:
    @pytest.fixture
    def store(self, store_on):
        return store_on("local")  # no other store has them

    def test_of_killed_writers_go_when_they_are_old(self, store, age):
        version = publish_sharing(store, ("a-00000.parquet",))
        demo(store).promote(version)
        begin_build(store, "0123", new_version_id())
        database = Path(store) / "databases" / NAME
        whole = names(store)
        for path in (
            f"versions/{version}/.report.html.0a1b2c3d.partial",
            "aliases/production/.00000002.json.0a1b2c3d.partial",
            "swept/.b-00000.parquet.0a1b2c3d.partial",
            "work/0123/.build.json.0a1b2c3d.partial",
        ):
            (database / path).write_bytes(b"half")
            folder = demo(store).folder / str(Path(path).parent)
            assert not any("partial" in name for name in folder.names())
        assert leftovers(demo(store)) == []
        age(store)
        (database / "work/0123/young").write_bytes(b"a build is under way")
        (database / "swept/.c-00000.parquet.0a1b2c3d.partial").write_bytes(b"under way")
        collect(demo(store))
        young = {"swept/.c-00000.parquet.0a1b2c3d.partial", "work/0123/young"}
        assert names(store) == whole | young

    def test_leave_no_empty_folders(self, store, age):
        publish_sharing(store)
        publish_sharing(store)
        begin_build(store, "0123", new_version_id())
        age(store)
        collect(demo(store), keep=1)
        database = Path(store) / "databases" / NAME
        assert list((database / "work").iterdir()) == []
        assert [path.name for path in (database / "versions").iterdir()] == (demo(store).ids())


def test_what_lies_elsewhere_is_not_collected(store, age):
    publish_sharing(store)
    database = demo(store).folder
    for path in ("notes.txt", "versions/notes.txt", "work/notes.txt", "versions/.old/report.html"):
        database.write_new(path, b"mine")
    Database(store, "other").folder.write_new("swept/a-00000.parquet", b"another database's")
    age(store)
    assert leftovers(demo(store)) == []


def test_a_look_changes_nothing(store, age):
    for _ in range(3):
        publish_sharing(store, ("a-00000.parquet",))
    begin_build(store, "0123", new_version_id())
    put_readings(store, "b-00000.parquet")
    age(store)
    before = demo(store).folder.files()
    found = leftovers(demo(store), keep=1)
    assert demo(store).folder.files() == before
    assert collect(demo(store), keep=1) == found, "what was announced is what went"
    assert sum(one.bytes for one in found) == (
        sum(f.bytes for f in before) - sum(f.bytes for f in demo(store).folder.files())
    )


def test_with_no_age_at_all_everything_unused_goes(store):
    kept = publish_sharing(store, ("a-00000.parquet",))
    begin_build(store, "0123", new_version_id())
    put_readings(store, "b-00000.parquet")
    now = datetime.now(UTC)
    # A store may tell times by the second.
    while datetime.now(UTC).replace(microsecond=0) <= now.replace(microsecond=0):
        time.sleep(0.05)
    collect(demo(store), older_than=timedelta(0))
    assert {name.split("/")[0] for name in names(store)} == {"versions", "swept"}
    assert demo(store).ids() == [kept]
    check_whole(store)


class TestNothingIsCollected:
    def test_of_a_database_that_is_not_there(self, store):
        publish_sharing(store)
        with refused("there is no database dmeo in .* .databases there: demo."):
            collect(Database(store, "dmeo"))

    def test_by_figures_that_make_no_sense(self, store):
        publish_sharing(store)
        with refused("0 versions to keep; at least the newest one stays"):
            collect(demo(store), keep=0)
        with refused("nothing is older than -1 days; give 0 or more"):
            collect(demo(store), older_than=timedelta(days=-1))

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
        first, begun, _ = publish_sharing(store), new_version_id(), publish_sharing(store)
        demo(store).promote(first)
        begin_build(store, "0123", begun, first)
        path = path.format(first, begun)
        with demo(store).folder.create(path) as file:
            file.write(content)
        before = demo(store).folder.files()
        with refused(f"{re.escape(path)} is (damaged|of format 99)"):
            collect(demo(store), keep=1)
        assert demo(store).folder.files() == before


def test_a_store_where_one_could_undo_what_another_wrote_is_not_collected_in(store, monkeypatch):
    def cannot(_):
        raise InputError("the store cannot refuse")

    publish_version(store)
    publish_version(store)
    monkeypatch.setattr(storage.gc, "require_conditional_writes", cannot)
    with refused("the store cannot refuse"):
        collect(demo(store), keep=1)
    assert len(demo(store).ids()) == 2
