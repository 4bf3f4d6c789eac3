"""Collecting while others promote, killed at any moment, and after any history."""

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import storage.gc
from raee.errors import InputError
from storage.database import new_version_id
from storage.gc import collect
from storage.leftovers import leftovers
from tests.storage.databases import NAME, demo
from tests.storage.leftovers import (
    begin_build,
    check_whole,
    make_old,
    names,
    publish_sharing,
    put_readings,
)


def test_a_version_that_is_promoted_after_the_look_stays(store, monkeypatch):
    first, second, _ = (publish_sharing(store) for _ in range(3))
    overwrite = storage.gc._overwrite_manifest

    def promoted(folder, data):
        if folder.uri == demo(store).version(first).folder.uri and not data:
            demo(store).promote(first)
        overwrite(folder, data)

    monkeypatch.setattr(storage.gc, "_overwrite_manifest", promoted)
    before = demo(store).version(first).manifest()
    (found,) = collect(demo(store), keep=1)
    assert found.path == f"versions/{second}"
    assert demo(store).version(first).manifest() == before
    check_whole(store)


def test_of_two_that_collect_a_version_which_is_promoted_one_has_it_to_itself(store, monkeypatch):
    """One has found nobody who uses it and deletes; the other, behind it, finds the alias."""
    first, _ = publish_sharing(store), publish_sharing(store)
    overwrite, went = storage.gc._overwrite_manifest, []
    found = leftovers(demo(store), keep=1)

    def overtaken(folder, data):
        monkeypatch.setattr(storage.gc, "_overwrite_manifest", overwrite)
        went.extend(collect(demo(store), keep=1))
        with suppress(InputError):  # that it was deleted just now
            demo(store).promote(first)
        overwrite(folder, data)

    monkeypatch.setattr(storage.gc, "_overwrite_manifest", overtaken)
    before = demo(store).version(first).manifest()
    assert [leftover.path for leftover in found] == [f"versions/{first}"]
    assert collect(demo(store), keep=1) == went == []
    assert demo(store).version(first).manifest() == before
    check_whole(store)


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
            demo(store).promote(version)
        except InputError as error:
            told.append((version, str(error)))

    def collect_all():
        start.wait()
        collect(demo(store), keep=1)

    for _ in range(60):
        version, _ = publish_sharing(store), publish_sharing(store)
        start = threading.Barrier(2)
        at_once = [threading.Thread(target=change, args=[version])]
        at_once.append(threading.Thread(target=collect_all))
        for thread in at_once:
            thread.start()
        for thread in at_once:
            thread.join()
        points_at = demo(store).aliases().get("production")
        assert (
            points_at is None or demo(store).version(points_at).exists() or points_at == told[-1][0]
        )
        if points_at is not None and not demo(store).version(points_at).exists():
            assert "was deleted just now" in told[-1][1]
        check_whole(store)


_KILLED = """
import os
import sys
from storage.database import Database
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
collect(Database(store, "demo"), keep=1)
print("done", calls)
"""


def test_one_that_is_killed_leaves_whole_versions_and_the_next_does_the_rest(tmp_path):
    def history(store):
        old, kept = publish_sharing(store, ("a", "b")), publish_sharing(store, ("b", "c"))
        demo(store).promote(kept)
        newest = publish_sharing(store, ("c", "d"))
        dead = new_version_id()
        begin_build(store, "0123", dead, old)
        demo(store).version(dead).folder.write_new("report.html", b"report")
        make_old(store)
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
        assert set(kept) <= set(demo(store).ids())
        check_whole(store)
        make_old(store)
        collect(demo(store), keep=1)
        collect(demo(store), keep=1)
        assert demo(store).ids() == kept
        check_whole(store)
        make_old(store)
        collect(demo(store), keep=1)
        assert {name.split("/")[0] for name in names(store)} == {"aliases", "swept", "versions"}
        assert leftovers(demo(store), keep=1) == []


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
            publish_sharing(store, names, version, pruned={"of": "x"} if said["pruned"] else None)
        for alias, number in past["aliases"]:
            demo(store).promote(ids[number], alias)
        live, young = [build for build in past["builds"] if build["live"]], set()
        made = []
        for number, build in enumerate(past["builds"]):
            parent = None if build["parent"] is None else ids[build["parent"]]
            makes = None if build["makes"] is None else ids[build["makes"]]
            if makes is None:
                makes = new_version_id()
                demo(store).version(makes).folder.write_new("report.html", b"report")
                put_readings(store, f"{makes}-00000.parquet")
            begin_build(store, f"{number:04d}", makes, parent)
            if build["live"]:
                made.append(makes)
                young.add(f"work/{number:04d}/{makes}/shard-00000.json")
        for number, is_young in enumerate(past["orphans"]):
            put_readings(store, f"orphan-{number}")
            young |= {f"swept/orphan-{number}"} if is_young else set()

        pointed_at = {alias: ids[number] for alias, number in past["aliases"]}
        whole = [v for v, said in zip(ids, past["versions"], strict=True) if not said["pruned"]]
        stay = {*ids[-past["keep"] :], *whole[-1:], *pointed_at.values(), *made}
        stay |= {ids[build["parent"]] for build in live if build["parent"] is not None}
        retained = [version for version in ids if version in stay]
        swept = {f.path for v in retained for f in demo(store).version(v).manifest().swept}

        def stays(path):
            top, rest = path.split("/", 1)
            if top == "swept":
                return path in swept | young or rest.startswith(tuple(f"{v}-" for v in made))
            if top == "work":
                return past["builds"][int(rest[:4])]["live"]
            return top == "aliases" or rest.split("/")[0] in stay

        make_old(store)
        database = Path(store) / "databases" / NAME
        for path in young:
            os.utime(database / path)
        before = {f.name: f for f in demo(store).folder.files()}
        collect(demo(store), past["keep"])
        after = {f.name: f for f in demo(store).folder.files() if f.bytes}
        assert after == {name: found for name, found in before.items() if stays(name)}
        assert demo(store).ids() == retained
        check_whole(store)
        assert leftovers(demo(store), past["keep"]) == []
