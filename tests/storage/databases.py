"""Versions as a build publishes them, without any build."""

from datetime import UTC, datetime

from storage.checked import FileRecord
from storage.database import Database, new_version_id
from storage.manifest import FORMAT, Manifest

NAME = "demo"


def manifest(version: str, files: tuple[FileRecord, ...] = (), **changed) -> Manifest:
    """A version's manifest, in which little but the files is true."""
    return Manifest.model_validate(
        {
            "format": FORMAT,
            "name": NAME,
            "id": version,
            "parent": None,
            "created_at": datetime.now(UTC),
            "job": {},
            "prompt": {},
            "backbone": {},
            "key": {},
            "exits": ["head@0", "vote@0"],
            "labels": ["no", "yes"],
            "rows": 3,
            "rejected": {},
            "files": [vars(file) for file in files],
            "corpus": {},
            "metrics": {},
            "policy": {},
            "seconds": {},
            "code_version": "0",
            "libraries": {},
        }
        | changed
    )


def demo(store: str) -> Database:
    """The database that these tests fill."""
    return Database(store, NAME)


def publish_version(store: str, files: dict[str, bytes] | None = None) -> str:
    """Publish a version of some files; returns its id."""
    version = demo(store).version(new_version_id())
    folder = version.folder
    for path, data in (files or {}).items():
        folder.write_new(path, data)
    records = tuple(folder.record(path) for path in files or {})
    version.publish(manifest(version.id, records))
    return version.id
