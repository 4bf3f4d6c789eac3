"""Finds what a database no longer needs: old versions, and leftovers of dead builds and writes.

    {database}/work/{build key}   the work folder of a build that died, or was not tidied up
              /versions/{id}      a version that is not retained; one that never got its manifest
              /swept/..           readings that no retained version names
              /..                 hidden files of writes that were killed

A version is retained if an alias points at it now, if it is among the newest, if it is the newest
of all its corpus' rows (the next rebuild starts from it), or if a build that is under way makes it
or started from it.  Versions that an alias pointed at before are not: `rollback` to one that was
collected says so.  So the number of newest ones is also how far one can surely go back, and the
time that a classification under way has to end.

All else goes only when it is old: nothing of it has changed for some days, by the store's own
clock (a server refuses a machine whose clock is far from its own).  A build that is under way
writes to its work folder all the time, so what it has is young, and its plan tells what it needs.

No listing shows the parts of a killed upload; a bucket's lifecycle rule clears them.
"""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from raee.errors import InputError, listed
from storage.database import Database, databases
from storage.manifest import MANIFEST, NAME_PATTERN, Manifest
from storage.store import Folder, Found

KEEP = 5
"""How many of the newest versions are retained."""

OLDER_THAN = timedelta(days=7)
"""How long a leftover must have been left alone."""

CLAIM = "build.json"
"""The file of a work folder by which the next build of the same version finds what is done."""

_PARTIAL = re.compile(r"(.*/)?\.[^/]+\.[0-9a-f]{8}\.partial")

Kind = Literal["work folder", "version", "unpublished version", "readings", "unfinished files"]


@dataclass(frozen=True)
class Leftover:
    """Something that is collected as a whole."""

    kind: Kind
    path: str
    """Its folder, relative to the database's."""
    why: str
    files: tuple[Found, ...]
    """Its files, named relative to the database's folder."""

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(file.bytes for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """The leftover as JSON has it; files are paths relative to the database's folder."""
        names = [file.name for file in self.files]
        what = {"kind": self.kind, "path": self.path, "why": self.why}
        return {**what, "bytes": self.bytes, "files": names}


@dataclass(frozen=True)
class Search:
    """A database to collect in, and the time from which on its files are young."""

    database: Database
    limit: datetime
    """A file that has changed since is young."""

    @property
    def folder(self) -> Folder:
        """The database's folder."""
        return self.database.folder

    def old(self, files: Iterable[Found]) -> bool:
        """Whether none of some files is young."""
        return all(file.modified <= self.limit for file in files)


@dataclass(frozen=True)
class Uses:
    """Ids of the versions that are in use, whatever their age."""

    made: frozenset[str]
    """Versions that builds under way make."""
    read: frozenset[str]
    """Versions that aliases point at, or that builds under way started from."""

    def __contains__(self, version: str) -> bool:
        return version in self.made or version in self.read


def leftovers(
    database: Database, keep: int = KEEP, older_than: timedelta = OLDER_THAN
) -> list[Leftover]:
    """What would be collected, in that order; nothing is changed.

    keep, older_than: as in `storage.gc.collect`.  Raises InputError if there is no such database,
    less than one version is to be kept, the age is negative, or a manifest, an alias or a build's
    plan cannot be read: nobody knows then what must stay.
    """
    return look(search_of(database, older_than), keep)


def search_of(database: Database, older_than: timedelta) -> Search:
    """A search in a database.  Raises InputError if the age is negative."""
    if older_than < timedelta(0):
        raise InputError(f"nothing is older than {older_than.days} days; give 0 or more")
    return Search(database, datetime.now(UTC) - older_than)


def look(search: Search, keep: int) -> list[Leftover]:
    """The leftovers, in the order in which they are collected.  Raises as `leftovers` does."""
    if keep < 1:
        raise InputError(f"{keep} versions to keep; at least the newest one stays: give 1 or more")
    # Uses come before files: a build publishes its version before its work folder goes, so one
    # that ends meanwhile is met in one of both.
    uses = uses_in(search)
    files = search.folder.files()
    if not files:
        name, store = search.database.name, search.database.store
        there = listed(databases(store).names())
        raise InputError(f"there is no database {name} in {store} (databases there: {there})")
    versions = _by_folder(files, "versions/")
    published = [version for version, own in versions.items() if _is_published(version, own)]
    manifests = manifests_of(search, published)
    retained = _retained(manifests, uses, keep)
    found = [
        *_works(search, files, manifests),
        *_versions(versions, manifests, retained, keep),
        *_unpublished(search, {v: versions[v] for v in versions.keys() - published}, uses),
        *unnamed_readings(search, files, [manifests[version] for version in retained], uses),
    ]
    taken = {file.name for leftover in found for file in leftover.files}
    partial = [f for f in files if _PARTIAL.fullmatch(f.name) and f.name not in taken]
    if old := tuple(f for f in partial if search.old([f])):
        found.append(Leftover("unfinished files", "", "their writers were killed", old))
    return found


def _retained(manifests: dict[str, Manifest], uses: Uses, keep: int) -> set[str]:
    ids = sorted(manifests)
    # A rebuild starts from the newest that is not pruned: one that begins just now, whose plan
    # nobody can know yet, must find it.
    whole = [version for version in ids if manifests[version].pruned is None]
    return {*ids[-keep:], *whole[-1:], *(version for version in ids if version in uses)}


def _works(
    search: Search, files: list[Found], manifests: dict[str, Manifest]
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
    search: Search, versions: dict[str, list[Found]], uses: Uses
) -> Iterable[Leftover]:
    for version, own in sorted(versions.items()):
        if version not in uses and search.old(own):
            why = f"it has no manifest; {_since(own)}"
            yield Leftover("unpublished version", f"versions/{version}", why, tuple(own))


def unnamed_readings(
    search: Search, files: list[Found], naming: Iterable[Manifest], uses: Uses
) -> Iterable[Leftover]:
    """The old readings among some files that no manifest names and no build under way makes."""
    named = {file.path for manifest in naming for file in manifest.swept}
    # A copy may be as old as its source: a build's own readings are known by their names.
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


def uses_in(search: Search) -> Uses:
    """The versions that are in use now.

    Raises InputError if an alias or a build's plan cannot be read.
    """
    work = search.folder / "work"
    made, parents = set(), set()
    for key, files in _by_folder(work.files(), "").items():
        if search.old(files):
            continue
        for version, own in _by_folder(files, f"{key}/").items():
            made.add(version)
            plan = f"{key}/{version}/plan.json"
            if plan in [file.name for file in own]:
                parents |= _parent(work, plan)
    pointed_at = search.database.aliases().values()
    return Uses(frozenset(made), frozenset({*pointed_at, *parents}))


def _parent(work: Folder, plan: str) -> set[str]:
    """The version that a build started from, if any, even if the build reuses none of its rows."""
    try:
        parent = json.loads(work.read(plan))["parent"]
    except FileNotFoundError:
        return set()  # it has ended
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{work}/{plan} is damaged: it is no plan of a build") from error
    return set() if parent is None else {str(parent)}


def manifests_of(search: Search, ids: Collection[str]) -> dict[str, Manifest]:
    """By id, the manifests of the versions that nobody else collects meanwhile.

    Raises InputError if one cannot be read.
    """
    found = {}
    for version in ids:
        try:
            found[version] = search.database.version(version).manifest()
        except InputError:
            if search.database.version(version).exists():
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


def _since(files: Iterable[Found]) -> str:
    return f"unchanged since {max(file.modified for file in files):%Y-%m-%d}"
