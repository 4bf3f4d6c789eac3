"""Steps: the try that is done first counts, and nobody reads a mixture of two tries' files."""

import json
import threading
import time

import pytest

from storage.store import Folder
from tasks import progress
from tasks.progress import advance
from tasks.steps import (
    Attempt,
    Marker,
    StepRecord,
    Work,
    forget,
    in_order,
    look_what_is_done,
    step,
)


class Left(StepRecord):
    """The record of a step of these tests."""

    cut: int = 0


PART, ONE, TWO, THREE = (Marker(name, Left) for name in ("part", "one", "two", "three"))


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(Folder(str(tmp_path / "work")), shards=5)


def _try(work, content, marker=PART, number=0, files=("a.bin", "deep/b.bin")):
    """A try at a step, whose files all hold the same; returns it and its record."""
    attempt = Attempt(work.folder, marker.at(number))
    records = []
    for name in files:
        with attempt.version.create(name) as file:
            file.write(content)
        records.append(file.record(rows=1))
    attempt.folder.write_new("own.txt", content)
    return attempt, Left(rows=1, files=records)


def _contents(folder):
    """By name, what a folder's files hold."""
    return {found.name: folder.read(found.name) for found in folder.files()}


class TestAttempt:
    def test_leaves_rows_seconds_files_and_what_later_steps_ask(self, work):
        assert work.found(PART, 0) is None
        _, left = _try(work, b"x", files=["part-00000.parquet"])
        attempt = Attempt(work.folder, "part-00000", begun=time.monotonic() - 1)
        kept = attempt.keep(left.model_copy(update={"rows": 2, "cut": 7}))
        assert kept == work.found(PART, 0) == work.record(PART, 0)
        assert (kept.rows, kept.cut, kept.files) == (2, 7, left.files)
        assert kept.attempt == attempt.token
        assert 1 <= kept.seconds < 60

    def test_of_two_the_first_marker_counts(self, work):
        (first, left), (second, other) = _try(work, b"first"), _try(work, b"second")
        assert first.token != second.token
        kept = first.keep(left)
        assert second.keep(other) == kept, "the loser is told what counts"
        assert work.found(PART, 0) == kept
        assert work.output(PART, 0).read("own.txt") == b"first"

    def test_that_loses_is_removed_and_the_winner_stays(self, work):
        (loser, other), (winner, left) = _try(work, b"loser"), _try(work, b"winner")
        winner.keep(left)
        loser.keep(other)
        folder = work.folder / "part-00000"
        assert folder.names() == [winner.token]
        assert set(_contents(folder).values()) == {b"winner"}
        assert len(_contents(winner.folder)) == 3

    def test_of_which_many_race_leaves_one_and_its_whole_files(self, work):
        racers, rounds = 6, 10
        start = threading.Barrier(racers)
        told = [[] for _ in range(rounds)]

        def race(number):
            for turn in range(rounds):
                attempt, left = _try(work, b"%d" % number * 1_000, number=turn)
                start.wait()
                kept = attempt.keep(left.model_copy(update={"rows": number}))
                told[turn].append((attempt.token, kept))

        threads = [threading.Thread(target=race, args=(n,)) for n in range(racers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for turn, answers in enumerate(told):
            kept = work.record(PART, turn)
            assert len(answers) == racers
            assert all(answer == kept for _, answer in answers)
            assert (work.folder / PART.at(turn)).names() == [kept.attempt]
            held = _contents(work.output(PART, turn))
            assert set(held.values()) == {b"%d" % kept.rows * 1_000}
            assert set(held) == {"own.txt", "version/a.bin", "version/deep/b.bin"}

    def test_that_is_not_done_has_no_output(self, work):
        _try(work, b"under way")
        with pytest.raises(FileNotFoundError):
            work.output(PART, 0)
        with pytest.raises(FileNotFoundError):
            work.record(PART, 0)

    def test_has_a_marker_of_plain_json(self, work):
        Attempt(work.folder, "part-00000").keep(Left(rows=3))
        assert json.loads(work.folder.read("part-00000.json"))["rows"] == 3


class TestFiles:
    """Files of the version, which are copied when all steps are done."""

    @pytest.fixture
    def target(self, tmp_path) -> Folder:
        return Folder(str(tmp_path / "version"))

    @pytest.fixture
    def done(self, work):
        """Three steps that are done, one of them with no file for the version."""
        for marker, files in ((ONE, ["b.bin", "c/d.bin"]), (TWO, []), (THREE, ["a.bin"])):
            attempt, left = _try(work, marker.name.encode(), marker, None, files)
            attempt.keep(left)

    def _copy(self, work, target):
        return [file for m in (ONE, TWO, THREE) for file in work.files(m).copy(target)]

    def test_are_copied_and_named(self, work, done, target):
        records = self._copy(work, target)
        assert _contents(target) == {"a.bin": b"three", "b.bin": b"one", "c/d.bin": b"one"}
        assert [r.path for r in records] == ["b.bin", "c/d.bin", "a.bin"]
        assert [target.record(r.path).sha256 for r in records] == [r.sha256 for r in records]

    def test_are_copied_twice_without_harm(self, work, done, target):
        before = self._copy(work, target)
        contents = _contents(target)
        assert self._copy(work, target) == before
        assert _contents(target) == contents

    def test_are_none_of_a_try_that_does_not_count(self, work, done, target):
        _try(work, b"late", ONE, None, ["b.bin", "e.bin"])
        self._copy(work, target)
        assert set(_contents(target)) == {"a.bin", "b.bin", "c/d.bin"}
        assert target.read("b.bin") == b"one"

    def test_that_are_gone_are_missed(self, work, done, target):
        files = work.files(ONE)
        forget(work.folder)
        with pytest.raises(FileNotFoundError):
            files.copy(target)

    def test_are_those_of_all_shards(self, work):
        for number in work.numbers:
            attempt, left = _try(work, b"%d" % number, PART, number, [f"part-{number}.bin"])
            attempt.keep(left)
        files = work.files(PART, per_shard=True)
        assert [files.read(path) for path in files.below("part-")] == [b"0", b"1", b"2", b"3", b"4"]
        forget(work.folder / "part-00003")
        work.folder.delete("part-00003.json")
        with pytest.raises(FileNotFoundError):
            work.files(PART, per_shard=True)


def test_rows_done_are_those_of_the_steps_of_one_kind(work):
    assert work.rows_done(PART) == 0
    for marker, number, rows in ((PART, 0, 3), (PART, 3, 4), (PART, 5, 5), (ONE, 1, 9)):
        Attempt(work.folder, marker.at(number)).keep(Left(rows=rows))
    Attempt(work.folder, PART.at(1)).folder.write_new("own.txt", b"under way")
    assert work.rows_done(PART) == 7
    assert work.done(PART) == look_what_is_done.fn(work.folder.uri, "part", 5) == [0, 3]


class TestStep:
    """A body is run once, however often its step is asked for."""

    def _declared(self, work, marker, body, after=(), **more):
        declare = step(marker, opens=lambda address: work, stage="s", after=after, **more)
        return declare(body)

    def test_is_not_done_again(self, work):
        done = []

        def body(work, attempt):
            done.append(attempt.token)
            attempt.folder.write_new("own.txt", b"x")
            return Left(rows=2, cut=1)

        declared = self._declared(work, ONE, body)
        left = declared.run(work.folder.uri)
        assert (left.rows, left.cut, left.attempt) == (2, 1, done[0])
        assert declared.run(work.folder.uri) == left
        assert len(done) == 1
        assert work.output(ONE).read("own.txt") == b"x"
        assert declared.seconds(work) == left.seconds

    def test_of_a_shard_is_done_for_each(self, work):
        def body(work, attempt, number):
            return Left(rows=number)

        declared = self._declared(work, PART, body, per_shard=True)
        assert [declared.run(work.folder.uri, n).rows for n in work.numbers] == [0, 1, 2, 3, 4]
        assert work.done(PART) == [0, 1, 2, 3, 4]

    def test_of_which_the_work_has_no_need_leaves_nothing(self, work):
        declared = self._declared(work, ONE, lambda work, attempt: None)
        assert declared.run(work.folder.uri) is None
        assert work.found(ONE) is None
        assert (declared.seconds(work), declared.files(work).placed) == (0, {})

    def test_that_fails_leaves_no_marker_and_none_of_its_progress(self, work, monkeypatch):
        def body(work, attempt):
            advance(7)
            raise OSError("disk full")

        counted = []
        monkeypatch.setattr(progress, "_report", counted.append)
        with pytest.raises(OSError, match="disk full"):
            self._declared(work, ONE, body).run(work.folder.uri)
        assert work.found(ONE) is None
        assert sum(counted) == 0
        assert 7 in counted

    def test_of_which_the_marker_cannot_be_written_leaves_no_progress(self, work, monkeypatch):
        def body(work, attempt):
            advance(7)
            return Left(rows=7)

        def away(self, left):
            raise OSError("away")

        counted = []
        monkeypatch.setattr(progress, "_report", counted.append)
        monkeypatch.setattr(Attempt, "keep", away)
        with pytest.raises(OSError, match="away"):
            self._declared(work, ONE, body).run(work.folder.uri)
        assert counted == [7, -7]

    def test_comes_after_those_that_it_reads(self, work):
        def body(work, attempt):
            return Left(rows=0)

        third = self._declared(work, THREE, body, after=[TWO, ONE])
        second = self._declared(work, TWO, body, after=[ONE])
        first = self._declared(work, ONE, body)
        assert in_order([third, second, first]) == (first, second, third)
        with pytest.raises(ValueError, match=r"these read before them: .'two'."):
            in_order([second])
        circular = self._declared(work, ONE, body, after=[TWO])
        with pytest.raises(ValueError, match=r"these read before them: .'two', 'one'."):
            in_order([second, circular])
