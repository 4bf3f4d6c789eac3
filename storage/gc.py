"""What a database no longer needs: old versions, and what dead builds and killed writes have left.

    {database}/work/{build key}   the work folder of a build that died, or was not tidied up
              /versions/{id}      a version that is not retained; one that never got its manifest
              /swept/..           readings that no retained version names
              /..                 hidden files of writes that were killed

A version is retained where an alias points at it now, where it is among the newest, where it is the
newest of all its corpus' rows (the next rebuild starts from it), and where a build that is under
way makes it or started from it.  Versions that an alias pointed at before are not: `rollback` to
one that was collected says so.  So the number of newest ones is also how far one can surely go
back, and the time that a classification under way has to end.

All else goes only when it is old: nothing of it has changed for some days, by the store's own
clock (a server refuses whoever's clock is far from its own).  A build that is under way writes to
its work folder all the time, so what it has is young, and what it needs is found through its plan.

Of a killed upload's parts no listing tells; a bucket's lifecycle rule clears them.
"""

import json
import os
import re
import secrets
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from raee.errors import InputError
from storage.aliases import aliases
from storage.conditional import require_conditional_writes
from storage.store import Folder, Found
from storage.versions import (
    MANIFEST,
    NAME_PATTERN,
    Manifest,
    database_folder,
    databases,
    has_version,
    read_manifest,
    version_ids,
)

KEEP = 5
"""Newest versions that are retained."""

OLDER_THAN = timedelta(days=7)
"""How long a leftover must have been left alone."""

CLAIM = "build.json"
"""The file of a work folder by which the next build of the same finds what is done."""

_COLLECTOR = re.compile(r"collected-([0-9]{8})")
"""A file by which one of several collectors has a version to itself."""

_PARTIAL = re.compile(r"(.*/)?\.[^/]+\.[0-9a-f]{8}\.partial")

_DELETED_AT_ONCE = 8

Kind = Literal["work folder", "version", "unpublished version", "readings", "unfinished files"]


@dataclass(frozen=True)
class Leftover:
    """Something that is collected as a whole."""

    kind: Kind
    path: str
    """Its folder, relative to the database's."""
    why: str
    files: tuple[Found, ...]
    """Named relative to the database's folder."""

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(file.bytes for file in self.files)

    def account(self) -> dict[str, Any]:
        """What it is, for JSON."""
        names = [file.name for file in self.files]
        said = {"kind": self.kind, "path": self.path, "why": self.why}
        return {**said, "bytes": self.bytes, "files": names}


@dataclass(frozen=True)
class _Search:
    """A database to collect in, and what is old there."""

    store: str
    name: str
    limit: datetime
    """What has changed since is young."""

    @property
    def database(self) -> Folder:
        return database_folder(self.store, self.name)

    def old(self, files: Iterable[Found]) -> bool:
        return all(file.modified <= self.limit for file in files)


@dataclass(frozen=True)
class _Uses:
    """Versions that somebody is at, whatever their age."""

    made: frozenset[str]
    """By the builds under way."""
    read: frozenset[str]
    """Those that aliases point at, and those that builds under way started from."""

    def __contains__(self, version: str) -> bool:
        return version in self.made or version in self.read


def leftovers(
    store: str, name: str, keep: int = KEEP, older_than: timedelta = OLDER_THAN
) -> list[Leftover]:
    """What `collect` would delete, in its order; nothing is changed.

    Raises InputError where there is no such database, less than one version is to be kept, or a
    manifest, an alias or a build's plan cannot be read: nobody knows then what must stay.
    """
    return _leftovers(_search(store, name, older_than), keep)


def collect(
    store: str, name: str, keep: int = KEEP, older_than: timedelta = OLDER_THAN
) -> list[Leftover]:
    """Delete what a database no longer needs; returns what went.

    Others may build, promote, and collect meanwhile: what they turn out to need stays.  Where it is
    killed, every version that is listed is whole, and a later call does the rest.

    keep: how many of the newest versions are retained beside those in use.  older_than: no time at
    all is safe only while nothing else runs.  Raises InputError as `leftovers` does, or where the
    store cannot refuse a taken name.
    """
    search = _search(store, name, older_than)
    found = _leftovers(search, keep)
    if found:
        require_conditional_writes(store)
    take = {
        "work folder": _take_work,
        "version": _take_version,
        "unpublished version": _take_unpublished,
        "readings": _take_readings,
        "unfinished files": _take_all,
    }
    went = [take[leftover.kind](search, leftover) for leftover in found]
    return [leftover for leftover in went if leftover is not None]


def _search(store: str, name: str, older_than: timedelta) -> _Search:
    if older_than < timedelta(0):
        raise InputError(f"nothing is older than {older_than.days} days; give 0 or more")
    return _Search(store, name, datetime.now(UTC) - older_than)


def _leftovers(search: _Search, keep: int) -> list[Leftover]:
    if keep < 1:
        raise InputError(f"{keep} versions to keep; at least the newest one stays: give 1 or more")
    # In this order: a build publishes its version before its work folder goes, so one that ends
    # meanwhile is met in one of both.
    uses = _uses(search)
    files = search.database.files()
    if not files:
        there = ", ".join(databases(search.store).names()) or "none"
        raise InputError(
            f"there is no database {search.name} in {search.store} (databases there: {there})"
        )
    versions = _by_folder(files, "versions/")
    published = [version for version, own in versions.items() if _is_published(version, own)]
    manifests = _manifests(search, published)
    retained = _retained(manifests, uses, keep)
    found = [
        *_works(search, files, manifests),
        *_versions(versions, manifests, retained, keep),
        *_unpublished(search, {v: versions[v] for v in versions.keys() - published}, uses),
        *_readings(search, files, [manifests[version] for version in retained], uses),
    ]
    taken = {file.name for leftover in found for file in leftover.files}
    partial = [f for f in files if _PARTIAL.fullmatch(f.name) and f.name not in taken]
    if old := tuple(f for f in partial if search.old([f])):
        found.append(Leftover("unfinished files", "", "their writers were killed", old))
    return found


def _retained(manifests: dict[str, Manifest], uses: _Uses, keep: int) -> set[str]:
    ids = sorted(manifests)
    # A rebuild starts from the newest that is not pruned: one that begins just now, whose plan
    # nobody can know yet, must find it.
    whole = [version for version in ids if manifests[version].pruned is None]
    return {*ids[-keep:], *whole[-1:], *(version for version in ids if version in uses)}


def _works(
    search: _Search, files: list[Found], manifests: dict[str, Manifest]
) -> Iterable[Leftover]:
    for key, own in _by_folder(files, "work/").items():
        if search.old(own):
            done = any(version in manifests for version in _by_folder(own, f"work/{key}/"))
            what = "its version is published" if done else "its build died"
            yield Leftover("work folder", f"work/{key}", f"{what}; {_since(own)}", tuple(own))


def _versions(
    versions: dict[str, list[Found]], manifests: dict[str, Manifest], retained: set[str], keep: int
) -> Iterable[Leftover]:
    why = f"no alias points at it, and it is not among the newest {keep}"
    for version in sorted(manifests.keys() - retained):
        yield Leftover("version", f"versions/{version}", why, tuple(versions[version]))


def _unpublished(
    search: _Search, versions: dict[str, list[Found]], uses: _Uses
) -> Iterable[Leftover]:
    for version, own in sorted(versions.items()):
        if version not in uses and search.old(own):
            why = f"it has no manifest; {_since(own)}"
            yield Leftover("unpublished version", f"versions/{version}", why, tuple(own))


def _readings(
    search: _Search, files: list[Found], naming: Iterable[Manifest], uses: _Uses
) -> Iterable[Leftover]:
    named = {file.path for manifest in naming for file in manifest.swept}
    # A copy may be as old as what it was copied from: a build's own are known by their names.
    making = tuple(f"swept/{version}-" for version in uses.made)
    unnamed = tuple(
        file
        for file in files
        if file.name.startswith("swept/")
        and file.name not in named
        and not file.name.startswith(making)
        and search.old([file])
    )
    if unnamed:
        yield Leftover("readings", "swept", "no retained version names them", unnamed)


def _take_work(search: _Search, leftover: Leftover) -> Leftover | None:
    folder = search.database / leftover.path
    if not search.old(folder.files()):
        return None  # its build has woken up
    # First, so that no build finds half of what was done.
    folder.delete(CLAIM)
    # From now on the same build may begin anew here: what goes are the old files, by their names.
    rest = tuple(file for file in leftover.files if file.name != f"{leftover.path}/{CLAIM}")
    _take_all(search, replace(leftover, files=rest))
    return leftover


def _take_version(search: _Search, leftover: Leftover) -> Leftover | None:
    """Delete a version: first it is no longer listed, then nobody uses it, then its files go.

    An empty manifest takes the place of its own.  It is young, so whoever else collects leaves the
    folder alone; where this process is killed, it keeps the folder until it is old itself.  Of two
    that have found the version at once one goes on: else one might put the manifest back, because
    an alias has just come, while the other deletes.
    """
    folder = search.database / leftover.path
    claim = _claim(search, folder)
    if claim is None:
        return None
    went = None
    manifest = _manifest_bytes(folder)
    if manifest:  # else somebody else has collected it, or died at it
        _overwrite_manifest(folder, b"")
        # `promote` points an alias at a version and then looks whether it is still there; here it
        # is the other way about, so one of both sees the other.
        if _version_of(leftover) in _uses(search):
            _overwrite_manifest(folder, manifest)
        else:
            went = _take_all(search, leftover)
    folder.delete(claim)
    _remove_empty_folders(folder)
    return went


def _claim(search: _Search, folder: Folder) -> str | None:
    """Have a version to oneself; returns the claim, or None where somebody else has it.

    One that was killed has it until its claim is old.
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


def _take_unpublished(search: _Search, leftover: Leftover) -> Leftover | None:
    """Delete what a dead build has put in place.

    An empty manifest comes first: a build that wakes up cannot publish what is being emptied.  It
    stays until it is old itself; then it goes in the same way.
    """
    folder, version = search.database / leftover.path, _version_of(leftover)
    marked = f"{leftover.path}/{MANIFEST}" in [file.name for file in leftover.files]
    if not marked:
        try:
            folder.write_new(MANIFEST, b"")
        except FileExistsError:
            return None  # it has been published just now, or somebody else collects it
    if version in _uses(search):
        if not marked:
            folder.delete(MANIFEST)
        return None
    return _take_all(search, leftover)


def _take_readings(search: _Search, leftover: Leftover) -> Leftover | None:
    """Delete readings that no version names, now that some are gone and others may have come."""
    uses = _uses(search)
    manifests = _manifests(search, version_ids(search.store, search.name))
    left = _readings(search, list(leftover.files), manifests.values(), uses)
    return _take_all(search, replace(leftover, files=tuple(f for one in left for f in one.files)))


def _take_all(search: _Search, leftover: Leftover) -> Leftover | None:
    """Delete all files, manifests last: until then the folder's state is known."""
    manifest = f"{leftover.path}/{MANIFEST}"
    names = [file.name for file in leftover.files if file.name != manifest]
    with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
        list(pool.map(search.database.delete, names))
    if len(names) < len(leftover.files):
        search.database.delete(manifest)
    if leftover.path.startswith(("versions/", "work/")):
        _remove_empty_folders(search.database / leftover.path)
    return leftover if leftover.files else None


def _uses(search: _Search) -> _Uses:
    """Versions that aliases point at, and those of builds under way, as of now."""
    work = search.database / "work"
    made, parents = set(), set()
    for key, files in _by_folder(work.files(), "").items():
        if search.old(files):
            continue
        for version, own in _by_folder(files, f"{key}/").items():
            made.add(version)
            plan = f"{key}/{version}/plan.json"
            if plan in [file.name for file in own]:
                parents |= _parent(work, plan)
    pointed_at = aliases(search.store, search.name).values()
    return _Uses(frozenset(made), frozenset({*pointed_at, *parents}))


def _parent(work: Folder, plan: str) -> set[str]:
    """The version that a build started from, if any: also where it takes over none of its rows."""
    try:
        parent = json.loads(work.read(plan))["parent"]
    except FileNotFoundError:
        return set()  # it has ended
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{work}/{plan} is damaged: it is no plan of a build") from error
    return set() if parent is None else {str(parent)}


def _manifests(search: _Search, ids: Collection[str]) -> dict[str, Manifest]:
    found = {}
    for version in ids:
        try:
            found[version] = read_manifest(search.store, search.name, version)
        except InputError:
            if has_version(search.store, search.name, version):
                raise
            # Somebody else collects it.
    return found


def _is_published(version: str, files: Iterable[Found]) -> bool:
    return any(file.bytes and file.name == f"versions/{version}/{MANIFEST}" for file in files)


def _by_folder(files: Iterable[Found], below: str) -> dict[str, list[Found]]:
    """The files of each folder directly below one, in the order of the folders' names."""
    pattern = re.compile(f"{re.escape(below)}({NAME_PATTERN})/.+")
    found: dict[str, list[Found]] = {}
    for file in files:
        if match := pattern.fullmatch(file.name):
            found.setdefault(match[1], []).append(file)
    return dict(sorted(found.items()))


def _version_of(leftover: Leftover) -> str:
    return leftover.path.removeprefix("versions/")


def _since(files: Iterable[Found]) -> str:
    return f"unchanged since {max(file.modified for file in files):%Y-%m-%d}"


def _overwrite_manifest(folder: Folder, data: bytes) -> None:
    with folder.create(MANIFEST) as file:
        file.write(data)


def _remove_empty_folders(folder: Folder) -> None:
    """Remove what is left of a local folder; where somebody has written to it since, it stays."""
    path = folder.local_path("")
    if path is None:
        return
    for here, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(here)
