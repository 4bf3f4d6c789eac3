"""The names of flow runs, which the UI's timelines show, and a run's work on its shards."""

import re
import subprocess
import sys
import threading
import uuid

import pytest
from prefect import flow
from prefect.exceptions import ParameterTypeError

from flows.maintain_store import maintain_store
from flows.orchestrator.runs import do_chunk
from flows.rebuild_database import rebuild_database
from raee.errors import InputError
from storage.database import Database
from storage.store import Folder
from tasks.shard_steps import shard_step
from tasks.steps import Marker, StepRecord, Work
from tests.flows.jobs import Workplace, ask_server

_WHEN = r" \d{4}-\d\d-\d\d \d\d:\d\d"

PART = Marker("part", StepRecord)

SHARDS = 3


def _last_names(flow: str) -> list[str]:
    """Of the last runs of a flow, the newest first."""
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
    return [run["name"] for run in ask_server("flow_runs/filter", body)]


def test_runs_are_named_after_the_database_what_is_done_and_when_it_was_due(place: Workplace):
    name = f"named-{uuid.uuid4().hex[:8]}"
    version = place.build(name=name)
    input = place.write("new.csv", [{"id": "a", "text": "a good film"}])
    place.classify(input, name=name)
    maintain_store(str(place.store), names=[name])
    maintain_store(str(place.store))
    assert re.fullmatch(f"{name} rebuild{_WHEN}", _last_names("rebuild-database")[0])
    assert re.fullmatch(f"{name} classify{_WHEN}", _last_names("classify-corpus")[0])
    last, before = _last_names("maintain-store")[:2]
    assert re.fullmatch(f"all maintain{_WHEN}", last)
    assert re.fullmatch(f"{name} maintain{_WHEN}", before)
    assert _last_names("sweep-shards")[0] == f"{name}@{version} 0..1"
    assert _last_names("classify-shards")[0] == f"{place.root / 'out'} 0..0"


def test_a_run_without_a_job_says_what_is_wrong_with_its_parameters():
    with pytest.raises(ParameterTypeError, match="store"):
        rebuild_database({"name": "demo"})


@pytest.fixture
def chunk(tmp_path):
    """A function that does a chunk with some walk and some writing; and the work."""
    work = Work(Folder(str(tmp_path / "work")), SHARDS)
    version = Database(str(tmp_path), "demo").version("v1")

    def do(walk, write):
        step = shard_step(
            PART, opens=lambda address: work, stage="s", begin=lambda work, n: n, walk=walk
        )(write)
        for task in (step.walk_task, step.write_task):
            task.retry_delay_seconds = 0.01

        @flow
        def do_all(address: str) -> int:
            return do_chunk(version, address, step, 0, SHARDS, "done")

        return do_all(work.folder.uri)

    return do, work


def test_a_shard_is_written_while_the_next_is_walked(chunk):
    do, work = chunk
    walking = [threading.Event() for _ in range(SHARDS)]
    written = [threading.Event() for _ in range(SHARDS)]

    def walk(work, number):
        walking[number].set()
        # Were it written before, or after the walk, this or the writing would wait in vain.
        if number > 0:
            assert written[number - 1].wait(30)
        return number

    def write(work, attempt, number, walked):
        if number + 1 < SHARDS:
            assert walking[number + 1].wait(30)
        written[number].set()
        return StepRecord(rows=10)

    assert do(walk, write) == 30
    assert work.done(PART) == [0, 1, 2]


def test_a_walk_that_fails_does_not_lose_the_shard_that_is_being_written(chunk):
    do, work = chunk
    failed, tries = threading.Event(), []

    def walk(work, number):
        if number == 1:
            failed.set()
            raise InputError("a row is bad")
        return number

    def write(work, attempt, number, walked):
        assert failed.wait(30)
        tries.append(number)
        if len(tries) == 1:
            raise ConnectionError("away")
        return StepRecord(rows=10)

    with pytest.raises(InputError, match="a row is bad"):
        do(walk, write)
    assert work.done(PART) == [0]


def test_a_shard_that_cannot_be_written_does_not_lose_the_one_that_is_walked(chunk):
    do, work = chunk

    def write(work, attempt, number, walked):
        if number == 0:
            raise PermissionError("its folder is somebody else's")
        return StepRecord(rows=10)

    with pytest.raises(PermissionError, match="somebody else's"):
        do(lambda work, number: number, write)
    assert work.done(PART) == [1]


def test_a_store_that_answers_late_is_written_to_again_and_nothing_is_walked_twice(chunk):
    do, _ = chunk
    walks, tries = [], []

    def write(work, attempt, number, walked):
        tries.append(number)
        if tries.count(number) < 3:
            raise ConnectionError("away")
        return StepRecord(rows=10)

    assert do(lambda work, number: walks.append(number), write) == 30
    assert walks == [0, 1, 2]
    assert sorted(tries) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_store_that_stays_away_is_told_as_it_was(chunk):
    do, work = chunk

    def write(work, attempt, number, walked):
        raise ConnectionError(f"away at {number}")

    with pytest.raises(ConnectionError, match="away at 0"):
        do(lambda work, number: number, write)
    assert work.done(PART) == []


def test_who_interrupts_a_chunk_does_not_wait_for_its_writing(tmp_path):
    program = """
import sys, threading, time
from prefect import flow
from flows.orchestrator.runs import do_chunk
from storage.database import Database
from storage.store import Folder
from tasks.shard_steps import shard_step
from tasks.steps import Marker, StepRecord, Work

work, writing = Work(Folder(sys.argv[1]), 2), threading.Event()

def walk(work, number):
    if number == 1:
        assert writing.wait(30)
        raise KeyboardInterrupt

def write(work, attempt, number, walked):
    writing.set()
    time.sleep(60)

declare = shard_step(Marker("part", StepRecord), opens=lambda address: work, stage="s",
                     begin=lambda work, number: number, walk=walk)
step, version = declare(write), Database(sys.argv[1], "demo").version("v1")
flow(lambda: do_chunk(version, "address", step, 0, 2, "done"), name="interrupted")()
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
