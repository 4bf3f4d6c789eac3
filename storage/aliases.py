"""Aliases: names that point at versions, each with its whole history.

An alias is a folder of numbered records.  The highest number counts; the next is written only if it
is not there, so of racing writers one wins each number.
"""

import getpass
import json
import socket
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from raee.errors import InputError
from storage.store import Folder
from storage.versions import (
    MANIFEST,
    check_name,
    database_folder,
    databases,
    read_manifest,
    version_folder,
    version_ids,
)

DEFAULT_ALIAS = "production"


class AliasRecord(BaseModel):
    """One change of an alias."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    previous: str | None
    """The version that it pointed at before."""
    action: Literal["promote", "rollback"]
    updated_at: datetime
    by: str
    """User and machine."""


def history(store: str, name: str, alias: str) -> list[AliasRecord]:
    """All changes of an alias, oldest first; none where it was never set."""
    folder = _folder(store, name, alias)
    try:
        return [AliasRecord.model_validate_json(folder.read(n)) for n in folder.names()]
    except ValidationError as error:
        raise InputError(f"{folder} is damaged: {error.errors()[0]['msg']}") from error


def aliases(store: str, name: str) -> dict[str, str]:
    """A database's aliases and the versions that they point at."""
    names = (database_folder(store, name) / "aliases").names()
    records = {alias: history(store, name, alias) for alias in names}
    return {alias: changes[-1].version for alias, changes in records.items() if changes}


def promote(store: str, name: str, version: str, alias: str = DEFAULT_ALIAS) -> AliasRecord:
    """Point an alias at a version.  Raises InputError where the version does not exist."""
    read_manifest(store, name, version)
    changes = history(store, name, alias)
    return _append(store, name, alias, changes, version, "promote")


def rollback(store: str, name: str, alias: str = DEFAULT_ALIAS) -> AliasRecord:
    """Point an alias at the version it pointed at before; appends, never deletes.

    Rolling back twice goes two versions back.  Raises InputError where nothing stood before.
    """
    changes = history(store, name, alias)
    stack: list[str] = []
    for change in changes:
        if change.action == "rollback":
            stack.pop()
        elif not stack or stack[-1] != change.version:
            stack.append(change.version)
    if len(stack) < 2:
        raise InputError(
            f"alias {alias!r} of database {name} has no version to roll back to"
            + ("" if stack else "; it was never set")
        )
    read_manifest(store, name, stack[-2])
    return _append(store, name, alias, changes, stack[-2], "rollback")


def resolve_version(store: str, name: str, version: str | None) -> str:
    """The id of a version given by id or alias.

    None: what the alias `production` points at, or the newest version where there is no such
    alias.  Raises InputError where there is none.
    """
    if version is None:
        changes = history(store, name, DEFAULT_ALIAS)
        if changes:
            return changes[-1].version
        ids = version_ids(store, name)
        if not ids:
            there = ", ".join(databases(store).names()) or "none"
            raise InputError(
                f"there is no version of database {name} in {store} (databases there: {there}); "
                "make one with `raee build`"
            )
        return ids[-1]
    if version_folder(store, name, version).exists(MANIFEST):
        return version
    known = aliases(store, name)
    if version not in known:
        there = ", ".join(known) or "none"
        raise InputError(
            f"database {name} in {store} has no version or alias {version!r} (aliases: {there}); "
            f"`raee versions {name}` lists the versions"
        )
    return known[version]


def _append(
    store: str,
    name: str,
    alias: str,
    changes: list[AliasRecord],
    version: str,
    action: Literal["promote", "rollback"],
) -> AliasRecord:
    record = AliasRecord(
        version=version,
        previous=changes[-1].version if changes else None,
        action=action,
        updated_at=datetime.now(UTC),
        by=f"{getpass.getuser()}@{socket.gethostname()}",
    )
    data = json.dumps(record.model_dump(mode="json"), indent=1).encode()
    try:
        _folder(store, name, alias).write_new(f"{len(changes) + 1:08d}.json", data)
    except FileExistsError:
        raise InputError(
            f"alias {alias!r} of database {name} was changed by somebody else meanwhile; "
            "look at it and try again"
        ) from None
    return record


def _folder(store: str, name: str, alias: str) -> Folder:
    check_name("alias", alias)
    return database_folder(store, name) / f"aliases/{alias}"
