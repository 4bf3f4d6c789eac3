"""Shards that are spread over workers, and the chunks of them that runs are given."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import StateType
from pydantic import Field

from raee.config import Settings
from tasks.steps import Marker, StepRecord, Work, look_what_is_done


class Workers(Settings):
    """How shards are spread over the workers of a pool."""

    chunk_seconds: float = Field(
        default=180, gt=0, description="Seconds of work that one run is given, by measured speed."
    )
    at_once: int = Field(
        default=64,
        ge=1,
        description="Runs that wait or run at one time; no more wait than run, or than 8. The "
        "pool's own limit holds, too.",
    )
    silent_seconds: float = Field(
        default=900,
        gt=0,
        description="A run that a worker has taken and that finishes no shard for so long is "
        "cancelled, and its shards are given to another.",
    )
    tries: int = Field(
        default=3, ge=1, description="Runs that a shard is given to before the flow fails."
    )


@dataclass(frozen=True)
class Shards:
    """The shards of a build or a classification, and the flow that does them."""

    flow: Flow[..., Any]
    """Takes `address`, `first`, `count` and `credentials`; its deployment has the same name."""
    address: str
    work: Work
    marker: Marker[Any]
    """The marker of the step that is done once a shard."""
    credentials: str | None
    """A block that reaches the store."""
    database: str
    about: str
    """The version or the output that they belong to, for names and messages."""
    check: Callable[[Any], None] | None = None
    """Called with the record of each shard as it is done; raises if the others need not be."""

    @property
    def total(self) -> int:
        """How many shards there are."""
        return len(self.work.numbers)

    def left(self, number: int) -> StepRecord:
        """The record of a shard.  Raises FileNotFoundError if it is not done."""
        return self.work.record(self.marker, number)

    def parameters(self, chunk: "Chunk") -> dict[str, Any]:
        """The parameters of a chunk's flow run: an address and numbers, never data."""
        return {
            "address": self.address,
            "first": chunk.first,
            "count": chunk.count,
            "credentials": self.credentials,
        }

    def name_of(self, chunk: "Chunk") -> str:
        """The name of a chunk's flow run."""
        return f"{self.about} {chunk.first}..{chunk.numbers[-1]}"

    def done(self) -> set[int]:
        """The numbers of the shards whose markers are there."""
        return set(self.work.done(self.marker))

    def look_what_is_done(self) -> set[int]:
        """The same as `done`, as a task that is tried again."""
        return set(look_what_is_done(self.work.folder.uri, self.marker.name, self.total))


@dataclass
class Chunk:
    """Consecutive shards that a run is given."""

    first: int
    count: int
    state: StateType = StateType.SCHEDULED
    """The state of its run at the last look."""
    sign: float = field(default_factory=time.monotonic)
    """When its run last changed its state or did a shard, in seconds of `time.monotonic`."""

    @property
    def taken(self) -> bool:
        """Whether a worker has its run."""
        return self.state in (StateType.PENDING, StateType.RUNNING)

    @property
    def numbers(self) -> range:
        """The numbers of its shards."""
        return range(self.first, self.first + self.count)


def next_chunk(left: set[int], size: int) -> Chunk:
    """The first shards of those that are left, which follow each other, `size` at most."""
    first = min(left)
    count = 1
    while count < size and first + count in left:
        count += 1
    return Chunk(first, count)


def chunk_size(workers: Workers, seconds: float) -> int:
    """How many shards make a chunk.  seconds: what a shard takes."""
    return max(1, int(workers.chunk_seconds / max(seconds, 1e-3)))
