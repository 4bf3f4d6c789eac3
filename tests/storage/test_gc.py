"""What `collect` deletes of versions and readings, and what it never does."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import storage.gc
from raee.errors import InputError
from storage.aliases import aliases, promote, rollback
from storage.gc import collect
from storage.leftovers import leftovers
from storage.versions import database_folder, new_version_id, version_folder, version_ids
from tests.raee.errors import refused
from tests.storage.databases import NAME, publish_version
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
        promote(store, NAME, first)
        promote(store, NAME, second, "staging")
        found = collect(store, NAME, keep=2)
        assert [(f.kind, f.path) for f in found] == [("version", f"versions/{rest[0]}")]
        assert version_ids(store, NAME) == [first, second, *rest[1:]]
        assert not version_folder(store, NAME, rest[0]).files(), "no empty manifest either"
        check_whole(store)
        assert leftovers(store, NAME, keep=2) == []

    def test_that_an_alias_pointed_at_before_go_and_a_rollback_says_so(self, store):
        first, second = publish_sharing(store), publish_sharing(store)
        promote(store, NAME, first)
        promote(store, NAME, second)
        collect(store, NAME, keep=1)
        with refused(f"has no version '{first}'; the newest is {second}"):
            rollback(store, NAME)
        assert aliases(store, NAME) == {"production": second}

    def test_share_readings_that_stay_as_long_as_one_of_them(self, store, age):
        publish_sharing(store, ("a-00000.parquet", "a-00001.parquet"))
        second = publish_sharing(store, ("a-00001.parquet", "b-00000.parquet"))
        age(store)
        version, readings = collect(store, NAME, keep=1)
        assert (version.kind, readings.kind) == ("version", "readings")
        assert [f.name for f in readings.files] == ["swept/a-00000.parquet"]
        assert version_ids(store, NAME) == [second]
        check_whole(store)
        assert leftovers(store, NAME, keep=1) == []

    def test_of_all_rows_stay_where_the_newest_are_pruned(self, store):
        """A rebuild starts from the newest that is not pruned."""
        publish_sharing(store)
        whole = publish_sharing(store)
        pruned = [publish_sharing(store, pruned={"of": whole}) for _ in range(3)]
        collect(store, NAME, keep=2)
        assert version_ids(store, NAME) == [whole, *pruned[1:]]

    @pytest.mark.parametrize("takes_over", [True, False])
    def test_that_a_build_under_way_started_from_stay_with_their_readings(
        self, store, age, takes_over
    ):
        parent = publish_sharing(store, ("a-00000.parquet",))
        publish_sharing(store)
        age(store)
        begin_build(store, "0123", new_version_id(), parent, takes_over=takes_over)
        assert leftovers(store, NAME, keep=1) == []

    def test_stay_until_their_own_build_has_promoted_them(self, store):
        """Planned before one that was published sooner, so it is not the newest."""
        slow, quick = new_version_id(), new_version_id()
        work = begin_build(store, "0123", slow)
        publish_sharing(store, version=quick)
        publish_sharing(store, version=slow)
        assert leftovers(store, NAME, keep=1) == []
        promote(store, NAME, slow)
        work.remove()
        assert leftovers(store, NAME, keep=1) == []
        assert version_ids(store, NAME) == [slow, quick]


class TestReadings:
    def test_that_no_version_names_go_when_they_are_old(self, store, age):
        publish_sharing(store, ("a-00000.parquet",))
        put_readings(store, "b-00000.parquet")
        age(store)
        put_readings(store, "c-00000.parquet")
        (found,) = collect(store, NAME)
        assert [f.name for f in found.files] == ["swept/b-00000.parquet"]
        assert database_folder(store, NAME).exists("swept/c-00000.parquet")
        check_whole(store)

    def test_of_a_build_that_is_about_to_publish_stay_however_old_their_copies(self, store, age):
        version = new_version_id()
        put_readings(store, f"{version}-00000.parquet")
        age(store)
        begin_build(store, "0123", version)
        assert leftovers(store, NAME) == []

    def test_that_a_version_published_meanwhile_names_stay(self, store, age, monkeypatch):
        publish_sharing(store)
        put_readings(store, "a-00000.parquet")
        put_readings(store, "b-00000.parquet")
        age(store)

        def list_versions(*args):
            monkeypatch.undo()
            publish_sharing(store, ("a-00000.parquet",))
            return version_ids(*args)

        monkeypatch.setattr(storage.gc, "version_ids", list_versions)
        (found,) = collect(store, NAME)
        assert [f.name for f in found.files] == ["swept/b-00000.parquet"]
        check_whole(store)


class TestUnfinishedFiles:
    @pytest.fixture
    def store(self, store_on):
        return store_on("local")  # no other store has them

    def test_of_killed_writers_go_when_they_are_old(self, store, age):
        version = publish_sharing(store, ("a-00000.parquet",))
        promote(store, NAME, version)
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
            folder = database_folder(store, NAME) / str(Path(path).parent)
            assert not any("partial" in name for name in folder.names())
        assert leftovers(store, NAME) == []
        age(store)
        (database / "work/0123/young").write_bytes(b"a build is under way")
        (database / "swept/.c-00000.parquet.0a1b2c3d.partial").write_bytes(b"under way")
        collect(store, NAME)
        young = {"swept/.c-00000.parquet.0a1b2c3d.partial", "work/0123/young"}
        assert names(store) == whole | young

    def test_leave_no_empty_folders(self, store, age):
        publish_sharing(store)
        publish_sharing(store)
        begin_build(store, "0123", new_version_id())
        age(store)
        collect(store, NAME, keep=1)
        database = Path(store) / "databases" / NAME
        assert list((database / "work").iterdir()) == []
        assert [path.name for path in (database / "versions").iterdir()] == (
            version_ids(store, NAME)
        )


def test_what_lies_elsewhere_is_not_collected(store, age):
    publish_sharing(store)
    database = database_folder(store, NAME)
    for path in ("notes.txt", "versions/notes.txt", "work/notes.txt", "versions/.old/report.html"):
        database.write_new(path, b"mine")
    database_folder(store, "other").write_new("swept/a-00000.parquet", b"another database's")
    age(store)
    assert leftovers(store, NAME) == []


def test_a_look_changes_nothing(store, age):
    for _ in range(3):
        publish_sharing(store, ("a-00000.parquet",))
    begin_build(store, "0123", new_version_id())
    put_readings(store, "b-00000.parquet")
    age(store)
    before = database_folder(store, NAME).files()
    found = leftovers(store, NAME, keep=1)
    assert database_folder(store, NAME).files() == before
    assert collect(store, NAME, keep=1) == found, "what was announced is what went"
    assert sum(one.bytes for one in found) == (
        sum(f.bytes for f in before) - sum(f.bytes for f in database_folder(store, NAME).files())
    )


def test_with_no_age_at_all_everything_unused_goes(store):
    kept = publish_sharing(store, ("a-00000.parquet",))
    begin_build(store, "0123", new_version_id())
    put_readings(store, "b-00000.parquet")
    now = datetime.now(UTC)
    # A store may tell times by the second.
    while datetime.now(UTC).replace(microsecond=0) <= now.replace(microsecond=0):
        time.sleep(0.05)
    collect(store, NAME, older_than=timedelta(0))
    assert {name.split("/")[0] for name in names(store)} == {"versions", "swept"}
    assert version_ids(store, NAME) == [kept]
    check_whole(store)


class TestNothingIsCollected:
    def test_of_a_database_that_is_not_there(self, store):
        publish_sharing(store)
        with refused("there is no database dmeo in .* .databases there: demo."):
            collect(store, "dmeo")

    def test_by_figures_that_make_no_sense(self, store):
        publish_sharing(store)
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
        first, begun, _ = publish_sharing(store), new_version_id(), publish_sharing(store)
        promote(store, NAME, first)
        begin_build(store, "0123", begun, first)
        path = path.format(first, begun)
        with database_folder(store, NAME).create(path) as file:
            file.write(content)
        before = database_folder(store, NAME).files()
        with refused(f"{re.escape(path)} is (damaged|of format 99)"):
            collect(store, NAME, keep=1)
        assert database_folder(store, NAME).files() == before


def test_a_store_where_one_could_undo_what_another_wrote_is_not_collected_in(store, monkeypatch):
    def cannot(_):
        raise InputError("the store cannot refuse")

    publish_version(store)
    publish_version(store)
    monkeypatch.setattr(storage.gc, "require_conditional_writes", cannot)
    with refused("the store cannot refuse"):
        collect(store, NAME, keep=1)
    assert len(version_ids(store, NAME)) == 2
