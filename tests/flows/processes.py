"""Commands in processes of their own that begin with everything imported.

They take tenths of a second to start, not ten seconds: what a command imports on its way is there,
too.  Nothing here may import the tests' own Prefect server, which would be another one there.
"""

import contextlib
import io
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SECONDS = 240

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "tests.flows.processes",
        "flows.cli.app",
        "flows.rebuild_database",
        "flows.classify_corpus",
        "s3fs",
        "transformers.models.bert.modeling_bert",
        "scipy.stats",
        "tasks.report.charts",
        "fastapi.encoders",
    ]
)


@dataclass(frozen=True)
class Command:
    """A command under way."""

    process: Any
    said: Path
    """Where it writes what it says, when it ends."""

    def end(self) -> str:
        """What it printed, when it has ended well."""
        self.process.join(timeout=_SECONDS)
        said = self.said.read_text() if self.said.exists() else "it did not end"
        assert self.process.exitcode == 0, said
        return said.partition("\n---\n")[0].strip()

    def kill(self) -> None:
        """End it with -9."""
        self.process.kill()
        self.process.join()


def start(said: Path, environment: Mapping[str, str], *arguments: object) -> Command:
    """Start a command in an environment."""
    process = _processes.Process(
        target=_run,
        args=([str(a) for a in arguments], dict(environment), str(said)),
        daemon=True,
    )
    process.start()
    return Command(process, said)


def _run(arguments: list[str], environment: dict[str, str], said: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    import faiss
    import torch

    from flows.cli.app import app, run

    # Tiny models: more threads than one only wait for each other if several commands run.
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(app, arguments)
    Path(said).write_text(f"{out.getvalue()}\n---\n{err.getvalue()}")
    # Not by way of Python's end: Prefect would wait for the last of its logs.
    os._exit(code)
