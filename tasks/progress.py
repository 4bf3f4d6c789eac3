"""Progress of a command: a bar with rows/s and remaining time on a terminal, else log lines."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

logger = logging.getLogger("raee")

_SECONDS_BETWEEN_LINES = 15.0

_report: Callable[[int], None] = lambda rows: None  # noqa: E731 - one stage at a time a process


def advance(rows: int) -> None:
    """Tell the current stage that rows are done; without a stage, nobody listens."""
    _report(rows)


@contextmanager
def taken_back_on_error() -> Iterator[None]:
    """Within, rows count as they are done; if the block fails, they are not: it is tried again."""
    global _report
    outer, done = _report, 0

    def report(rows: int) -> None:
        nonlocal done
        done += rows
        outer(rows)

    _report = report
    try:
        yield
    except BaseException:
        outer(-done)
        raise
    finally:
        _report = outer


@contextmanager
def stage(name: str, rows: int | None, done: int = 0) -> Iterator[None]:
    """Show the progress of a stage over so many rows, of which some were done before.

    rows: how many there are; None if nobody knows yet.
    """
    global _report
    outer = _report
    try:
        with _bar(name, rows, done) if sys.stderr.isatty() else _lines(name, rows, done) as report:
            _report = report
            yield
    finally:
        _report = outer


@contextmanager
def _bar(name: str, rows: int | None, done: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RowsPerSecond(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=rows, completed=done)
        yield lambda n: progress.advance(task, n)


@contextmanager
def _lines(name: str, rows: int | None, done: int) -> Iterator[Callable[[int], None]]:
    begun = told = time.monotonic()
    now_done = done

    def report(n: int) -> None:
        nonlocal now_done, told
        now_done += n
        now = time.monotonic()
        if now - told >= _SECONDS_BETWEEN_LINES:
            told = now
            rate = (now_done - done) / (now - begun)
            if rows is None:
                logger.info("%s: %d rows, %.0f rows/s", name, now_done, rate)
            else:
                left = (rows - now_done) / rate if rate else float("inf")
                logger.info(
                    "%s: %d of %d rows, %.0f rows/s, %.0f s left", name, now_done, rows, rate, left
                )

    yield report
    seconds = time.monotonic() - begun
    rate = (now_done - done) / seconds if seconds else 0.0
    logger.info("%s: %d rows in %.1f s, %.0f rows/s", name, now_done - done, seconds, rate)


class _RowsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} rows/s", style="progress.data.speed")
