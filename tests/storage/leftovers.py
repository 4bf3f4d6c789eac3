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
from storage.leftovers import CLAIM
from storage.store import Folder
from storage.versions import (
    MANIFEST,
    database_folder,
    new_version_id,
    publish,
    read_manifest,
    verify,
    version_folder,
    version_ids,
)
from tests.storage.databases import NAME, manifest

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
        database = database_folder(store, NAME)
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
    database, path = database_folder(store, NAME), f"swept/{name}"
    if not database.exists(path):
        database.write_new(path, name.encode() * 10)
    return database.record(path)


def publish_sharing(
    store: str, swept: tuple[str, ...] = (), version: str | None = None, **changed
) -> str:
    """Publish a version of two files and some readings."""
    version = new_version_id() if version is None else version
    folder = version_folder(store, NAME, version)
    for path in ("entries/part-00000.parquet", "report.html"):
        folder.write_new(path, f"{version} {path}".encode())
    files = tuple(folder.record(path) for path in ("entries/part-00000.parquet", "report.html"))
    records = [dataclasses.asdict(put_readings(store, name)) for name in swept]
    publish(folder, manifest(version, files, swept=records, **changed))
    return version


def begin_build(store: str, key: str, version: str, parent: str | None = None, **more) -> Folder:
    """The work folder of a build that has swept a shard."""
    builds = database_folder(store, NAME) / f"work/{key}"
    work = builds / version
    work.write_new("plan.json", json.dumps({"version": version, "parent": parent} | more).encode())
    builds.write_new(CLAIM, json.dumps({"version": version}).encode())
    work.write_new("shard-00000.json", b"{}")
    work.write_new("shard-00000/0a1b2c3d/rows.parquet", b"rows" * 100)
    return work


def names(store: str) -> set[str]:
    """All files of the database, tombstones apart."""
    listed = database_folder(store, NAME).files()
    return {f.name for f in listed if f.bytes or not f.name.endswith(f"/{MANIFEST}")}


def check_whole(store: str) -> None:
    """Every listed version is whole, with its readings."""
    for version in version_ids(store, NAME):
        said = read_manifest(store, NAME, version)
        assert verify(version_folder(store, NAME, version), said.files) == []
        assert verify(database_folder(store, NAME), said.swept) == []
