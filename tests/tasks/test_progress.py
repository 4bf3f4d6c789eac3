import io
import logging
import time

import pytest

from tasks import progress
from tasks.progress import advance, stage, taken_back_on_error


@pytest.fixture
def log():
    """What is logged, on no terminal."""
    lines = io.StringIO()
    handler, logger = logging.StreamHandler(lines), logging.getLogger("raee")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_stage_ends_with_its_rows_and_their_rate(log):
    with stage("sweep", 100):
        advance(60)
        advance(40)
    (line,) = log.getvalue().splitlines()
    assert line.startswith("sweep: 100 rows in 0.")
    assert line.endswith(" rows/s")


def test_rows_that_were_done_before_do_not_count_as_quick(log):
    with stage("sweep", 100, done=90):
        advance(10)
    assert log.getvalue().startswith("sweep: 10 rows in ")


def test_a_long_stage_tells_of_itself_on_the_way(log, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    with stage("sweep", 100):
        advance(60)
    with stage("scan", None):
        advance(7)
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("sweep: 60 of 100 rows, ")
    assert lines[0].endswith(" s left")
    assert lines[2].startswith("scan: 7 rows, ")
    assert len(lines) == 4


def test_rows_of_what_fails_and_is_tried_again_count_once(log):
    def work(rows, error):
        with taken_back_on_error():
            advance(rows)
            if error is not None:
                raise error

    with stage("sweep", 10):
        work(4, None)
        with pytest.raises(OSError, match="away"):
            work(5, OSError("away"))
        work(6, None)
    assert log.getvalue().startswith("sweep: 10 rows in ")


def test_a_stage_within_another_keeps_its_own_count(log):
    with stage("outer", 3):
        advance(1)
        with stage("inner", 5):
            advance(5)
        advance(2)
    assert [line.split(" in ")[0] for line in log.getvalue().splitlines()] == [
        "inner: 5 rows",
        "outer: 3 rows",
    ]


def test_a_stage_that_fails_is_over(log):
    def fail():
        with stage("outer", 3):
            raise OSError

    with pytest.raises(OSError):
        fail()
    advance(1)
    assert log.getvalue() == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with stage("sweep", 100, done=20):
        for _ in range(4):
            advance(20)
            time.sleep(0.01)
    assert "sweep" in screen.getvalue()
    assert "100/100" in screen.getvalue()
    assert "rows/s" in screen.getvalue()
