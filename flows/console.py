"""Where a command's lines go: results to stdout, progress and logs to stderr."""

import logging
import sys

from rich.console import Console
from rich.table import Table


def log_to_stderr() -> None:
    """From now on every line that the program logs is a line on stderr."""
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
    # Piped output is as wide as its lines: nothing is cut to a terminal that is not there.
    # What stands in the cells is the user's: brackets and colons are no markup there.
    width = None if sys.stdout.isatty() else 500
    console = Console(width=width, markup=False, emoji=False)
    console.print(table)
