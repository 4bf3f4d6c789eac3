"""Steps that walk the model, once a shard: their stages go on beside those of other shards.

    begin  in a thread: reads and tokenizes, without a model; one shard ahead of the walk
    walk   in the flow's own thread, with the model
    write  in another thread: files and marker; one shard behind the walk

One shard at most is in each stage, so that no more than three are in memory.  The walk and the
writing are tasks of their own: a shard that could not be written is written again, not walked.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.about import about_shard
from tasks.ahead import Ahead
from tasks.background import Background
from tasks.progress import taken_back_on_error
from tasks.retrying import RETRIES
from tasks.steps import AnyStep, Attempt, Left, Marker, StepRecord, W

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


class _Unwritten:
    """A shard on its way from the walk to the writing.

    No dataclass: Prefect looks into those that tasks are given, and this one holds a whole shard.
    """

    def __init__(self, work: Any, walked: StepRecord | Walked[Any]) -> None:
        self.work = work
        self.walked = walked
        """The step's record if it was done before."""


class ShardStep(AnyStep[W, Left]):
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
        self._begin_function, self._walk_function, self._body = begin, walk, body
        self._ahead, self._writer = Ahead(self._begin), Background("raee-write")
        self._unwritten: dict[tuple[str, int], _Unwritten] = {}
        self._writing: Future[Left] | None = None
        # A walk that Prefect remembers from an earlier try has left nothing here.
        options = {**RETRIES, "cache_policy": NO_CACHE, "persist_result": False}

        @task(name=f"{body.__name__}: walk", description=walk.__doc__, **options)
        def walk_task(address: str, number: int, then: int | None) -> None:
            self._unwritten[address, number] = self._do_walk(address, number, then)

        @task(name=f"{body.__name__}: write", description=body.__doc__, **options)
        def write_task(number: int, unwritten: _Unwritten) -> Left:
            return self._do_write(number, unwritten)

        self.walk_task, self.write_task = walk_task, write_task

    def run(self, address: str, number: int | None = None) -> Left:
        """As `AnyStep.run`: the stages of one shard one after the other."""
        assert number is not None, "there is one a shard"
        return self._do_write(number, self._do_walk(address, number, None))

    def walk(self, address: str, number: int, then: int | None) -> None:
        """Walk a shard unless its step is done, as a task of the flow run that is under way.

        then: the shard with which is begun meanwhile.  Raises what `begin` and the walk raise.
        """
        self.walk_task(address, number, then)

    def write(self, address: str, number: int) -> Future[Left]:
        """Begin to write a shard that is walked, as such a task, after those asked for before.

        The future has the step's record, or raises what writing raises.
        """
        unwritten = self._unwritten.pop((address, number))
        self._writing = self._writer.do(lambda: self.write_task(number, unwritten))
        return self._writing

    def drop(self, address: str) -> None:
        """Hold nothing of the shards of a work, of which nobody will ask for more."""
        self._ahead.drop()
        for key in [key for key in self._unwritten if key[0] == address]:
            del self._unwritten[key]
        if self._writing is not None and not self._writing.done():
            self._writer.leave()
        self._writing = None

    def _begin(self, work: W, number: int) -> Any:
        with about_shard(number):
            return self._begin_function(work, number)

    def _do_walk(self, address: str, number: int, then: int | None) -> _Unwritten:
        work = self.opens(address)
        before = work.found(self.marker, number)
        asked = time.monotonic()
        begun = self._ahead.take(work, number) if before is None else None
        if then is not None:
            self._ahead.begin(work, then)
        if before is not None:
            return _Unwritten(work, before)
        ready = time.monotonic()
        with taken_back_on_error():
            found = self._walk_function(work, begun)
        walked = Walked(found, waited=ready - asked, seconds=time.monotonic() - ready)
        return _Unwritten(work, walked)

    def _do_write(self, number: int, unwritten: _Unwritten) -> Left:
        walked = unwritten.walked
        if not isinstance(walked, Walked):
            assert isinstance(walked, self.marker.leaves)
            return walked
        # Its seconds leave out those in which it waited for the writing of another.
        begun = time.monotonic() - walked.waited - walked.seconds
        attempt = Attempt(unwritten.work.folder, self.marker.at(number), begun=begun)
        return attempt.keep(self._body(unwritten.work, attempt, number, walked))


def shard_step(
    marker: Marker[Left],
    *,
    opens: Callable[[str], W],
    stage: str,
    after: Sequence[Marker[Any]] = (),
    begin: Callable[[W, int], Any],
    walk: Callable[[W, Any], Any],
) -> Callable[[Callable[[W, Attempt, int, Walked[Any]], Left]], ShardStep[W, Left]]:
    """A decorator that declares a step that walks the model, by what `AnyStep` has and its stages.

    begin: what can be done without a model, by the work and the shard's number.  walk: by the work
    and what `begin` returned.  The function writes: it is given the work, its attempt, the number
    and what was walked, and returns the step's record.
    """
    return lambda body: ShardStep(body, marker, opens, stage, after, begin, walk)
