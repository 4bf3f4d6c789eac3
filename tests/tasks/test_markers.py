"""Steps: whoever is done first counts, and nobody ever reads a mixture of two tries' files."""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from storage.checked import FileRecord
from storage.store import Folder
from tasks.markers import (
    Attempt,
    account_of,
    done,
    forget,
    marker,
    output,
    put_in_place,
    rows_done,
    said,
)

STEP = "part-00000"


@pytest.fixture
def work(tmp_path) -> Folder:
    return Folder(str(tmp_path / "work"))


def _try(work, content, step=STEP, files=("a.bin", "deep/b.bin")):
    """A try at a step, whose files all hold the same; returns it and its records."""
    attempt = Attempt(work, step)
    records = []
    for name in files:
        with attempt.version.create(name) as file:
            file.write(content)
        records.append(file.record(rows=1))
    attempt.folder.write_new("own.txt", content)
    return attempt, records


def _contents(folder):
    """What a folder's files hold, by name."""
    return {found.name: folder.read(found.name) for found in folder.files()}


class TestDone:
    def test_says_rows_seconds_files_and_what_later_steps_ask(self, work):
        assert marker(work, STEP) is None
        record = FileRecord("part-00000.parquet", 5, "abc", rows=2)
        attempt = Attempt(work, STEP, begun=time.monotonic() - 1)
        account = done(attempt, [record], 2, cut=7)
        assert account == marker(work, STEP) == said(work, STEP)
        assert (account["rows"], account["cut"], account["files"]) == (2, 7, [vars(record)])
        assert account["attempt"] == attempt.token
        assert 1 <= account["seconds"] < 60

    def test_of_two_tries_the_first_marker_counts(self, work):
        (first, records), (second, others) = _try(work, b"first"), _try(work, b"second")
        assert first.token != second.token
        account = done(first, records, 1)
        assert done(second, others, 2) == account, "the loser is told what stands"
        assert marker(work, STEP) == account
        assert output(work, STEP).read("own.txt") == b"first"

    def test_a_losers_files_are_removed_and_the_winners_stay(self, work):
        (loser, others), (winner, records) = _try(work, b"loser"), _try(work, b"winner")
        done(winner, records, 1)
        done(loser, others, 1)
        assert (work / STEP).names() == [winner.token]
        assert set(_contents(work / STEP).values()) == {b"winner"}
        assert len(_contents(winner.folder)) == 3

    def test_threads_that_race_for_a_step_leave_one_try_and_its_whole_files(self, work):
        racers, rounds = 6, 10
        start = threading.Barrier(racers)
        told = [[] for _ in range(rounds)]

        def race(number):
            for turn in range(rounds):
                attempt, records = _try(work, b"%d" % number * 1_000, step=f"step-{turn}")
                start.wait()
                told[turn].append((attempt.token, done(attempt, records, number)))

        threads = [threading.Thread(target=race, args=(n,)) for n in range(racers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for turn, answers in enumerate(told):
            step, account = f"step-{turn}", said(work, f"step-{turn}")
            assert len(answers) == racers
            assert all(answer == account for _, answer in answers)
            assert (work / step).names() == [account["attempt"]]
            held = _contents(output(work, step))
            assert set(held.values()) == {b"%d" % account["rows"] * 1_000}
            assert set(held) == {"own.txt", "version/a.bin", "version/deep/b.bin"}

    def test_a_step_that_is_not_done_has_no_output(self, work):
        _try(work, b"under way")
        with pytest.raises(FileNotFoundError):
            output(work, STEP)
        with pytest.raises(FileNotFoundError):
            said(work, STEP)


class TestPutInPlace:
    @pytest.fixture
    def target(self, tmp_path) -> Folder:
        return Folder(str(tmp_path / "version"))

    @pytest.fixture
    def accounts(self, work) -> dict[str, Mapping[str, Any]]:
        """Three steps that are done, one of them with no file for the version."""
        for step, files in (("one", ["b.bin", "c/d.bin"]), ("two", []), ("three", ["a.bin"])):
            attempt, records = _try(work, step.encode(), step, files)
            done(attempt, records, 1)
        return {step: said(work, step) for step in ("one", "two", "three")}

    def test_copies_the_versions_files_and_says_which(self, work, accounts, target):
        records = put_in_place(work, accounts, target)
        expected = {"a.bin": b"three", "b.bin": b"one", "c/d.bin": b"one"}
        assert _contents(target) == expected
        assert [r.path for r in records] == list(expected)
        assert [target.record(r.path).sha256 for r in records] == [r.sha256 for r in records]

    def test_does_no_harm_twice(self, work, accounts, target):
        before = put_in_place(work, accounts, target)
        contents = _contents(target)
        assert put_in_place(work, accounts, target) == before
        assert _contents(target) == contents

    def test_takes_nothing_of_a_try_that_does_not_count(self, work, accounts, target):
        _try(work, b"late", "one", ["b.bin", "e.bin"])
        put_in_place(work, accounts, target)
        assert set(_contents(target)) == {"a.bin", "b.bin", "c/d.bin"}
        assert target.read("b.bin") == b"one"

    def test_is_refused_where_what_a_step_wrote_is_gone(self, work, accounts, target):
        forget(work)
        with pytest.raises(FileNotFoundError):
            put_in_place(work, accounts, target)


def test_the_account_of_a_build_is_read_once(work):
    with pytest.raises(FileNotFoundError):
        account_of(work.uri, STEP)  # what is not there yet is not remembered
    account = done(Attempt(work, STEP), [], 3)
    assert account_of(work.uri, STEP) == account
    forget(work)
    assert account_of(work.uri, STEP) == account


def test_rows_done_are_those_of_the_steps_of_one_kind(work):
    assert rows_done(work, "shard", 5) == 0
    for step, rows in (
        ("shard-00000", 3),
        ("shard-00003", 4),
        ("shard-00005", 5),
        ("part-00001", 9),
    ):
        done(Attempt(work, step), [], rows)
    Attempt(work, "shard-00001").folder.write_new("own.txt", b"under way")
    assert rows_done(work, "shard", 5) == 7


def test_a_marker_is_plain_json(work):
    done(Attempt(work, STEP), [], 3)
    assert json.loads(work.read(f"{STEP}.json"))["rows"] == 3
