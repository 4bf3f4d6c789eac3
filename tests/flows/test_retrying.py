import errno

import httpx
import pytest
import torch
from prefect import flow, task

from raee.errors import InputError
from tasks.retrying import RETRIES
from tests.flows.every_task import every_task


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
    "error",
    [
        OSError("disk"),
        OSError(errno.EIO, "disk"),
        OSError(errno.EBUSY, "the server says SlowDown"),
        OSError(errno.ESTALE, "a folder of another machine"),
        ConnectionResetError(),
        ConnectionError("the server says 503"),
        TimeoutError(),
        httpx.ConnectError("gone"),
    ],
)
def test_what_storage_or_the_server_may_recover_from_is_tried_again(error):
    tries, result = _run([error, error])
    assert (len(tries), result) == (3, "done")


def test_a_fault_that_stays_is_given_up_after_three_more_tries():
    tries, result = _run([OSError(f"try {n}") for n in range(9)])
    assert len(tries) == 4
    assert str(result) == "try 3"


@pytest.mark.parametrize(
    "error",
    [
        InputError("bad"),
        PermissionError(),
        IsADirectoryError(errno.EISDIR, "a folder"),
        NotADirectoryError(errno.ENOTDIR, "a file"),
        OSError(errno.ENOSPC, "the disk is full"),
        OSError(errno.EDQUOT, "the quota is used up"),
        OSError(errno.EFBIG, "the file is too large"),
        OSError(errno.EROFS, "the disk is read only"),
        OSError(errno.EINVAL, "the server says InvalidRequest"),
        ValueError("ours"),
        MemoryError(),
        torch.OutOfMemoryError("the GPU's"),
    ],
)
def test_bad_input_and_our_own_mistakes_are_not_tried_again(error):
    tries, result = _run([error])
    assert len(tries) == 1
    assert result is error


def test_every_task_is_retried_in_this_way():
    found = every_task()
    assert set(found) >= {
        *("plan_build", "sweep_shard.walk", "sweep_shard.write", "fit_database_probes"),
        *("tune_build", "publish_build", "promote_if_as_good", "record_versions"),
        *("estimate_balance", "classify_shard.walk", "classify_shard.write"),
    }
    for each in found.values():
        assert each.retries == RETRIES["retries"]
        assert each.retry_condition_fn is RETRIES["retry_condition_fn"]
