"""Handles of a database in a store, and of its versions, which are whole or not there.

    {store}/databases/{name}/versions/{id}/manifest.json, ..    `Version`
                            /aliases/{alias}/00000001.json ..   `storage.aliases`
                            /swept/.., /work/..                 what builds keep for each other

A handle is an address.  It does not promise that anything lies there, and reads the store anew at
each call.  So every method of a handle raises what `storage.store.Folder` raises, too.
"""

import json
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from raee.errors import InputError, clauses, cut, listed
from storage.alias_names import DEFAULT_ALIAS
from storage.aliases import (
    AliasRecord,
    append,
    read_current,
    read_history,
    rolled_through,
)
from storage.checked import FileRecord
from storage.conditional import require_conditional_writes
from storage.manifest import (
    FORMAT,
    MANIFEST,
    NAME_PATTERN,
    VERDICT,
    Manifest,
    ManifestFormat,
    Verdict,
    digest_of,
)
from storage.store import Folder


def check_name(what: str, name: str) -> None:
    """Raises InputError if a name cannot be a folder's and an artifact key's.

    what: the kind of thing that has the name, for the message.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            f"{what} {cut(repr(name))}: use lowercase letters, digits and dashes, 63 at most, and "
            "no dash at the start"
        )


def new_version_id(now: datetime | None = None) -> str:
    """An id that sorts by time and collides with no other machine's.

    now: the time of the id, by default the present.
    """
    now = datetime.now(UTC) if now is None else now
    return f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(4)}"


def databases(store: str) -> Folder:
    """The folder in which a store keeps its databases.

    Raises InputError if files of that kind of address can only be read.
    """
    folder = Folder(store)
    folder.require_writable_kind()
    return folder / "databases"


@dataclass(frozen=True)
class Database:
    """A database in a store, there or not."""

    store: str
    name: str

    @property
    def folder(self) -> Folder:
        """The database's folder.  Raises InputError if its name cannot be one."""
        check_name("database", self.name)
        return databases(self.store) / self.name

    def version(self, id: str) -> "Version":
        """The version of an id, there or not."""
        return Version(self, id)

    def ids(self) -> list[str]:
        """The ids of its versions, oldest first; none if there is no such database.

        A folder without a manifest, or with an empty one, is no version.  An empty manifest keeps a
        dead build, some of whose files may be gone, from ever publishing its version.
        """
        return sorted(
            found.name.removesuffix(f"/{MANIFEST}")
            for found in (self.folder / "versions").files()
            if found.bytes and re.fullmatch(f"{NAME_PATTERN}/{re.escape(MANIFEST)}", found.name)
        )

    def versions(self) -> list["Version"]:
        """Its versions, oldest first."""
        return [self.version(id) for id in self.ids()]

    def open(self, version: str | None = None) -> "Version":
        """The version of an id or an alias.

        version: by default the version that the alias `production` points at, or the newest one if
        there is no such alias.  Raises InputError if there is no such version or alias.
        """
        if version is None:
            promoted = self.current(DEFAULT_ALIAS)
            if promoted is not None:
                return self.version(promoted)
            ids = self.ids()
            if not ids:
                raise InputError(
                    f"there is no version of database {self.name} in {self.store} (databases "
                    f"there: {listed(databases(self.store).names())}); make one with `raee build`"
                )
            return self.version(ids[-1])
        if self.version(version).exists():
            return self.version(version)
        known = self.aliases()
        if version not in known:
            raise InputError(
                f"database {self.name} in {self.store} has no version or alias {version!r} "
                f"(aliases: {listed(known)}); `raee versions {self.name}` lists the versions"
            )
        return self.version(known[version])

    def aliases(self) -> dict[str, str]:
        """By alias, the id of the version that it points at.

        Raises InputError if a record is damaged.
        """
        names = (self.folder / "aliases").names()
        found = {alias: self.current(alias) for alias in names}
        return {alias: version for alias, version in found.items() if version is not None}

    def current(self, alias: str) -> str | None:
        """The id of the version that an alias points at; None if it was never set.

        Raises InputError if its record is damaged.
        """
        return read_current(self._alias(alias))

    def history(self, alias: str) -> list[AliasRecord]:
        """All changes of an alias, oldest first; none if it was never set.

        Raises InputError if a record is damaged.
        """
        return read_history(self._alias(alias))

    def promote(
        self, version: str, alias: str = DEFAULT_ALIAS, if_current: str | None = None
    ) -> AliasRecord:
        """Point an alias at a version.

        if_current: the version that it must point at now, or "" if it must not be set yet; by
        default it may point at any.  Raises InputError if the version does not exist, the alias
        points elsewhere, or the store cannot refuse a taken name.
        """
        check_name("alias", alias)
        self.version(version).manifest()
        self._check_change(if_current)
        about = f"alias {alias!r} of database {self.name}"
        record = append(self._alias(alias), about, "promote", lambda changes: version, if_current)
        self._check_still_there(alias, record)
        return record

    def rollback(self, alias: str = DEFAULT_ALIAS, if_current: str | None = None) -> AliasRecord:
        """Point an alias at the version that it pointed at before; appends, never deletes.

        Rolling back twice goes two versions back.  if_current: as in `promote`.  Raises InputError
        if there is no version before, the alias points elsewhere, or the store cannot refuse a
        taken name.
        """
        folder, about = self._alias(alias), f"alias {alias!r} of database {self.name}"

        def before(changes: list[AliasRecord]) -> str:
            stack = rolled_through(changes)
            if len(stack) < 2:
                raise InputError(
                    f"{about} has no version to roll back to"
                    + ("" if stack else "; it was never set")
                )
            self.version(stack[-2]).manifest()
            return stack[-2]

        self._check_change(if_current)
        record = append(folder, about, "rollback", before, if_current)
        self._check_still_there(alias, record)
        return record

    def _alias(self, alias: str) -> Folder:
        check_name("alias", alias)
        return self.folder / f"aliases/{alias}"

    def _check_change(self, if_current: str | None) -> None:
        if if_current:
            check_name("version", if_current)
        require_conditional_writes(self.store)

    def _check_still_there(self, alias: str, record: AliasRecord) -> None:
        """A collector looks at the aliases last, this at the version, so one sees the other."""
        if not self.version(record.version).exists():
            raise InputError(
                f"version {record.version} of database {self.name} was deleted just now, and alias "
                f"{alias!r} points at it; point it at another one"
            )


def open_version(store: str, name_at: str) -> "Version":
    """The version that a NAME or NAME@VERSION means, by id or alias, as `Database.open` does."""
    name, _, version = name_at.partition("@")
    return Database(store, name).open(version or None)


@dataclass(frozen=True)
class Version:
    """A version of a database, there or not."""

    database: Database
    id: str

    @property
    def where(self) -> str:
        """The version, for messages."""
        return f"database {self.database.name}@{self.id}"

    @property
    def folder(self) -> Folder:
        """The version's folder.  Raises InputError if its id cannot be one."""
        check_name("version", self.id)
        return self.database.folder / f"versions/{self.id}"

    def exists(self) -> bool:
        """Whether it is published: its manifest is there and is not empty."""
        try:
            return self.folder.size(MANIFEST) > 0
        except FileNotFoundError:
            return False

    def publish(self, manifest: Manifest) -> None:
        """Make it exist: write its manifest, with the digest.  All its files are there already.

        Raises FileExistsError if it has a manifest already.
        """
        fields = json.loads(manifest.model_dump_json(exclude={"digest"}))
        data = json.dumps(fields | {"digest": digest_of(fields)}, indent=1, ensure_ascii=False)
        self.folder.write_new(MANIFEST, data.encode())

    def manifest(self) -> Manifest:
        """Its manifest.

        Raises InputError if there is no such version, it is of a newer format, or the manifest is
        damaged or another version's.
        """
        folder, database = self.folder, self.database
        try:
            data = folder.read(MANIFEST)
        except FileNotFoundError:
            data = b""
        if not data:
            raise InputError(
                f"database {database.name} in {database.store} has no version {self.id!r}; "
                f"{self._what_there_is()}"
            )
        path = f"{folder}/{MANIFEST}"
        try:
            manifest_format = ManifestFormat.model_validate_json(data).format
            if manifest_format > FORMAT:
                raise InputError(
                    f"{path} is of format {manifest_format}, newer than format {FORMAT}, the "
                    "newest that this program reads; upgrade raee"
                )
            manifest = Manifest.model_validate_json(data)
        except ValidationError as error:
            reason = error.errors()[0]
            key = ".".join(map(str, reason["loc"]))
            fault = cut(f"{key} {reason['msg']}", 300)
            raise InputError(f"{path} is damaged: {fault}") from error
        if (manifest.name, manifest.id) != (database.name, self.id):
            other = f"{manifest.name}@{manifest.id}"
            raise InputError(f"{path} is damaged: it is the manifest of {cut(repr(other), 150)}")
        return manifest

    def manifest_faults(self) -> list[str]:
        """What is wrong with its manifest by its own digest; nothing if the manifest has none."""
        try:
            fields = json.loads(self.folder.read(MANIFEST))
        except (FileNotFoundError, ValueError):  # collected just now
            return [f"{MANIFEST} is missing"]
        if fields.get("digest") in (None, digest_of(fields)):
            return []
        return [f"{MANIFEST} has another digest than it says: something in it was changed"]

    def require_whole(self, manifest: Manifest, paths: Sequence[str]) -> None:
        """Check its manifest, and its files at some paths, before anything reads them.

        Raises InputError if one is missing or was changed.
        """
        faults = self.manifest_faults()
        faults += verify(self.folder, [file for file in manifest.files if file.path in paths])
        if faults:
            raise InputError(
                f"{self.folder} is damaged: {clauses(faults)}. Roll back to another version or "
                "build anew."
            )

    def keep_verdict(self, verdict: Verdict) -> None:
        """Write the promotion gate's verdict on it; an earlier verdict stays."""
        with suppress(FileExistsError):
            self.folder.write_new(VERDICT, verdict.model_dump_json().encode())

    def verdict(self) -> Verdict | None:
        """The promotion gate's verdict on it; None if there is none, as for a pruned version.

        Raises InputError if the file is damaged.
        """
        folder = self.folder
        try:
            return Verdict.model_validate_json(folder.read(VERDICT))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise InputError(
                f"{folder}/{VERDICT} is damaged; delete it: it is only for people"
            ) from error

    def _what_there_is(self) -> str:
        ids = self.database.ids()
        if ids:
            return f"the newest is {ids[-1]}"
        there = listed(databases(self.database.store).names())
        return f"it has none; databases there: {there}"


def verify(folder: Folder, files: Sequence[FileRecord]) -> list[str]:
    """Read the files that a manifest names below a folder; returns what is wrong with them."""
    faults = []
    for file in files:
        try:
            found = folder.record(file.path)
        except FileNotFoundError:
            faults.append(f"{file.path} is missing")
            continue
        if found.bytes != file.bytes:
            faults.append(f"{file.path} has {found.bytes} bytes, its manifest says {file.bytes}")
        elif found.sha256 != file.sha256:
            faults.append(f"{file.path} has another SHA-256 than its manifest says")
    return faults
