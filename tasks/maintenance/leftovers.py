"""The upkeep of a store: files that nobody needs go, and versions that are kept are read again."""

from datetime import timedelta

from prefect import task
from pydantic import BaseModel

from storage.database import Database, Version, verify
from storage.gc import collect
from tasks.maintenance.contradictions import contradictions
from tasks.retrying import RETRIES


class Kept(BaseModel):
    """The state of a database after its upkeep."""

    database: str
    versions: int
    collected_bytes: int
    faults: list[str]
    """Files of versions that are not what their manifest says."""


@task(**RETRIES)
def collect_leftovers(database: Database, keep: int, older_than: timedelta) -> int:
    """Delete old versions that no alias points at, and what dead builds left; returns bytes.

    keep: how many of the newest versions stay in any case.  Raises InputError as `collect` does.
    """
    return sum(one.bytes for one in collect(database, keep, older_than))


@task(**RETRIES)
def verify_versions(database: Database, collected_bytes: int) -> Kept:
    """Read every file of a database's versions; returns what is wrong with them.

    collected_bytes: for the record.  Raises InputError if a manifest is damaged.
    """
    versions = database.versions()
    return Kept(
        database=database.name,
        versions=len(versions),
        collected_bytes=collected_bytes,
        faults=[f"{version.id}: {fault}" for version in versions for fault in faults_of(version)],
    )


def faults_of(version: Version) -> list[str]:
    """The faults of a version's manifest, and of each file that is not as the manifest says.

    If all files are as it says, the contradictions between them are faults, too.  Raises InputError
    if there is no such version.
    """
    manifest, folder = version.manifest(), version.folder
    faults = verify(folder, manifest.files)
    faults += verify(version.database.folder, manifest.swept)
    if not faults:
        faults += contradictions(folder, manifest)
    return version.manifest_faults() + faults
