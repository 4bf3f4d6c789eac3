"""Retries of tasks: Prefect tries again if a second try may help."""

from typing import Any

import httpx
from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from storage.faults import stays


def _worth_another_try(task: Task, task_run: TaskRun, state: State) -> bool:
    """Storage, network and server may recover; bad input, a full disk, our own mistakes do not."""
    try:
        state.result()
    except OSError as error:
        return not stays(error)
    except httpx.TransportError:
        return True
    except Exception:
        return False
    return False


RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _worth_another_try,
}
"""Options for `@task(**RETRIES)`."""
