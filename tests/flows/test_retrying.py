import httpx
import pytest
from prefect import flow, task

from raee.errors import InputError
from tasks import build, build_plan, classification, publish
from tasks.retrying import RETRIES


def _run(errors):
    """Run a task that meets these errors, one a try, then succeeds; returns its tries."""
    tries = []

    @task(**RETRIES)
    def work():
        tries.append(len(tries))
        if len(tries) <= len(errors):
            raise errors[len(tries) - 1]
        return "done"

    @flow
    def run_it():
        return work.with_options(retry_delay_seconds=0.01)()

    try:
        return tries, run_it()
    except Exception as error:
        return tries, error


@pytest.mark.parametrize(
    "error", [OSError("disk"), ConnectionResetError(), TimeoutError(), httpx.ConnectError("gone")]
)
def test_what_storage_or_the_server_may_recover_from_is_tried_again(error):
    tries, result = _run([error, error])
    assert (len(tries), result) == (3, "done")


def test_a_fault_that_stays_is_given_up_after_three_more_tries():
    tries, result = _run([OSError(f"try {n}") for n in range(9)])
    assert len(tries) == 4
    assert str(result) == "try 3"


@pytest.mark.parametrize(
    "error", [InputError("bad"), PermissionError(), ValueError("ours"), MemoryError()]
)
def test_bad_input_and_our_own_mistakes_are_not_tried_again(error):
    tries, result = _run([error])
    assert len(tries) == 1
    assert result is error


def test_every_task_is_retried_in_this_way():
    steps = {
        name: value
        for module in (build, build_plan, classification, publish)
        for name, value in vars(module).items()
        if type(value).__name__ == "Task"
    }
    assert {"plan_build", "sweep_shard", "publish_build", "classify_shard"} <= set(steps)
    for step in steps.values():
        assert step.retries == RETRIES["retries"]
        assert step.retry_condition_fn is RETRIES["retry_condition_fn"]
