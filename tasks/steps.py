"""Steps of a build or a classification: each is declared once, and done once.

    {work}/{step}/{token}/..    what a try wrote; files of the version below `version/`
          /{step}.json          the marker: which try counts, its rows, seconds and files

The body of a step is its work.  The declaration does all else: a step whose marker is there is not
done again, each try has a folder and a clock of its own, and Prefect tries again if a second try
may mend the error.  `tasks.shard_steps` has the steps that walk the model.

A marker is written only if there is none, so of two processes at the same step one counts and the
other's files are dropped: nobody ever reads a mixture, whatever either of them computed.  Markers
are the whole state of a build or a classification.
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from prefect import task
from pydantic import BaseModel, ConfigDict

from storage.checked import FileRecord
from storage.store import Folder
from storage.version_files import VersionFiles
from tasks.progress import taken_back_on_error
from tasks.retrying import RETRIES

STEPS = 5
"""The format of what steps leave for later ones: work that was begun in another is begun anew."""

_VERSION = "version"
"""Below a try's folder: files that go to the version, or the output, under the same names."""


class StepRecord(BaseModel):
    """The content of a step's marker.  A step whose marker has more has a subclass."""

    model_config = ConfigDict(frozen=True)

    rows: int
    files: list[FileRecord] = []
    """The files of the version, or of the output, that the step wrote."""
    attempt: str = ""
    """The token of the try that counts."""
    seconds: float = 0.0


Left = TypeVar("Left", bound=StepRecord)


@dataclass(frozen=True)
class Marker(Generic[Left]):
    """The name of a step's marker, and the type of the record in it."""

    name: str
    leaves: type[Left]

    def at(self, number: int | None) -> str:
        """The name of the step; number: of the shard, if it is one a shard."""
        return self.name if number is None else f"{self.name}-{number:05d}"


@dataclass(frozen=True)
class Attempt:
    """One try at a step."""

    work: Folder
    step: str
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    begun: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Folder:
        """Where it writes files that later steps read."""
        return self.work / f"{self.step}/{self.token}"

    @property
    def version(self) -> Folder:
        """Where it writes files that go to the version, or the output."""
        return self.folder / _VERSION

    def keep(self, left: Left) -> Left:
        """Write the marker; returns the record that counts.

        If another try's marker is there already, that one counts, and this try's files go.
        """
        record = left.model_copy(
            update={"attempt": self.token, "seconds": time.monotonic() - self.begun}
        )
        try:
            self.work.write_new(f"{self.step}.json", record.model_dump_json().encode())
        except FileExistsError:
            self.folder.remove()
            return type(left).model_validate_json(self.work.read(f"{self.step}.json"))
        return record


class Work:
    """The folder that steps work in, with their markers.  shards: how many there are."""

    def __init__(self, folder: Folder, shards: int) -> None:
        self.folder = folder
        self.numbers = range(shards)

    def record(self, marker: Marker[Left], number: int | None = None) -> Left:
        """The record of a step.  Raises FileNotFoundError if it is not done."""
        return marker.leaves.model_validate_json(self.folder.read(f"{marker.at(number)}.json"))

    def found(self, marker: Marker[Left], number: int | None = None) -> Left | None:
        """The record of a step; None if it is not done."""
        try:
            return self.record(marker, number)
        except FileNotFoundError:
            return None

    def output(self, marker: Marker[Any], number: int | None = None) -> Folder:
        """Where a step wrote files for later ones.  Raises FileNotFoundError if it is not done."""
        return self.written(marker, number, self.record(marker, number))

    def written(self, marker: Marker[Left], number: int | None, left: Left) -> Folder:
        """Where a step wrote files for later ones, by its record."""
        return self.folder / f"{marker.at(number)}/{left.attempt}"

    def files(self, marker: Marker[Any], *, per_shard: bool = False) -> VersionFiles:
        """The files of the version that a step left; none if the work does not need the step.

        Raises FileNotFoundError if a shard's step is not done.
        """
        placed: dict[str, tuple[Folder, FileRecord]] = {}
        for number, left in self.records(marker, per_shard=per_shard):
            folder = self.written(marker, number, left) / _VERSION
            placed |= {file.path: (folder, file) for file in left.files}
        return VersionFiles(placed)

    def records(
        self, marker: Marker[Left], *, per_shard: bool = False
    ) -> list[tuple[int | None, Left]]:
        """The records of a step, each with the number of its shard; none as for `files`.

        Raises FileNotFoundError if a shard's step is not done.
        """
        if per_shard:
            return [(number, self.record(marker, number)) for number in self.numbers]
        left = self.found(marker)
        return [] if left is None else [(None, left)]

    def done(self, marker: Marker[Any]) -> list[int]:
        """The numbers of the shards for which a step is done."""
        return numbers_done(self.folder, marker.name, len(self.numbers))

    def rows_done(self, marker: Marker[Any]) -> int:
        """How many rows the shards have for which a step is done."""
        return sum(self.record(marker, number).rows for number in self.done(marker))


W = TypeVar("W", bound=Work)


class AnyStep(ABC, Generic[W, Left]):
    """What is declared of a step, and what it left.

    marker: its marker.  opens: opens the work at an address.  stage: the name under which the
    step's seconds are counted and its progress is shown.  after: the markers of the steps that it
    reads.  per_shard: whether there is one a shard.
    """

    def __init__(
        self,
        marker: Marker[Left],
        opens: Callable[[str], W],
        stage: str,
        after: Sequence[Marker[Any]],
        per_shard: bool,
    ) -> None:
        self.marker, self.opens, self.stage = marker, opens, stage
        self.after, self.per_shard = tuple(after), per_shard

    @abstractmethod
    def run(self, address: str, number: int | None = None) -> Left | None:
        """Do the step unless it is done; returns its record, or None if the work does not need it.

        number: of the shard, if it is one a shard.  Raises what the step's own functions raise.
        """

    def seconds(self, work: W) -> float:
        """The seconds that the step took, all shards together; 0 if the work did not need it."""
        records = work.records(self.marker, per_shard=self.per_shard)
        return sum(left.seconds for _, left in records)

    def files(self, work: W) -> VersionFiles:
        """The files of the version that the step left.  Raises as `Work.files` does."""
        return work.files(self.marker, per_shard=self.per_shard)


class Step(AnyStep[W, Left]):
    """A step with one body; called with the address of its work, it runs as a Prefect task."""

    def __init__(
        self,
        body: Callable[..., Left | None],
        marker: Marker[Left],
        opens: Callable[[str], W],
        stage: str,
        after: Sequence[Marker[Any]],
        per_shard: bool,
    ) -> None:
        super().__init__(marker, opens, stage, after, per_shard)
        self._body = body

        @task(name=body.__name__, description=body.__doc__, **RETRIES)
        def run(address: str, number: int | None) -> Left | None:
            return self.run(address, number)

        self.task = run

    def __call__(self, address: str, number: int | None = None) -> Left | None:
        """Do the step as a task of the flow run that is under way; see `run`."""
        return self.task(address, number)

    def run(self, address: str, number: int | None = None) -> Left | None:
        """As `AnyStep.run`."""
        work = self.opens(address)
        before = work.found(self.marker, number)
        if before is not None:
            return before
        attempt = Attempt(work.folder, self.marker.at(number))
        with taken_back_on_error():
            left = self._body(work, attempt, *(() if number is None else (number,)))
            return None if left is None else attempt.keep(left)


def step(
    marker: Marker[Left],
    *,
    opens: Callable[[str], W],
    stage: str,
    after: Sequence[Marker[Any]] = (),
    per_shard: bool = False,
) -> Callable[[Callable[..., Left | None]], Step[W, Left]]:
    """A decorator that declares a step, by what `AnyStep` has; the function is the step's body.

    The body is given the work, its attempt and, if there is one step a shard, the shard's number.
    It returns the step's record, or None if the work does not need the step.
    """
    return lambda body: Step(body, marker, opens, stage, after, per_shard)


S = TypeVar("S", bound=AnyStep[Any, Any])


def in_order(steps: Sequence[S]) -> tuple[S, ...]:
    """The steps, each after those that it reads, and otherwise in the order given.

    Raises ValueError if one reads a step that is none of them, or reads itself by way of others.
    """
    waiting, ordered = list(steps), list[S]()
    while waiting:
        before = {each.marker.name for each in ordered}
        ready = [s for s in waiting if before.issuperset(marker.name for marker in s.after)]
        if not ready:
            names = [each.marker.name for each in waiting]
            raise ValueError(f"no order of the steps has what these read before them: {names}")
        waiting.remove(ready[0])
        ordered.append(ready[0])
    return tuple(ordered)


def numbers_done(folder: Folder, name: str, shards: int) -> list[int]:
    """The numbers of the shards for which a step is done, by its markers in a folder.

    name: the marker's.  shards: how many there are.
    """
    there = set(folder.names())
    return [n for n in range(shards) if f"{name}-{n:05d}.json" in there]


@task(**RETRIES)
def look_what_is_done(folder: str, name: str, shards: int) -> list[int]:
    """The same as `numbers_done`, as a task of a flow."""
    return numbers_done(Folder(folder), name, shards)


def forget(folder: Folder) -> None:
    """Remove the folder with all that steps left."""
    folder.remove()
    # If two processes remove the same, each may stop at a file that the other has removed.
    while folder.names():
        folder.remove()
