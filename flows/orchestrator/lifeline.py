"""What a command starts ends with it, however the command ends.

The command holds a lock on a file that is named in the environment of all that it starts, at any
remove: a worker's flow runs have it, and the residents that these start.  Whoever waits for that
lock has it once the command is gone, also where it was killed: the kernel sees to that, on Linux
and on macOS, whether somebody waits for the dead process or not.

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
"""What a process has to end as it would if it was asked to."""


def program(module: str) -> list[str]:
    """The command that runs a module of ours, in this Python.

    `-P`: a `tasks.py` or a folder `flows` of the user's, where the command is given, is not ours.
    """
    return [sys.executable, "-P", "-m", module]


@contextmanager
def lifeline(folder: Path) -> Iterator[None]:
    """Within, what is started lives as long as this process does, where it asks for that.

    folder: where nobody cleans up: what does not find the file there ends.
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
