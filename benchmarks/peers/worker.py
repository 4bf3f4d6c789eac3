"""A peer's process: it is fitted once, and then classifies the test rows whenever it is told to.

`python -m benchmarks.peers.worker PEER DATA MODEL JOB KEPT` writes lines of JSON: one when it is
ready, and one with seconds and answers for each line that it reads.  What is timed is all of a
classification: tokenising, model and classifier.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.peers.machine import versions
from benchmarks.peers.rows import Made, Task, read_rows
from benchmarks.peers.table import PEERS


def main(name: str, data: str, model: str, job: str, kept: str) -> None:
    """Make the peer and do what it is told."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like
    peer, test = PEERS[name], read_rows(Path(data), "test")
    make = getattr(import_module(f"benchmarks.peers.{peer.module}"), peer.make)
    task = Task(read_rows(Path(data), "train"), test.texts, model, job, Path(kept))
    made: Made = make(task)
    ready = {"notes": made.notes, "versions": versions(*peer.packages)}
    print(json.dumps(ready), file=lines, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        found = made.answers(test.texts)
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "answers": found.tolist()}), file=lines, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
