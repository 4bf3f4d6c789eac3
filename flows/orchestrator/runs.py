"""Names of flow runs, and the work of a run on the shards that it is given."""

import logging
from collections.abc import Callable
from typing import Any

from prefect import runtime

from raee.errors import cut
from tasks.about import about

logger = logging.getLogger("raee")


def run_name(what: str, databases: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """Names a run by the databases, what is done to them, and when it was due.

    The UI's timeline of versions shows nothing else of a run.

    databases: gives their names by the run's parameters.
    """

    def name() -> str:
        due = runtime.flow_run.scheduled_start_time
        return f"{cut(databases(runtime.flow_run.parameters))} {what} {due:%Y-%m-%d %H:%M}"

    return name


def of_job(parameters: dict[str, Any]) -> str:
    """The database of a run that is given a job."""
    return str(parameters["job"].name)


def do_chunk(
    database: str, version: str, first: int, count: int, shard: Callable[[int], int], done: str
) -> int:
    """Do `count` shards from `first` on; returns their rows.

    shard: does the shard with a number and returns its rows.  done: the word for the log, such as
    "swept".
    """
    rows = 0
    with about(database, version):
        for number in range(first, first + count):
            with about(database, version, number):
                rows += shard(number)
        which = f"shard {first} is" if count == 1 else f"shards {first} to {first + count - 1} are"
        logger.info("%s %s: %d rows", which, done, rows)
    return rows
