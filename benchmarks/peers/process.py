"""The driver's end of a peer's process."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.table import PEERS, ROOT, THREADS

_THREADS_OF = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""What libraries read that would otherwise take all cores of a larger machine."""


class Turn(NamedTuple):
    """What a peer did when it was told to."""

    seconds: float
    answers: NDArray[np.int64]
    """(rows,) labels as the data set has them."""


@dataclass(frozen=True)
class Process:
    """A peer that is up."""

    name: str
    process: subprocess.Popen[str]
    errors: IO[str]
    """What it says beside its answers."""

    def go(self) -> Turn:
        """Have it classify all test rows."""
        assert self.process.stdin is not None, "it is a pipe"
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found = self.answer()
        return Turn(found["seconds"], np.array(found["answers"]))

    def answer(self) -> dict[str, Any]:
        """What it says next; if it has ended, the command ends, with one line."""
        assert self.process.stdout is not None, "it is a pipe"
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines() or ["it ended without a word"]
            sys.exit(f"peers: {self.name}: {said[-1]}")
        return json.loads(line)


@contextmanager
def running(
    name: str, data: Path, job: Path, kept: Path
) -> Iterator[tuple[Process, dict[str, Any]]]:
    """A peer that is fitted on a data set, with its notes and the versions of what it runs on.

    It ends when the block does.
    """
    threads = dict.fromkeys(_THREADS_OF, str(THREADS)) | {"TOKENIZERS_PARALLELISM": "true"}
    arguments = [name, data, os.environ["RAEE_MINILM"], job, kept]
    command = [PEERS[name].python, "-m", "benchmarks.peers.worker", *map(str, arguments)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=errors,
            cwd=ROOT,
            env=os.environ | threads,
            text=True,
        ) as started,
    ):
        process = Process(name, started, errors)
        yield process, process.answer()
