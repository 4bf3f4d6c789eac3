"""A local server, both pools and a worker for each: all that a night needs, on one machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows.orchestrator.deployments import CPU, GPU, Schedule, deploy
from flows.orchestrator.lifeline import program
from flows.orchestrator.server import (
    QUICK_STOP_SECONDS,
    Process,
    Server,
    local_server,
    require_free,
    stop,
)
from raee.errors import InputError
from tasks.job import Job

_CPU_RUNS = 4
"""How many flows run at once that plan, publish and watch others."""

_WATCH_SECONDS = 1.0


def run(port: int, prefix: str, jobs: Sequence[Job], schedule: Schedule | None) -> None:
    """Run a server, both pools and their workers until Ctrl-C or SIGTERM.

    prefix: of the pools' names.  jobs, schedule: databases that are rebuilt, and when.  Raises
    InputError if the port is taken, or a process ends by itself.
    """
    require_free(port)
    console = Console(stderr=True, highlight=False)
    with _asked_to_end(), ExitStack() as stack:
        console.print("starting a Prefect server, two pools and a worker for each ..")
        server = stack.enter_context(local_server(port))
        stack.enter_context(_reports_its_end(server))
        with temporary_settings({PREFECT_API_URL: server.url}):
            names = deploy("process", None, prefix, jobs, schedule)
        workers: dict[str, Process] = {}
        stack.callback(lambda: stop(list(workers.values()), QUICK_STOP_SECONDS))
        for pool, runs in ((CPU, _CPU_RUNS), (GPU, max(1, _gpus()))):
            name = prefix + pool
            workers[f"worker of the pool {name}"] = _start_worker(server.url, name, runs)
        console.print(
            f"\nUI          {server.url.removesuffix('/api')}"
            f"\nregistered  {', '.join(names)}"
            f"\nelsewhere   export PREFECT_API_URL={server.url}"
            "\nstop        Ctrl-C: server and workers end; what was under way goes on next time\n"
        )
        with suppress(KeyboardInterrupt):
            _watch(server, workers)
        console.print("stopping ..")


@contextmanager
def _reports_its_end(server: Server) -> Iterator[None]:
    """Within this context, an error because the server has ended becomes an InputError with why."""
    try:
        yield
    except Exception as error:
        _require_running(server, error)
        raise


def _require_running(server: Server, error: Exception | None = None) -> None:
    """Raises InputError if the server has ended.  error: what showed it."""
    why = server.end()
    if why is not None:
        raise InputError(
            f"the local Prefect server is gone: {why}; `raee up` starts another, and what was "
            "under way goes on"
        ) from error


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """Within this context, SIGTERM and a closing terminal act like Ctrl-C."""
    # Under `nohup` a terminal may close.
    asked = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, signal.default_int_handler) for s in asked}
    try:
        yield
    finally:
        for asking, handler in before.items():
            signal.signal(asking, handler)


def _start_worker(url: str, pool: str, runs: int) -> Process:
    command = [*program("flows.orchestrator.lifeline"), "worker", "start"]
    # A worker starts `python`: it must be this one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.Popen(
        [*command, "--pool", pool, "--limit", str(runs), "--name", f"{pool}-{os.getpid()}"],
        env={**os.environ, "PREFECT_API_URL": url, "PATH": path},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this command, which then stops the worker
    )


def _watch(server: Server, workers: dict[str, Process]) -> None:
    while True:
        _require_running(server)
        for name, process in workers.items():
            if process.poll() is not None:
                raise InputError(f"the {name} has ended with code {process.returncode}")
        time.sleep(_WATCH_SECONDS)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
