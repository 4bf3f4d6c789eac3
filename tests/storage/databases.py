"""Versions as a build publishes them, without any build."""

from datetime import UTC, datetime

from storage.checked import FileRecord
from storage.versions import FORMAT, Manifest, new_version_id, publish, version_folder

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


def publish_version(store: str, files: dict[str, bytes] | None = None) -> str:
    """Publish a version of some files; returns its id."""
    version = new_version_id()
    folder = version_folder(store, NAME, version)
    for path, data in (files or {}).items():
        folder.write_new(path, data)
    records = tuple(folder.record(path) for path in files or {})
    publish(folder, manifest(version, records))
    return version
