"""Processes that change an alias at once: python -m tests.storage.racers ACTION STORE IF VERSION..

One a version; each prints one line.  They are forked from one that has imported everything, and
before it has spoken to any store: sixteen interpreters would start for half a minute.
"""

import os
import sys

import s3fs  # noqa: F401 - so that no process has to

from raee.errors import InputError
from storage.store import Folder
from tests.storage.databases import demo

ANY = "any"
"""As IF: whatever the alias points at."""


def main(action: str, store: str, if_current: str, *versions: str) -> None:
    ready_in, ready_out = os.pipe()
    go_in, go_out = os.pipe()
    processes = []
    for version in versions:
        process = os.fork()
        if process == 0:
            os.close(go_out)
            try:
                Folder(store).exists("x")  # so that all are connected when they start
                os.write(ready_out, b".")
                os.read(go_in, 1)
                line = _change(action, store, version, None if if_current == ANY else if_current)
                os.write(sys.stdout.fileno(), f"{line}\n".encode())
            finally:
                os._exit(0)  # its one line is missing where it failed
        processes.append(process)
    os.close(ready_out)
    for _ in processes:
        os.read(ready_in, 1)
    os.close(go_out)
    for process in processes:
        os.waitpid(process, 0)


def _change(action: str, store: str, version: str, if_current: str | None) -> str:
    try:
        if action == "promote":
            record = demo(store).promote(version, if_current=if_current)
        else:
            record = demo(store).rollback(if_current=if_current)
    except InputError as error:
        return f"lost {error}"
    return f"won {record.version} {record.by}"


if __name__ == "__main__":
    main(*sys.argv[1:])
