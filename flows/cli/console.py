"""A command's lines: results go to stdout, progress and logs to stderr."""

import io
import logging
import os
import select
import sys
from typing import TextIO

from rich.console import Console
from rich.table import Table

_stdout = 1
"""The file that stdout was when the program began."""


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable, however they were opened.

    If the caller closed one, there is nothing to read, or nobody reads.  A letter that the output's
    encoding lacks is written as its number.
    """
    global _stdout
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open to the end
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _stdout = os.dup(sys.stdout.fileno())  # the library that draws tables replaces a broken pipe


def reader_has_left() -> bool:
    """Whether stdout is a pipe that nobody reads any more, as after `| head`."""
    poll = select.poll()
    poll.register(_stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, by default to stdout."""
    # Not with `typer.echo`, which writes UTF-8 if the output is to be ASCII.
    stream = sys.stdout if stream is None else stream
    stream.write(f"{line}\n")
    stream.flush()


def log_to_stderr() -> None:
    """Write every line that the program logs from now on to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.name = "raee-stderr"
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("raee")
    for before in [h for h in logger.handlers if h.name == handler.name]:
        logger.removeHandler(before)  # of an earlier command in this process
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def print_table(table: Table) -> None:
    """Print a table to stdout, as wide as the terminal."""
    # Piped output is as wide as its lines: nothing is truncated to a terminal that is not there.
    # The cells hold the user's text: brackets and colons are no markup there.
    width = None if sys.stdout.isatty() else 500
    console = Console(width=width, markup=False, emoji=False)
    with console.capture() as drawn:
        console.print(table)
    say(drawn.get().removesuffix("\n"))
