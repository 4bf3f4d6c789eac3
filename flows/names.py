"""What flow runs are called: the UI's timeline of versions shows nothing else of them."""

from collections.abc import Callable
from typing import Any

from prefect import runtime

from raee.errors import cut


def run_name(what: str, databases: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """Names a run by the databases, what is done to them, and when it was due.

    databases: says which, by the run's parameters.
    """

    def name() -> str:
        due = runtime.flow_run.scheduled_start_time
        return f"{cut(databases(runtime.flow_run.parameters))} {what} {due:%Y-%m-%d %H:%M}"

    return name


def of_job(parameters: dict[str, Any]) -> str:
    """The database of a run that is given a job."""
    return str(parameters["job"].name)
