"""`raee gc`, and what builds leave for it."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

import storage.leftovers
import tasks.build.planning
from storage.database import Version
from tests.flows.jobs import raee
from tests.texts import sentences


def _gc(place, *arguments):
    return raee("gc", "demo", "--store", place.store, *arguments)


def _make_old(place):
    long_ago = time.time() - timedelta(days=8).total_seconds()
    for path in place.store.rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))


def _die(place, monkeypatch):
    """Begin a build that stops before its version is published; returns its folder."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Version, "publish", interrupt)
        assert raee("build", place.job()).code == 130
    (work,) = (path for path in place.store.glob("databases/demo/work/*/*") if path.is_dir())
    return work


def test_a_build_that_is_done_leaves_nothing(published):
    _make_old(published)
    answer = _gc(published, "--keep", 1, "--older-than", 0)
    assert (answer.code, answer.out) == (0, "demo: nothing is to be collected\n")
    assert raee("verify", "demo", "--store", published.store).code == 0


def test_a_dry_run_says_what_goes_and_how_many_bytes_and_the_run_says_the_same(published):
    first = published.only_version().name
    second = published.build(policy="full")
    raee("promote", "demo", second, "--store", published.store)  # and pins it
    _make_old(published)
    before = published.files()
    said = _gc(published, "--keep", 1, "--dry-run")
    assert said.code == 0
    assert published.files() == before
    *lines, total = said.out.splitlines()
    # So few readings are written anew by each build.
    assert [line.split()[:2] for line in lines[1:]] == [
        ["version", f"versions/{first}"],
        ["readings", "swept"],
    ]
    gone = [f for f in published.version(first).rglob("*") if f.is_file()]
    gone += published.store.glob(f"databases/demo/swept/{first}-*")
    size = sum(file.stat().st_size for file in gone)
    assert total == f"demo: {size:,} bytes would go"

    account = json.loads(_gc(published, "--keep", 1, "--dry-run", "--json").out)
    assert (account["dry_run"], account["bytes"]) == (True, size)
    version, readings = account["collected"]
    assert (version["kind"], version["path"]) == ("version", f"versions/{first}")
    files = [published.store / "databases/demo" / f for f in version["files"] + readings["files"]]
    assert sorted(files) == sorted(gone)

    did = _gc(published, "--keep", 1)
    assert did.out == said.out.replace("would go", "went")
    assert not any(file.exists() for file in gone)
    assert published.only_version().name == second
    assert raee("verify", "demo", "--store", published.store).code == 0


def test_what_a_dead_build_left_goes_when_it_is_old_and_the_build_can_be_repeated(
    published, monkeypatch
):
    """A rebuild, whose readings are its parent's and its own."""
    published.write("train.csv", sentences(60))
    work = _die(published, monkeypatch)
    assert _gc(published).out == "demo: nothing is to be collected\n"
    before = set(published.files())
    _make_old(published)
    answer = _gc(published)
    assert answer.code == 0
    gone = {Path(path).relative_to(published.store) for path in before - set(published.files())}
    assert {path.parts[2] for path in gone} >= {"work", "swept"}
    assert not work.parent.exists()
    version = published.build()
    assert version != work.name
    assert raee("verify", "demo", "--store", published.store).code == 0


def test_a_build_under_way_keeps_the_version_that_it_started_from(published, monkeypatch):
    first = published.only_version().name
    published.write("train.csv", sentences(60))
    _make_old(published)
    # One that is built from nothing, and promoted, meanwhile.
    begun = _die(published, monkeypatch)
    second = published.build(sample_rows=30)
    raee("promote", "demo", second, "--store", published.store)
    assert _gc(published, "--keep", 1).out == "demo: nothing is to be collected\n"
    assert published.build() == begun.name
    assert _gc(published, "--keep", 1, "--dry-run").out.count(f"versions/{first} ") == 1


def test_a_build_that_wakes_up_after_it_was_taken_for_dead_says_so(published, monkeypatch):
    published.write("train.csv", sentences(60))
    publish = Version.publish

    def collected(version, manifest):
        _make_old(published)
        assert _gc(published).code == 0
        publish(version, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(Version, "publish", collected)
        answer = raee("build", published.job())
    assert answer.code == 2
    assert answer.error.endswith(" was collected as a dead build's; build again")
    assert raee("build", published.job()).code == 0
    assert raee("verify", "demo", "--store", published.store).code == 0


def test_storage_knows_a_work_folder_as_builds_write_it():
    assert storage.leftovers.CLAIM == tasks.build.planning.CLAIM


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep", 0], "0 versions to keep; at least the newest one stays: give 1 or more"),
        (["--older-than", -1], None),
        (["--older-than", 10**9], None),
    ],
)
def test_figures_that_make_no_sense_are_refused(published, arguments, said):
    answer = _gc(published, *arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert said is None or answer.error == said


def test_a_database_that_is_not_there_is_named(published):
    answer = raee("gc", "dmeo", "--store", published.store)
    assert answer.code == 2
    assert answer.error.startswith("there is no database dmeo in ")
