"""What flow runs are called, and what a run does with the shards that it is given."""

import logging
from collections.abc import Callable
from typing import Any

from prefect import runtime

from raee.errors import cut
from storage.database import Version
from tasks.about import about
from tasks.steps import Step

logger = logging.getLogger("raee")


def run_name(what: str, databases: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """Names a run by the databases, what is done to them, and when it was due.

    The UI's timeline of versions shows nothing else of a run.

    databases: says which, by the run's parameters.
    """

    def name() -> str:
        due = runtime.flow_run.scheduled_start_time
        return f"{cut(databases(runtime.flow_run.parameters))} {what} {due:%Y-%m-%d %H:%M}"

    return name


def of_job(parameters: dict[str, Any]) -> str:
    """The database of a run that is given a job."""
    return str(parameters["job"].name)


def do_chunk(
    version: Version, address: str, step: Step[Any, Any], first: int, count: int, done: str
) -> int:
    """Do a step of `count` shards from `first` on; returns their rows.

    version: what they are shards of, or are classified with.  address: of the work that the step is
    one of.  done: what they are then, for the log.
    """
    rows, name = 0, version.database.name
    with about(name, version.id):
        for number in range(first, first + count):
            with about(name, version.id, number):
                left = step(address, number)
                assert left is not None, "every shard leaves something"
                rows += left.rows
        which = f"shard {first} is" if count == 1 else f"shards {first} to {first + count - 1} are"
        logger.info("%s %s: %d rows", which, done, rows)
    return rows
