"""Keeping a store in order: what is not needed goes, what is kept is read again."""

from datetime import timedelta

from prefect import task
from pydantic import BaseModel

from storage.gc import collect
from storage.versions import (
    database_folder,
    manifest_faults,
    read_manifest,
    verify,
    version_folder,
    version_ids,
)
from tasks.maintenance.contradictions import contradictions
from tasks.retrying import RETRIES


class Kept(BaseModel):
    """What was found of a database."""

    database: str
    versions: int
    collected_bytes: int
    faults: list[str]
    """Files of versions that are not what their manifest says."""


@task(**RETRIES)
def collect_leftovers(store: str, name: str, keep: int, older_than: timedelta) -> int:
    """Delete old versions that no alias points at, and what dead builds left; returns bytes."""
    return sum(one.bytes for one in collect(store, name, keep, older_than))


@task(**RETRIES)
def verify_versions(store: str, name: str, collected_bytes: int) -> Kept:
    """Read every file of a database's versions."""
    versions = version_ids(store, name)
    faults = []
    for version in versions:
        faults += [f"{version}: {fault}" for fault in faults_of(store, name, version)]
    return Kept(
        database=name, versions=len(versions), collected_bytes=collected_bytes, faults=faults
    )


def faults_of(store: str, name: str, version: str) -> list[str]:
    """What is wrong with a version: with its manifest, and with each file that is not as it says.

    Where all files are, also what it says that they do not.
    """
    manifest = read_manifest(store, name, version)
    folder = version_folder(store, name, version)
    faults = verify(folder, manifest.files)
    faults += verify(database_folder(store, name), manifest.swept)
    if not faults:
        faults += contradictions(folder, manifest)
    return manifest_faults(folder) + faults
