"""Histories to collect in: versions that share readings, builds that died, files that are old."""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from storage.checked import FileRecord
from storage.database import new_version_id, verify
from storage.leftovers import CLAIM
from storage.manifest import MANIFEST
from storage.store import Folder
from tests.storage.databases import demo, manifest

_AGO = timedelta(days=8)
"""What is not to be touched for seven days is old then."""


def aging(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes all files of a store's database old, as any store lists them from then on."""
    files, old = Folder.files, set()

    def listed(folder):
        # A file that takes the place of an old one is young.
        return [
            dataclasses.replace(found, modified=found.modified - _AGO)
            if (f"{folder}/{found.name}", found.bytes, found.modified) in old
            else found
            for found in files(folder)
        ]

    def age(store):
        database = demo(store).folder
        for found in files(database):
            old.add((f"{database}/{found.name}", found.bytes, found.modified))

    monkeypatch.setattr(Folder, "files", listed)
    return age


def make_old(store: str) -> None:
    """Make all files of a local store old."""
    long_ago = time.time() - _AGO.total_seconds()
    for path in Path(store).rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))


def put_readings(store: str, name: str) -> FileRecord:
    """Readings that have just been put in place; where they are there, what they are."""
    database, path = demo(store).folder, f"swept/{name}"
    if not database.exists(path):
        database.write_new(path, name.encode() * 10)
    return database.record(path)


def publish_sharing(
    store: str, swept: tuple[str, ...] = (), version: str | None = None, **changed
) -> str:
    """Publish a version of two files and some readings."""
    new = demo(store).version(new_version_id() if version is None else version)
    version, folder = new.id, new.folder
    for path in ("entries/part-00000.parquet", "report.html"):
        folder.write_new(path, f"{version} {path}".encode())
    files = tuple(folder.record(path) for path in ("entries/part-00000.parquet", "report.html"))
    records = [dataclasses.asdict(put_readings(store, name)) for name in swept]
    new.publish(manifest(version, files, swept=records, **changed))
    return version


def begin_build(store: str, key: str, version: str, parent: str | None = None, **more) -> Folder:
    """The work folder of a build that has swept a shard."""
    builds = demo(store).folder / f"work/{key}"
    work = builds / version
    work.write_new("plan.json", json.dumps({"version": version, "parent": parent} | more).encode())
    builds.write_new(CLAIM, json.dumps({"version": version}).encode())
    work.write_new("shard-00000.json", b"{}")
    work.write_new("shard-00000/0a1b2c3d/rows.parquet", b"rows" * 100)
    return work


def names(store: str) -> set[str]:
    """All files of the database, tombstones apart."""
    listed = demo(store).folder.files()
    return {f.name for f in listed if f.bytes or not f.name.endswith(f"/{MANIFEST}")}


def check_whole(store: str) -> None:
    """Every listed version is whole, with its readings."""
    for version in demo(store).ids():
        said = demo(store).version(version).manifest()
        assert verify(demo(store).version(version).folder, said.files) == []
        assert verify(demo(store).folder, said.swept) == []
