"""Steps that walk the model, once a shard: their stages go on beside those of other shards.

    begin  in a thread: reads and tokenizes, without a model; one shard ahead of the walk
    walk   in the flow's own thread, with the model
    write  in the thread of the flow's task runner: files and marker; one shard behind the walk

One shard at most is in each stage, so that no more than three are in memory.  The walk and the
writing are tasks of their own: a shard that could not be written is written again, not walked.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prefect import task

from tasks.ahead import Ahead
from tasks.progress import taken_back_on_error
from tasks.retrying import RETRIES
from tasks.steps import Attempt, Declared, Left, Marker, W

Found = TypeVar("Found")


@dataclass(frozen=True)
class Walked(Generic[Found]):
    """A shard that is walked, but not written."""

    found: Found
    """What the walk returned."""
    waited: float
    """Seconds that the walk waited for what was begun, or that this took."""
    seconds: float
    """Seconds of the walk itself."""


class ShardStep(Declared[W, Left]):
    """A step as it is declared by `shard_step`."""

    def __init__(
        self,
        body: Callable[[W, Attempt, int, Walked[Any]], Left],
        marker: Marker[Left],
        opens: Callable[[str], W],
        stage: str,
        after: Sequence[Marker[Any]],
        begin: Callable[[W, int], Any],
        walk: Callable[[W, Any], Any],
    ) -> None:
        super().__init__(marker, opens, stage, after, per_shard=True)
        self._write, self._walk, self._ahead = body, walk, Ahead(begin)
        self._unwritten: dict[tuple[str, int], tuple[W, Left | Walked[Any]]] = {}

        # What is walked does not pass through Prefect, which would look into it and keep it.
        @task(name=body.__name__, description=body.__doc__, **RETRIES)
        def walked(address: str, number: int, then: int | None) -> None:
            self._walk_shard(address, number, then)

        @task(name=f"{body.__name__}: write", description=body.__doc__, **RETRIES)
        def written(address: str, number: int) -> Left:
            return self._write_shard(address, number)

        self.walk, self.write = walked, written

    def run(self, address: str, number: int | None = None) -> Left:
        """As `Declared.run`: the stages of one shard one after the other."""
        assert number is not None, "there is one a shard"
        self._walk_shard(address, number, None)
        return self._write_shard(address, number)

    def drop(self, address: str) -> None:
        """Hold nothing of the shards of a work, of which nobody will ask for more."""
        self._ahead.drop()
        for key in [key for key in self._unwritten if key[0] == address]:
            self._unwritten.pop(key, None)  # its writing may end meanwhile

    def _walk_shard(self, address: str, number: int, then: int | None) -> None:
        """Walk a shard unless its step is done.  then: the shard with which is begun meanwhile."""
        work = self.opens(address)
        before = work.found(self.marker, number)
        if before is not None:
            self._unwritten[address, number] = work, before
            return
        asked = time.monotonic()
        begun = self._ahead.take(work, number)
        if then is not None:
            self._ahead.begin(work, then)
        ready = time.monotonic()
        with taken_back_on_error():
            found = self._walk(work, begun)
        walked = Walked(found, waited=ready - asked, seconds=time.monotonic() - ready)
        self._unwritten[address, number] = work, walked

    def _write_shard(self, address: str, number: int) -> Left:
        work, walked = self._unwritten[address, number]
        if isinstance(walked, Walked):
            # Its seconds leave out those in which it waited for the writing of another.
            begun = time.monotonic() - walked.waited - walked.seconds
            attempt = Attempt(work.folder, self.marker.at(number), begun=begun)
            left = attempt.keep(self._write(work, attempt, number, walked))
        else:
            left = walked
        self._unwritten.pop((address, number), None)  # or it was dropped meanwhile
        return left


def shard_step(
    marker: Marker[Left],
    *,
    opens: Callable[[str], W],
    stage: str,
    after: Sequence[Marker[Any]] = (),
    begin: Callable[[W, int], Any],
    walk: Callable[[W, Any], Any],
) -> Callable[[Callable[[W, Attempt, int, Walked[Any]], Left]], ShardStep[W, Left]]:
    """A decorator that declares a step that walks the model, by what `Declared` has and its stages.

    begin: what can be done without a model, by the work and the shard's number.  walk: by the work
    and what `begin` returned.  The function writes: it is given the work, its attempt, the number
    and what was walked, and returns the step's record.
    """
    return lambda body: ShardStep(body, marker, opens, stage, after, begin, walk)
