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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from raee.errors import InputError
from storage.store import Folder

Action = Literal["promote", "rollback"]

_TRIES = 20
"""How often a change is worked out anew if another one came first."""

_LONGEST_WAIT = 2.0
"""Seconds between two such tries, at most."""


class AliasRecord(BaseModel):
    """One change of an alias."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    previous: str | None
    """The version that the alias pointed at before; None if it was not set."""
    action: Action
    updated_at: datetime
    by: str
    """The writer's user, machine and process: no two writers write the same record."""


def read_history(alias: Folder) -> list[AliasRecord]:
    """All changes of the alias in a folder, oldest first; none if it was never set.

    Raises InputError if a record is damaged.
    """
    return [_record(alias, number) for number in _numbers(alias)]


def read_current(alias: Folder) -> str | None:
    """The version that the alias in a folder points at; None if it was never set.

    Raises InputError if its record is damaged.
    """
    numbers = _numbers(alias)
    return _record(alias, numbers[-1]).version if numbers else None


def append(
    alias: Folder,
    about: str,
    action: Action,
    choose: Callable[[list[AliasRecord]], str],
    if_current: str | None,
) -> AliasRecord:
    """Append a change to the history of the alias in a folder.

    about: the alias, for messages.  choose: the version to point at, given all changes so far; it
    is asked anew if another change came first.  if_current: the version that the alias must point
    at now, or "" if it must not be set yet.  Raises InputError if the alias points elsewhere, a
    record is damaged, or others change it all the time.
    """
    for attempt in range(_TRIES):
        numbers = _numbers(alias)
        changes = [_record(alias, number) for number in numbers]
        points_at = changes[-1].version if changes else None
        if if_current is not None and if_current != (points_at or ""):
            wanted = f"at {if_current}" if if_current else "unset"
            found = "is not set" if points_at is None else f"points at {points_at}"
            raise InputError(
                f"{about} {found}, not {wanted}; somebody else has changed it: look at it and "
                "decide anew"
            )
        record = AliasRecord(
            version=choose(changes),
            previous=points_at,
            action=action,
            updated_at=datetime.now(UTC),
            by=_writer(),
        )
        data = json.dumps(record.model_dump(mode="json"), indent=1).encode()
        try:
            alias.write_new(_file(numbers[-1] + 1 if numbers else 1), data)
        except FileExistsError:
            time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.02 * 2**attempt)))
            continue
        return record
    raise InputError(
        f"{about} was changed by somebody else meanwhile, {_TRIES} times in a row; look at it and "
        "try again"
    )


def rolled_through(changes: Sequence[AliasRecord]) -> list[str]:
    """The ids of the versions that rolling back goes through, the present one last."""
    stack: list[str] = []
    for change in changes:
        if change.action == "rollback":
            del stack[-1:]
        elif not stack or stack[-1] != change.version:
            stack.append(change.version)
    return stack


def _writer() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def _numbers(alias: Folder) -> list[int]:
    return [int(n[:8]) for n in alias.names() if re.fullmatch(r"[0-9]{8}\.json", n)]


def _record(alias: Folder, number: int) -> AliasRecord:
    try:
        return AliasRecord.model_validate_json(alias.read(_file(number)))
    except ValidationError as error:
        reason = " ".join(error.errors()[0]["msg"].split())
        raise InputError(f"{alias}/{_file(number)} is damaged: {reason}") from error


def _file(number: int) -> str:
    return f"{number:08d}.json"
