"""Deletes what a database no longer needs, beside others who build, promote and collect.

`storage.leftovers` finds what that is.
"""

import os
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from storage.conditional import require_conditional_writes
from storage.database import Database
from storage.leftovers import (
    CLAIM,
    KEEP,
    OLDER_THAN,
    Leftover,
    Search,
    look,
    manifests_of,
    search_of,
    unnamed_readings,
    uses_in,
)
from storage.manifest import MANIFEST
from storage.store import Folder

_COLLECTOR = re.compile(r"collected-([0-9]{8})")
"""The claim: a file by which one of several collectors has a version to itself."""

_DELETED_AT_ONCE = 8


def collect(
    database: Database, keep: int = KEEP, older_than: timedelta = OLDER_THAN
) -> list[Leftover]:
    """Delete what a database no longer needs; returns what was deleted.

    Others may build, promote, and collect meanwhile: what they turn out to need stays.  If this
    process is killed, every version that is listed is whole, and a later call does the rest.

    keep: how many of the newest versions are retained beside those in use.  older_than: how long a
    leftover must have been left alone; zero is safe only while nothing else runs.  Raises
    InputError as `leftovers` does, or if the store cannot refuse a taken name.
    """
    search = search_of(database, older_than)
    found = look(search, keep)
    if found:
        require_conditional_writes(database.store)
    take = {
        "work folder": _take_work,
        "version": _take_version,
        "unpublished version": _take_unpublished,
        "readings": _take_readings,
        "unfinished files": _take_all,
    }
    went = [take[leftover.kind](search, leftover) for leftover in found]
    return [leftover for leftover in went if leftover is not None]


def _take_work(search: Search, leftover: Leftover) -> Leftover | None:
    folder = search.folder / leftover.path
    if not search.old(folder.files()):
        return None  # its build has woken up
    # The claim goes first, so that no build finds half of what was done.
    folder.delete(CLAIM)
    # From now on the same build may begin anew here: only the old files go, by their names.
    rest = tuple(file for file in leftover.files if file.name != f"{leftover.path}/{CLAIM}")
    _take_all(search, replace(leftover, files=rest))
    return leftover


def _take_version(search: Search, leftover: Leftover) -> Leftover | None:
    """Delete a version: take it off the list, see that nobody uses it, then delete its files.

    An empty manifest replaces its own.  It is young, so other collectors leave the folder alone; if
    this process is killed, it keeps the folder until it is old itself.  If two have found the
    version at once, only one goes on: else one might put the manifest back, because an alias has
    just come, while the other deletes.
    """
    folder = search.folder / leftover.path
    claim = _claim(search, folder)
    if claim is None:
        return None
    went = None
    manifest = _manifest_bytes(folder)
    if manifest:  # else somebody else has collected it, or died at it
        _overwrite_manifest(folder, b"")
        # `promote` points an alias at a version and then looks whether it is still there; here the
        # order is reversed, so one of both sees the other.
        if _version_of(leftover) in uses_in(search):
            _overwrite_manifest(folder, manifest)
        else:
            went = _take_all(search, leftover)
    folder.delete(claim)
    _remove_empty_folders(folder)
    return went


def _claim(search: Search, folder: Folder) -> str | None:
    """Have a version to oneself; returns the claim, or None if somebody else has the version.

    A collector that was killed has it until its claim is old.
    """
    claims = [file for file in folder.files() if _COLLECTOR.fullmatch(file.name)]
    if not search.old(claims):
        return None
    last = max((int(file.name.rpartition("-")[2]) for file in claims), default=0)
    claim = f"collected-{last + 1:08d}"
    try:
        folder.write_new(claim, secrets.token_bytes(8))
    except FileExistsError:
        return None
    return claim


def _manifest_bytes(folder: Folder) -> bytes:
    try:
        return folder.read(MANIFEST)
    except FileNotFoundError:
        return b""


def _take_unpublished(search: Search, leftover: Leftover) -> Leftover | None:
    """Delete the files of a version that a dead build did not publish.

    An empty manifest comes first: a build that wakes up cannot publish what is being emptied.  The
    empty one stays until it is old itself, and then goes in the same way.
    """
    folder, version = search.folder / leftover.path, _version_of(leftover)
    marked = f"{leftover.path}/{MANIFEST}" in [file.name for file in leftover.files]
    if not marked:
        try:
            folder.write_new(MANIFEST, b"")
        except FileExistsError:
            return None  # it has been published just now, or somebody else collects it
    if version in uses_in(search):
        if not marked:
            folder.delete(MANIFEST)
        return None
    return _take_all(search, leftover)


def _take_readings(search: Search, leftover: Leftover) -> Leftover | None:
    """Delete readings that no version names, now that some are gone and others may have come."""
    uses = uses_in(search)
    manifests = manifests_of(search, search.database.ids())
    left = unnamed_readings(search, list(leftover.files), manifests.values(), uses)
    return _take_all(search, replace(leftover, files=tuple(f for one in left for f in one.files)))


def _take_all(search: Search, leftover: Leftover) -> Leftover | None:
    """Delete all files, manifests last: until then the folder's state is known."""
    manifest = f"{leftover.path}/{MANIFEST}"
    names = [file.name for file in leftover.files if file.name != manifest]
    with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
        list(pool.map(search.folder.delete, names))
    if len(names) < len(leftover.files):
        search.folder.delete(manifest)
    if leftover.path.startswith(("versions/", "work/")):
        _remove_empty_folders(search.folder / leftover.path)
    return leftover if leftover.files else None


def _version_of(leftover: Leftover) -> str:
    return leftover.path.removeprefix("versions/")


def _overwrite_manifest(folder: Folder, data: bytes) -> None:
    with folder.create(MANIFEST) as file:
        file.write(data)


def _remove_empty_folders(folder: Folder) -> None:
    """Remove what is left of a local folder; it stays if somebody has written to it since."""
    path = folder.local_path("")
    if path is None:
        return
    for here, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(here)
