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

from flows.deployments import CPU, GPU, Schedule, deploy
from flows.server import QUICK_STOP_SECONDS, Process, local_server, require_free, stop
from raee.errors import InputError
from tasks.job import Job

_CPU_RUNS = 4
"""Flows at once that plan, publish and watch others."""

_WATCH_SECONDS = 1.0


def run(port: int, jobs: Sequence[Job], schedule: Schedule | None) -> None:
    """Until Ctrl-C or SIGTERM.

    Raises InputError where the port is taken, or a process ends by itself.
    """
    require_free(port)
    console = Console(stderr=True, highlight=False)
    with _asked_to_end(), ExitStack() as stack:
        console.print("starting a Prefect server, two pools and a worker for each ..")
        url = stack.enter_context(local_server(port))
        with temporary_settings({PREFECT_API_URL: url}):
            names = deploy("process", None, jobs, schedule)
        workers: dict[str, Process] = {}
        stack.callback(lambda: stop(list(workers.values()), QUICK_STOP_SECONDS))
        for pool, runs in ((CPU, _CPU_RUNS), (GPU, max(1, _gpus()))):
            workers[f"worker of the pool {pool}"] = _start_worker(url, pool, runs)
        console.print(
            f"\nUI          {url.removesuffix('/api')}"
            f"\nregistered  {', '.join(names)}"
            f"\nelsewhere   export PREFECT_API_URL={url}"
            "\nstop        Ctrl-C: server and workers end; what was under way goes on next time\n"
        )
        with suppress(KeyboardInterrupt):
            _watch(workers)
        console.print("stopping ..")


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """Within, SIGTERM and a terminal that goes away are what Ctrl-C is."""
    # Under `nohup` a terminal may go.
    asked = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, signal.default_int_handler) for s in asked}
    try:
        yield
    finally:
        for asking, handler in before.items():
            signal.signal(asking, handler)


def _start_worker(url: str, pool: str, runs: int) -> Process:
    command = [sys.executable, "-m", "flows.lifeline", "worker", "start"]
    # What a worker starts is called `python`: it must be this one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.Popen(
        [*command, "--pool", pool, "--limit", str(runs), "--name", f"{pool}-{os.getpid()}"],
        env={**os.environ, "PREFECT_API_URL": url, "PATH": path},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this command, which then stops the worker
    )


def _watch(processes: dict[str, Process]) -> None:
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise InputError(f"the {name} has ended with code {process.returncode}")
        time.sleep(_WATCH_SECONDS)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
