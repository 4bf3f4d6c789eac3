"""Steps in stages: what each is given, and what is kept of a shard that is not written yet."""

import gc
import threading
import time
import weakref

import pytest

from storage.store import Folder
from tasks import progress
from tasks.about import _about, about
from tasks.progress import advance
from tasks.shard_steps import ShardStep, shard_step
from tasks.steps import Marker, StepRecord, Work


class Left(StepRecord):
    """The record of a step of these tests."""

    found: str


PART = Marker("part", Left)


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(Folder(str(tmp_path / "work")), shards=4)


def declared(work, begin=None, walk=None, write=None) -> ShardStep:
    """A step whose stages say what they have done; any of them may be another."""

    def body(work, attempt, number, walked):
        attempt.folder.write_new("own.txt", walked.found.encode())
        return Left(rows=number, found=f"{walked.found}, {number} written")

    declare = shard_step(
        PART,
        opens=lambda address: work,
        stage="s",
        begin=begin or (lambda work, number: f"{number} begun"),
        walk=walk or (lambda work, begun: f"{begun} and walked"),
    )
    return declare(write or body)


def written(step: ShardStep, address: str, number: int) -> Left:
    """What is left of a shard that is walked, written without a flow."""
    return step.write_task.fn(number, step._unwritten[address, number])


def test_a_shard_passes_through_the_stages(work):
    step = declared(work)
    left = [step.run(work.folder.uri, number) for number in work.numbers]
    assert left[2].found == "2 begun and walked, 2 written"
    assert left == [work.record(PART, number) for number in work.numbers]
    assert work.output(PART, 3).read("own.txt") == b"3 begun and walked"


def test_what_is_done_passes_through_none_again(work):
    first = declared(work).run(work.folder.uri, 1)

    def again(*given):
        pytest.fail("it is done")

    assert declared(work, again, again, again).run(work.folder.uri, 1) == first


def test_each_shard_is_begun_once_although_it_is_begun_ahead(work):
    made = []
    step = declared(work, begin=lambda work, number: made.append(number) or str(number))
    for number in work.numbers:
        step.walk_task.fn(work.folder.uri, number, number + 1 if number < 3 else None)
        written(step, work.folder.uri, number)
    assert made == [0, 1, 2, 3]
    assert work.record(PART, 3).found == "3 and walked, 3 written"


def test_what_could_not_be_written_is_not_walked_again_and_has_another_folder(work):
    tried, walks = [], []

    def write(work, attempt, number, walked):
        tried.append(attempt.token)
        attempt.folder.write_new("own.txt", b"x")
        if len(tried) == 1:
            raise OSError("away")
        return Left(rows=1, found=walked.found)

    step = declared(work, walk=lambda work, begun: walks.append(begun) or begun, write=write)
    step.walk_task.fn(work.folder.uri, 0, None)
    with pytest.raises(OSError, match="away"):
        written(step, work.folder.uri, 0)
    assert work.found(PART, 0) is None
    left = written(step, work.folder.uri, 0)
    assert (left.found, left.attempt, walks) == ("0 begun", tried[1], ["0 begun"])
    assert tried[0] != tried[1]


def test_the_seconds_are_those_of_the_stages_and_not_of_waiting_for_another(work):
    told = []

    def write(work, attempt, number, walked):
        told.append(walked)
        return Left(rows=1, found="")

    step = declared(work, walk=lambda work, begun: time.sleep(0.1), write=write)
    asked = time.monotonic()
    step.walk_task.fn(work.folder.uri, 0, None)
    walked = time.monotonic() - asked
    time.sleep(0.2)  # as if another shard were written
    asked = time.monotonic()
    seconds = written(step, work.folder.uri, 0).seconds
    wrote = time.monotonic() - asked
    assert 0.1 <= seconds <= walked + wrote
    assert told[0].seconds >= 0.1
    assert 0 <= told[0].waited <= walked - told[0].seconds


def test_the_next_shard_is_begun_while_one_is_walked(work):
    begun = threading.Event()

    def begin(work, number):
        if number == 1:
            begun.set()

    def walk(work, found):
        assert begun.wait(30), "the next shard is not begun"
        return ""

    declared(work, begin, walk).walk_task.fn(work.folder.uri, 0, 1)


def test_a_shard_that_another_process_has_done_is_dropped_and_the_next_begun(work):
    made, ahead = [], threading.Event()

    def begin(work, number):
        made.append(number)
        if number == 1:
            ahead.set()

    step = declared(work, begin)
    step.walk_task.fn(work.folder.uri, 0, 1)
    written(step, work.folder.uri, 0)
    assert ahead.wait(30)  # or it is not begun at all, once it is dropped
    declared(work).run(work.folder.uri, 1)
    step.walk_task.fn(work.folder.uri, 1, 2)
    assert written(step, work.folder.uri, 1) == work.record(PART, 1)
    step.walk_task.fn(work.folder.uri, 2, None)
    assert sorted(made) == [0, 1, 2]


def test_what_is_begun_ahead_logs_of_its_own_shard(work):
    told = []

    def begin(work, number):
        told.append(_about.get())
        return ""

    step = declared(work, begin)
    with about("demo", "v1", 0):
        step.walk_task.fn(work.folder.uri, 0, 1)
    with about("demo", "v1", 1):
        step.walk_task.fn(work.folder.uri, 1, None)
    assert told == ["demo@v1 shard 0", "demo@v1 shard 1"]


def test_after_an_interruption_nobody_waits_for_what_is_being_written(work):
    go_on, begun = threading.Event(), threading.Event()

    def write(work, attempt, number, walked):
        begun.set()
        assert number != 0 or go_on.wait(30)
        return Left(rows=1, found=walked.found)

    step = declared(work, write=write)
    step.write_task = step.write_task.fn  # without a flow
    for number in (0, 1):
        step.walk_task.fn("a", number, None)
        step.write("a", number)
    assert begun.wait(10)
    step.drop("a")
    step.walk_task.fn("a", 2, None)
    assert step.write("a", 2).result(10).found == "2 begun and walked"
    go_on.set()
    assert work.done(PART) in ([2], [0, 2]), "what was not begun is not done"


def test_nothing_is_held_of_a_shard_that_could_not_be_written(work):
    class Large(str):
        """What a walk returns."""

    def write(work, attempt, number, walked):
        raise OSError("full")

    made = Large("x")
    gone = weakref.ref(made)
    kept = [made]
    step = declared(work, walk=lambda work, begun: kept.pop(), write=write)
    step.write_task = step.write_task.fn  # without a flow
    del made
    step.walk_task.fn("a", 0, None)
    assert isinstance(step.write("a", 0).exception(10), OSError)
    step._writer.do(lambda: None).result(10)  # its thread has gone on from the failure
    step.drop("a")
    gc.collect()
    assert gone() is None


def test_a_walk_that_fails_leaves_none_of_its_progress(work, monkeypatch):
    def walk(work, begun):
        advance(7)
        raise OSError("away")

    counted = []
    monkeypatch.setattr(progress, "_report", counted.append)
    with pytest.raises(OSError, match="away"):
        declared(work, walk=walk).run(work.folder.uri, 0)
    assert counted == [7, -7]
    assert work.found(PART, 0) is None


def test_nothing_is_held_of_a_work_that_is_dropped_and_all_of_another(work):
    step = declared(work)
    for address in ("a", "b"):
        step.walk_task.fn(address, 0, None)
    step.drop("a")
    with pytest.raises(KeyError):
        written(step, "a", 0)
    assert written(step, "b", 0).found == "0 begun and walked, 0 written"
