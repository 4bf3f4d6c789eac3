"""Processes that a command starts end with it, however the command ends.

The command holds a lock on a file that is named in the environment of all processes that it starts,
at any remove: a worker's flow runs have it, and the residents that these start.  A process that
waits for the lock gets it once the command is gone, even if it was killed: the kernel sees to that,
on Linux and on macOS, whether somebody waits for the dead process or not.

    python -P -m flows.orchestrator.lifeline worker start ..

is the `prefect` command, for as long as the command that has started it lives.
"""

import fcntl
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FILE = "RAEE_LIFELINE"
_FAREWELL_SECONDS = 3.0
"""Time that a process has to end as it would if it was asked to."""


def program(module: str) -> list[str]:
    """The command that runs a module of ours, in this Python.

    `-P` keeps out a `tasks.py` or a folder `flows` of the user's in the current folder.
    """
    return [sys.executable, "-P", "-m", module]


@contextmanager
def lifeline(folder: Path) -> Iterator[None]:
    """Within this context, processes that are started end with this one, if they ask for that.

    folder: one that nobody cleans up, since a process that does not find the file in it ends.
    """
    held, path = tempfile.mkstemp(prefix="raee-lifeline-", dir=folder)
    # No lock of `flock`: a process that this one forks would hold that, too.
    fcntl.lockf(held, fcntl.LOCK_EX)
    before = os.environ.get(_FILE)
    os.environ[_FILE] = path
    try:
        yield
    finally:
        del os.environ[_FILE]
        if before is not None:
            os.environ[_FILE] = before
        os.unlink(path)
        os.close(held)


def end_with_command() -> None:
    """From now on, end within seconds after the command that this process was started by."""
    path = os.environ.get(_FILE)
    if path is not None:
        threading.Thread(target=_outlive, args=(Path(path),), daemon=True).start()


def _outlive(path: Path) -> None:
    with suppress(FileNotFoundError), path.open("rb") as file:  # else the command has ended
        fcntl.lockf(file, fcntl.LOCK_SH)
    path.unlink(missing_ok=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_FAREWELL_SECONDS)
    os._exit(1)


def main() -> None:
    """Run the command."""
    end_with_command()
    from prefect.cli import app

    app()


if __name__ == "__main__":
    main()
