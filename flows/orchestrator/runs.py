"""The names of flow runs, and the work of a run on the shards that it is given."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from prefect import runtime

from raee.errors import cut
from storage.database import Version
from tasks.about import about
from tasks.shard_steps import ShardStep
from tasks.steps import StepRecord

logger = logging.getLogger("raee")


def run_name(what: str, databases: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """A function that names a flow run by its databases, what it does to them, and when it was due.

    The UI's timeline of versions shows nothing else of a run.

    databases: gets their names from the run's parameters.
    """

    def name() -> str:
        due = runtime.flow_run.scheduled_start_time
        return f"{cut(databases(runtime.flow_run.parameters))} {what} {due:%Y-%m-%d %H:%M}"

    return name


def of_job(parameters: dict[str, Any]) -> str:
    """The database's name in the parameters of a run that is given a job."""
    return str(parameters["job"].name)


def do_chunk(
    version: Version, address: str, step: ShardStep[Any, Any], first: int, count: int, done: str
) -> int:
    """Do a step for `count` shards from `first` on; returns how many rows they have.

    version: that into which they are built, or with which they are classified.  address: of the
    step's work.  done: what has been done to them, for the log.  Raises what the step raises.
    """
    rows, name = 0, version.database.name
    writing: Future[StepRecord] | None = None
    with about(name, version.id):
        last = first + count - 1
        try:
            for number in range(first, last + 1):
                with about(name, version.id, number):
                    step.walk(address, number, number + 1 if number < last else None)
                    before, writing = writing, step.write(address, number)
                if before is not None:
                    rows += before.result().rows
            assert writing is not None, "a chunk has shards"
            rows += writing.result().rows
        except Exception as error:
            # What is walked is not lost because another shard fails.
            if writing is not None and writing.exception() not in (None, error):
                logger.warning("a shard could not be written, either: %s", writing.exception())
            raise
        finally:
            step.drop(address)
        which = f"shard {first} is" if count == 1 else f"shards {first} to {last} are"
        logger.info("%s %s: %d rows", which, done, rows)
    return rows
