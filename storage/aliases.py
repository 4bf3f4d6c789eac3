"""Aliases: names that point at versions, each with its whole history.

An alias is a folder of numbered records.  The highest number counts; the next is written only if it
is not there, so of racing writers one wins each number.
"""

import getpass
import json
import os
import random
import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from raee.errors import InputError, listed
from storage.conditional import require_conditional_writes
from storage.store import Folder
from storage.versions import (
    check_name,
    database_folder,
    databases,
    has_version,
    read_manifest,
    version_ids,
)

DEFAULT_ALIAS = "production"

PINNED = "pinned"
"""What new versions are held against night after night: the first version, or the last that a
person has pointed `production` at."""

_TRIES = 20
"""Times that a change is worked out anew where another one came first."""

_LONGEST_WAIT = 2.0
"""Seconds between two of them, at most."""


class AliasRecord(BaseModel):
    """One change of an alias."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    previous: str | None
    """The version that it pointed at before."""
    action: Literal["promote", "rollback"]
    updated_at: datetime
    by: str
    """User, machine and process: no two writers write the same record."""


def history(store: str, name: str, alias: str) -> list[AliasRecord]:
    """All changes of an alias, oldest first; none where it was never set."""
    folder = _folder(store, name, alias)
    return _records(folder, _numbers(folder))


def current(store: str, name: str, alias: str) -> str | None:
    """The version that an alias points at; None where it was never set."""
    folder = _folder(store, name, alias)
    numbers = _numbers(folder)
    return _record(folder, numbers[-1]).version if numbers else None


def aliases(store: str, name: str) -> dict[str, str]:
    """A database's aliases and the versions that they point at."""
    names = (database_folder(store, name) / "aliases").names()
    found = {alias: current(store, name, alias) for alias in names}
    return {alias: version for alias, version in found.items() if version is not None}


def promote(
    store: str, name: str, version: str, alias: str = DEFAULT_ALIAS, if_current: str | None = None
) -> AliasRecord:
    """Point an alias at a version.

    if_current: the version that it must point at now, or "" where it must not be set yet; by
    default it may point at any.  Raises InputError where the version does not exist, or the alias
    points elsewhere.
    """
    check_name("alias", alias)
    read_manifest(store, name, version)
    return _change(store, name, alias, "promote", lambda numbers: version, if_current)


def rollback(
    store: str, name: str, alias: str = DEFAULT_ALIAS, if_current: str | None = None
) -> AliasRecord:
    """Point an alias at the version it pointed at before; appends, never deletes.

    Rolling back twice goes two versions back.  if_current: as in `promote`.  Raises InputError
    where nothing stood before, or the alias points elsewhere.
    """
    folder = _folder(store, name, alias)

    def before(numbers: list[int]) -> str:
        stack = _stack(_records(folder, numbers))
        if len(stack) < 2:
            raise InputError(
                f"alias {alias!r} of database {name} has no version to roll back to"
                + ("" if stack else "; it was never set")
            )
        read_manifest(store, name, stack[-2])
        return stack[-2]

    return _change(store, name, alias, "rollback", before, if_current)


def resolve_version(store: str, name: str, version: str | None) -> str:
    """The id of a version given by id or alias.

    None: what the alias `production` points at, or the newest version where there is no such
    alias.  Raises InputError where there is none.
    """
    if version is None:
        promoted = current(store, name, DEFAULT_ALIAS)
        if promoted is not None:
            return promoted
        ids = version_ids(store, name)
        if not ids:
            raise InputError(
                f"there is no version of database {name} in {store} (databases there: "
                f"{listed(databases(store).names())}); make one with `raee build`"
            )
        return ids[-1]
    if has_version(store, name, version):
        return version
    known = aliases(store, name)
    if version not in known:
        raise InputError(
            f"database {name} in {store} has no version or alias {version!r} (aliases: "
            f"{listed(known)}); `raee versions {name}` lists the versions"
        )
    return known[version]


def _change(
    store: str,
    name: str,
    alias: str,
    action: Literal["promote", "rollback"],
    choose: Callable[[list[int]], str],
    if_current: str | None,
) -> AliasRecord:
    """Append a change to an alias's history.

    choose: the version to point at, given the numbers of all records; asked anew where another
    change came first.
    """
    folder = _folder(store, name, alias)
    if if_current:
        check_name("version", if_current)
    require_conditional_writes(store)
    for attempt in range(_TRIES):
        numbers = _numbers(folder)
        points_at = _record(folder, numbers[-1]).version if numbers else None
        if if_current is not None and if_current != (points_at or ""):
            raise InputError(
                f"alias {alias!r} of database {name} {_said(points_at)}, not "
                f"{_wanted(if_current)}; somebody else has changed it: look at it and decide anew"
            )
        record = AliasRecord(
            version=choose(numbers),
            previous=points_at,
            action=action,
            updated_at=datetime.now(UTC),
            by=_writer(),
        )
        data = json.dumps(record.model_dump(mode="json"), indent=1).encode()
        try:
            folder.write_new(_file(numbers[-1] + 1 if numbers else 1), data)
        except FileExistsError:
            time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.02 * 2**attempt)))
            continue
        if not has_version(store, name, record.version):
            raise InputError(
                f"version {record.version} of database {name} was deleted just now, and alias "
                f"{alias!r} points at it; point it at another one"
            )
        return record
    raise InputError(
        f"alias {alias!r} of database {name} was changed by somebody else meanwhile, {_TRIES} "
        "times in a row; look at it and try again"
    )


def _stack(changes: list[AliasRecord]) -> list[str]:
    """The versions that rolling back goes through, the present one last."""
    stack: list[str] = []
    for change in changes:
        if change.action == "rollback":
            del stack[-1:]
        elif not stack or stack[-1] != change.version:
            stack.append(change.version)
    return stack


def _said(version: str | None) -> str:
    return f"points at {version}" if version is not None else "is not set"


def _wanted(version: str) -> str:
    return f"at {version}" if version else "unset"


def _writer() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def _numbers(folder: Folder) -> list[int]:
    return [int(n[:8]) for n in folder.names() if re.fullmatch(r"[0-9]{8}\.json", n)]


def _records(folder: Folder, numbers: list[int]) -> list[AliasRecord]:
    return [_record(folder, number) for number in numbers]


def _record(folder: Folder, number: int) -> AliasRecord:
    try:
        return AliasRecord.model_validate_json(folder.read(_file(number)))
    except ValidationError as error:
        reason = " ".join(error.errors()[0]["msg"].split())
        raise InputError(f"{folder}/{_file(number)} is damaged: {reason}") from error


def _file(number: int) -> str:
    return f"{number:08d}.json"


def _folder(store: str, name: str, alias: str) -> Folder:
    check_name("alias", alias)
    return database_folder(store, name) / f"aliases/{alias}"
