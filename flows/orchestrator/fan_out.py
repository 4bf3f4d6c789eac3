"""Shards spread over processes: chunks of them are flow runs on a pool, or calls in this process.

A chunk is minutes of work.  Markers in the store record which shards are done: a chunk that runs
twice does no harm, and a dead one loses only the shards whose markers are missing.  So this module
keeps no more than a list of which run was given which shards; the store knows the rest.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from statistics import median
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from flows.orchestrator.chunks import Chunk, Shards, Workers, chunk_size, next_chunk
from storage.faults import stays
from tasks.models import SHARD_SECONDS
from tasks.progress import advance

logger = logging.getLogger("raee")

_POLL_SECONDS = 2.0
_PAGE = 100
"""How many runs are asked for at once."""

_LONELY_SECONDS = 60.0
"""How long runs may wait for a worker before a warning."""

_FAREWELL_SECONDS = 30.0
"""How long runs whose shards are done may take to end."""

_PROGRESS_SECONDS = 10.0

_WAITING = 8
"""How many runs may wait for a worker, or as many as workers have taken if that is more: each look
of each worker for work is answered with all that wait.  It limits all runs until a shard's time is
known."""


def spread(shards: Shards, workers: Workers | None) -> None:
    """Have all shards done that are not done yet.

    workers: None if this process does them.  Raises what the flow and the check raise; with workers
    RuntimeError, with the last run's message, if `workers.tries` runs did not do a shard.
    """
    progress = _Progress(shards)
    if workers is None:
        left = set(range(shards.total)) - shards.look_what_is_done()
        seconds = SHARD_SECONDS
        while left:
            chunk = next_chunk(left, chunk_size(Workers(), seconds))
            begun = time.monotonic()
            named = shards.flow.with_options(flow_run_name=partial(shards.name_of, chunk))
            named(**shards.parameters(chunk))
            # A run costs about a second: shards whose rows are reused take a fraction of one.
            seconds = (time.monotonic() - begun) / chunk.count
            left -= set(chunk.numbers)
            if shards.check is not None:
                with _may_be_away():  # the end of the work checks what is missed here
                    for number in chunk.numbers:
                        shards.check(shards.left(number))
            progress.show(shards.total - len(left))
    else:
        _Dispatcher(shards, workers, progress).run()
    progress.show(shards.total)


class _Progress:
    """The share that is done, as an artifact of the flow run that the UI shows while it grows."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._artifact: UUID | None = None
        self._shown = time.monotonic()

    def show(self, done: int) -> None:
        """Show how many shards are done, but not for work of a few seconds."""
        if time.monotonic() - self._shown < _PROGRESS_SECONDS:
            return
        self._shown = time.monotonic()
        share = 100 * done / self._shards.total
        with _may_be_away():
            if self._artifact is None:
                made = create_progress_artifact(
                    share,
                    key=f"raee-{self._shards.database}-progress",
                    description=f"{self._shards.about}: shards that are done",
                )
                self._artifact = cast(UUID, made)
            else:
                update_progress_artifact(self._artifact, share)


class _Dispatcher:
    """Gives chunks to runs, watches the runs, and gives what a dead one left to another."""

    def __init__(self, shards: Shards, workers: Workers, progress: _Progress) -> None:
        self._shards, self._workers, self._progress = shards, workers, progress
        self._deployment = f"{shards.flow.name}/{shards.flow.name}"
        self._tag = f"raee-work-{sha256(shards.address.encode()).hexdigest()[:12]}"
        self._done = shards.look_what_is_done()
        self._left = set(range(shards.total)) - self._done
        self._tries: Counter[int] = Counter()
        self._runs: dict[UUID, Chunk] = {}
        self._seconds: list[float] = []
        self._taken = self._warned = time.monotonic()

    def run(self) -> None:
        """Run chunks until every shard is done and its run has ended."""
        with get_client(sync_client=True) as client:
            try:
                self._adopt(client)
                while self._left or self._runs:
                    with _may_be_away():
                        self._give(client)
                    time.sleep(_POLL_SECONDS)
                    with _may_be_away():
                        self._notice_done()
                        self._look_after(client)
                    self._progress.show(len(self._done))
            except BaseException:
                # Also if this flow is cancelled: nobody waits for the runs' work then.
                self._cancel_all(client)
                raise

    def _adopt(self, client: SyncPrefectClient) -> None:
        """Take on the living runs to which an earlier try of this flow gave shards."""
        while page := client.read_flow_runs(flow_run_filter=self._others_living(), limit=_PAGE):
            for run in page:
                chunk = Chunk(run.parameters["first"], run.parameters["count"])
                self._runs[run.id] = chunk
                self._left -= set(chunk.numbers)
        if self._runs:
            logger.info("%d runs of an earlier try go on", len(self._runs))

    def _others_living(self) -> FlowRunFilter:
        """Living runs of these shards that are not taken on yet: some may end between two pages."""
        over = {*TERMINAL_STATES, StateType.CANCELLING}
        living = FlowRunFilterStateType(any_=[t for t in StateType if t not in over])
        return FlowRunFilter(
            id=FlowRunFilterId(not_any_=list(self._runs)),
            tags=FlowRunFilterTags(all_=[self._tag]),
            state=FlowRunFilterState(type=living),
        )

    def _cancel_all(self, client: SyncPrefectClient) -> None:
        """Cancel each run on its own; a failure only warns, so as not to hide the flow's error."""
        for run in self._runs:
            try:
                _cancel(client, run, "The flow that gave it its shards has ended.")
            except httpx.ConnectError as error:
                logger.warning("runs go on: the orchestrator does not answer (%s)", error)
                return
            except Exception as error:
                logger.warning("run %s goes on: it could not be cancelled (%s)", run, error)

    def _give(self, client: SyncPrefectClient) -> None:
        """Start as many runs as may be under way."""
        taken = sum(chunk.taken for chunk in self._runs.values()) if self._seconds else 0
        most = min(taken + max(_WAITING, taken), self._workers.at_once)
        while self._left and len(self._runs) < most:
            seconds = median(self._seconds) if self._seconds else SHARD_SECONDS
            chunk = next_chunk(self._left, chunk_size(self._workers, seconds))
            run = run_deployment(
                self._deployment,
                parameters=self._shards.parameters(chunk),
                flow_run_name=self._shards.name_of(chunk),
                timeout=0,
                tags=[self._tag],
            )
            assert isinstance(run, FlowRun)
            self._runs[run.id] = chunk
            self._left -= set(chunk.numbers)
            self._tries.update(chunk.numbers)

    def _notice_done(self) -> None:
        """Look in the store for the shards that are done since the last look."""
        done = self._shards.done()
        for number in done - self._done:
            left = self._shards.left(number)
            if self._shards.check is not None:
                self._shards.check(left)
            self._seconds.append(left.seconds)
            advance(left.rows)
            for chunk in self._runs.values():
                if number in chunk.numbers:
                    chunk.sign = time.monotonic()
        self._done, self._left = done, self._left - done

    def _look_after(self, client: SyncPrefectClient) -> None:
        """Find the runs that have begun, have ended, or have done nothing for too long."""
        states: dict[UUID, FlowRun] = {}
        for page in _pages(list(self._runs)):
            asked = FlowRunFilter(id=FlowRunFilterId(any_=page))
            states |= {run.id: run for run in client.read_flow_runs(flow_run_filter=asked)}
        if any(id not in states or _is_over(states[id]) for id in self._runs):
            self._notice_done()  # a shard may have been done between the two looks
        for id, chunk in list(self._runs.items()):
            run, now = states.get(id), time.monotonic()
            missing = set(chunk.numbers) - self._done
            if run is None or _is_over(run):
                del self._runs[id]
                self._take_back(missing, run)
            elif not missing:
                if now - chunk.sign > _FAREWELL_SECONDS:
                    _cancel(client, id, "Its shards were done by another run.")
                    del self._runs[id]
            elif run.state is not None and run.state.type != chunk.state:
                chunk.state, chunk.sign = run.state.type, now
            elif chunk.taken and now - chunk.sign > self._workers.silent_seconds:
                _cancel(client, id, "It has finished no shard for too long.")
                del self._runs[id]
                self._take_back(missing, run)
        self._say_if_lonely()

    def _take_back(self, missing: set[int], run: FlowRun | None) -> None:
        """Give the shards that a run did not do to another run."""
        if not missing:
            return
        ended = "was deleted" if run is None else f"{run.name}: {_last_words(run)}"
        what = f"shards {sorted(missing)} of {self._shards.about}"
        if max(self._tries[number] for number in missing) >= self._workers.tries:
            raise RuntimeError(
                f"{what} were given to {self._workers.tries} runs in vain; the last one {ended}"
            )
        logger.warning("%s are given to another run; the last one %s", what, ended)
        self._left |= missing

    def _say_if_lonely(self) -> None:
        now = time.monotonic()
        if any(chunk.taken for chunk in self._runs.values()) or not self._runs:
            self._taken = now
        elif now - max(self._taken, self._warned) > _LONELY_SECONDS:
            self._warned = now
            logger.warning(
                "%d runs of %s have waited for a worker for %.0f s: does one poll its pool?",
                len(self._runs),
                self._deployment,
                now - self._taken,
            )


def _is_over(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _last_words(run: FlowRun) -> str:
    state = run.state
    return "no state" if state is None else f"{state.name}: {state.message or 'without a message'}"


def _cancel(client: SyncPrefectClient, run: UUID, why: str) -> None:
    with suppress(ObjectNotFound):  # it was deleted meanwhile
        client.set_flow_run_state(run, Cancelling(message=why))


def _pages(ids: Sequence[UUID]) -> Iterator[list[UUID]]:
    for start in range(0, len(ids), _PAGE):
        yield list(ids[start : start + _PAGE])


@contextmanager
def _may_be_away() -> Iterator[None]:
    """Within the block, server or store may fail to answer: the next round asks again."""
    try:
        yield
    except (httpx.TransportError, OSError) as error:
        if isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and stays(error)):
            raise
        logger.warning("orchestrator or store do not answer (%s); trying again", error)
    except httpx.HTTPStatusError as error:
        if error.response.status_code < 500:
            raise
        logger.warning("the orchestrator answers %d; trying again", error.response.status_code)
