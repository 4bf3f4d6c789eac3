"""What is spread over workers: shards, and the chunks of them that runs are given."""

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
    """The shards of a build or a classification, and what works on them."""

    flow: Flow[..., Any]
    """Takes `address`, `first`, `count` and `credentials`; its deployment has the same name."""
    address: str
    work: Work
    marker: Marker[Any]
    """Of the step that is one a shard."""
    credentials: str | None
    database: str
    about: str
    """What they belong to."""
    check: Callable[[Any], None] | None = None
    """Is told what each shard left as it is done; raises if the others need not be."""

    @property
    def total(self) -> int:
        """How many they are."""
        return len(self.work.numbers)

    def left(self, number: int) -> StepRecord:
        """What a shard that is done left."""
        return self.work.record(self.marker, number)

    def parameters(self, chunk: "Chunk") -> dict[str, Any]:
        """What a run of the flow is told: an address and numbers, never data."""
        return {
            "address": self.address,
            "first": chunk.first,
            "count": chunk.count,
            "credentials": self.credentials,
        }

    def name_of(self, chunk: "Chunk") -> str:
        """What the run of a chunk is called."""
        return f"{self.about} {chunk.first}..{chunk.numbers[-1]}"

    def done(self) -> set[int]:
        """The shards whose markers are there."""
        return set(self.work.done(self.marker))

    def look_what_is_done(self) -> set[int]:
        """The same, as a task that is tried again."""
        return set(look_what_is_done(self.work.folder.uri, self.marker.name, self.total))


@dataclass
class Chunk:
    """Consecutive shards that a run is given."""

    first: int
    count: int
    state: StateType = StateType.SCHEDULED
    """Of its run, when it was last seen."""
    sign: float = field(default_factory=time.monotonic)
    """When something was last seen of it: its state changed, or a shard was done."""

    @property
    def taken(self) -> bool:
        """Whether a worker has it."""
        return self.state in (StateType.PENDING, StateType.RUNNING)

    @property
    def numbers(self) -> range:
        """Its shards."""
        return range(self.first, self.first + self.count)


def next_chunk(left: set[int], size: int) -> Chunk:
    """The first shards that are left, as many as follow each other, up to `size`."""
    first = min(left)
    count = 1
    while count < size and first + count in left:
        count += 1
    return Chunk(first, count)


def chunk_size(workers: Workers, seconds: float) -> int:
    """Shards of a chunk, by the seconds that one takes."""
    return max(1, int(workers.chunk_seconds / max(seconds, 1e-3)))
