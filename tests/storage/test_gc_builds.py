"""What `collect` deletes of builds: of those that died, never of those under way."""

import pytest

import storage.gc
from storage.database import new_version_id
from storage.gc import collect
from storage.leftovers import CLAIM, leftovers
from storage.manifest import MANIFEST
from storage.store import Folder
from tests.storage.databases import demo, manifest
from tests.storage.leftovers import (
    begin_build,
    check_whole,
    names,
    publish_sharing,
    put_readings,
)


class TestBuilds:
    def test_that_died_long_ago_leave_nothing(self, store, age):
        kept, version = publish_sharing(store), new_version_id()
        begin_build(store, "0123", version, kept)
        demo(store).version(version).folder.write_new("entries/part-00000.parquet", b"entries")
        put_readings(store, f"{version}-00000.parquet")
        before = names(store)
        age(store)
        found = collect(demo(store))
        assert [(f.kind, f.path) for f in found] == [
            ("work folder", "work/0123"),
            ("unpublished version", f"versions/{version}"),
            ("readings", "swept"),
        ]
        assert {f.name for one in found for f in one.files} == before - names(store)
        assert names(store) == {name for name in before if kept in name and "work" not in name}
        assert leftovers(demo(store)) == []

    def test_that_wake_up_cannot_publish_what_was_emptied(self, store, age):
        publish_sharing(store)
        version = new_version_id()
        folder = demo(store).version(version).folder
        folder.write_new("entries/part-00000.parquet", b"entries")
        age(store)
        collect(demo(store))
        with pytest.raises(FileExistsError):
            demo(store).version(version).publish(manifest(version))
        assert version not in demo(store).ids()
        age(store)
        (mark,) = collect(demo(store))
        assert (mark.path, mark.bytes) == (f"versions/{version}", 0)
        assert folder.files() == []

    @pytest.mark.parametrize("published", [True, False])
    def test_cannot_publish_before_the_last_file_is_gone(self, store, age, monkeypatch, published):
        version = publish_sharing(store)
        folder, delete = demo(store).version(version).folder, Folder.delete
        publish_sharing(store)
        if not published:
            folder.delete(MANIFEST)
        age(store)
        tries = []

        def publish_again(there, name):
            if name.startswith(f"versions/{version}/") and not name.endswith(MANIFEST):
                with pytest.raises(FileExistsError):
                    demo(store).version(version).publish(manifest(version))
                tries.append(name)
            delete(there, name)

        monkeypatch.setattr(Folder, "delete", publish_again)
        collect(demo(store), keep=1)
        assert len(tries) == 2

    def test_that_died_just_now_can_go_on(self, store, age):
        version = new_version_id()
        demo(store).version(version).folder.write_new("entries/part-00000.parquet", b"entries")
        age(store)  # copies may be as old as what they were copied from
        begin_build(store, "0123", version)
        assert leftovers(demo(store)) == []

    def test_of_which_one_file_is_young_are_under_way(self, store, age):
        publish_sharing(store)
        work = begin_build(store, "0123", new_version_id())
        age(store)
        work.write_new("shard-00001/9f9f9f9f/rows.parquet", b"rows")
        assert leftovers(demo(store)) == []

    def test_that_are_published_leave_no_work_folder(self, store, age):
        version = publish_sharing(store)
        begin_build(store, "0123", version)
        assert leftovers(demo(store)) == []
        age(store)
        (found,) = collect(demo(store))
        assert (found.path, found.why[:24]) == ("work/0123", "its version is published")
        assert demo(store).ids() == [version]
        check_whole(store)

    def test_that_have_no_work_folder_are_under_way_while_their_files_are_young(self, store):
        """As a version that is being pruned."""
        demo(store).version(new_version_id()).folder.write_new("report.html", b"report")
        assert leftovers(demo(store)) == []

    def test_are_left_alone_where_they_wake_up_after_the_look(self, store, age, monkeypatch):
        version = new_version_id()
        work = begin_build(store, "0123", version)
        demo(store).version(version).folder.write_new("report.html", b"report")
        age(store)
        look = storage.gc.look

        def wake(*args):
            found = look(*args)
            work.write_new("shard-00001.json", b"{}")
            return found

        monkeypatch.setattr(storage.gc, "look", wake)
        before = names(store)
        assert collect(demo(store)) == []
        assert names(store) == {*before, f"work/0123/{version}/shard-00001.json"}
        assert not demo(store).version(version).folder.exists(MANIFEST), "it could not publish"

    def test_that_publish_after_the_look_have_published(self, store, age, monkeypatch):
        version = new_version_id()
        folder = demo(store).version(version).folder
        folder.write_new("report.html", b"report")
        age(store)
        write_new = Folder.write_new

        def published(there, name, data):
            if not data:
                write_new(folder, MANIFEST, manifest(version).model_dump_json().encode())
            write_new(there, name, data)

        monkeypatch.setattr(Folder, "write_new", published)
        assert collect(demo(store)) == []
        assert demo(store).ids() == [version]
        assert folder.read("report.html") == b"report"

    def test_begun_anew_in_a_folder_that_is_collected_go_on(self, store, age, monkeypatch):
        begin_build(store, "0123", new_version_id())
        age(store)
        again, delete = new_version_id(), Folder.delete

        def begin(folder, name):
            delete(folder, name)
            if name == CLAIM:
                begin_build(store, "0123", again)

        monkeypatch.setattr(Folder, "delete", begin)
        collect(demo(store))
        assert {name.split("/")[2] for name in names(store)} == {CLAIM, again}
        assert len(names(store)) == 4
