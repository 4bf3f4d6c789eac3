"""Steps: each try writes into a folder of its own, and the one whose marker stands first counts.

    {work}/{step}/{token}/..    what a try wrote; files of the version below `version/`
          /{step}.json          the marker: which try counts, its rows, seconds and files

A marker is written only where there is none, so of two processes at the same step one counts and
the other's files are dropped: nobody ever reads a mixture, whatever either of them computed.
Markers are the whole state of a build or a classification.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from prefect import task

from storage.checked import FileRecord
from storage.store import Folder
from tasks.retrying import RETRIES

STEPS = 4
"""The format of what steps leave and later ones read: what was begun in another is begun anew."""

_HELD = 50_000
"""Markers that are remembered."""

VERSION = "version"
"""Below a try's folder: files that go to the version, or the output, under the same names."""


@dataclass(frozen=True)
class Attempt:
    """One try at a step."""

    work: Folder
    step: str
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    begun: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Folder:
        """Where it writes what later steps read."""
        return self.work / f"{self.step}/{self.token}"

    @property
    def version(self) -> Folder:
        """Where it writes what goes to the version."""
        return self.folder / VERSION


def marker(work: Folder, step: str) -> dict[str, Any] | None:
    """What a step left when it was done; None where it is not."""
    try:
        return said(work, step)
    except FileNotFoundError:
        return None


def said(work: Folder, step: str) -> dict[str, Any]:
    """What a step that is done left.  Raises FileNotFoundError where it is not done."""
    return json.loads(work.read(f"{step}.json"))


@lru_cache(maxsize=_HELD)
def account_of(work: str, step: str) -> Mapping[str, Any]:
    """What a step of a build that is done left, read once.

    Only of a build: its work folder has the name of its version, and none is ever used again.
    Raises FileNotFoundError where the step is not done.
    """
    return said(Folder(work), step)


def output(work: Folder, step: str) -> Folder:
    """What a step of a build wrote.  Raises FileNotFoundError where it is not done."""
    return work / written(step, account_of(work.uri, step))


def written(step: str, account: Mapping[str, Any]) -> str:
    """Where in the work folder the try wrote that a step's marker names."""
    return f"{step}/{account['attempt']}"


def done(attempt: Attempt, files: Sequence[FileRecord], rows: int, **more: Any) -> dict[str, Any]:
    """Say that a step is done; returns what stands, which may be what another try said before.

    files: those of the version.  rows: of the step.  more: what later steps ask.
    """
    account = {
        "attempt": attempt.token,
        "rows": rows,
        "seconds": time.monotonic() - attempt.begun,
        "files": [asdict(f) for f in files],
        **more,
    }
    try:
        attempt.work.write_new(f"{attempt.step}.json", json.dumps(account).encode())
    except FileExistsError:
        attempt.folder.remove()
        return said(attempt.work, attempt.step)
    return account


def put_in_place(
    work: Folder, accounts: Mapping[str, Mapping[str, Any]], target: Folder
) -> list[FileRecord]:
    """Copy the version's files of steps that are done to the version; returns them.

    accounts: what the steps left.  Doing it twice does no harm.
    """
    records = []
    for step, account in accounts.items():
        files = [FileRecord(**record) for record in account["files"]]
        source = work / written(step, account) / VERSION
        if files:
            source.copy([f.path for f in files], target)
        records += files
    return sorted(records, key=lambda f: f.path)


def forget(work: Folder) -> None:
    """Remove all that steps left."""
    work.remove()
    # Of two processes that remove the same, each may stop at what the other has removed.
    while work.names():
        work.remove()


def numbered(step: str, number: int) -> str:
    """The name of one of several steps of a kind."""
    return f"{step}-{number:05d}"


def numbers_done(work: Folder, step: str, numbers: int) -> list[int]:
    """Which of the numbered steps are done."""
    there = set(work.names())
    return [n for n in range(numbers) if f"{numbered(step, n)}.json" in there]


@task(**RETRIES)
def look_what_is_done(work: str, step: str, numbers: int) -> list[int]:
    """Which of the numbered steps in a work folder are done, for a flow."""
    return numbers_done(Folder(work), step, numbers)


def rows_done(work: Folder, step: str, numbers: int) -> int:
    """Rows of the numbered steps that are done."""
    done = numbers_done(work, step, numbers)
    return sum(int(said(work, numbered(step, n))["rows"]) for n in done)
