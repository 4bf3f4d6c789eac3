"""The orchestrator's server: the configured one, or a local one for as long as a command runs."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raee.errors import InputError

_START_SECONDS = 120.0
_DELIVERY_SECONDS = 10.0
_POLL_SECONDS = 0.05
_HOST = "127.0.0.1"

# Prefect reads these when it is first imported: its console lines are for operators of flows, not
# for users of a command; what this program logs reaches the server as logs of the run.
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "raee")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")


@contextmanager
def orchestrator() -> Iterator[Callable[[], None]]:
    """Within, flows have a server; yields a function that waits until it answers.

    Where no server is configured, a local one starts in a process of its own, while the caller
    imports what it needs, and stops at the end.  It records in Prefect's own database, so what ran
    is there to see when `prefect server start` opens the UI.  Prefect's built-in temporary server
    would do the same, but only starts when the first flow does, and costs three times as much.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        get_current_settings,
        temporary_settings,
    )

    if get_current_settings().api.url is not None:
        yield _ask_configured
        return
    port = _free_port()
    url = f"http://{_HOST}:{port}/api"
    server = _start(port)
    try:
        # Without heartbeats: the server ends with the command anyway, and each run would wait up
        # to a second for the last one.
        with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            try:
                yield lambda: _wait(server, url)
            finally:
                _deliver()
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _ask_configured() -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise InputError(
            f"the configured Prefect server {client.api_url} does not answer ({problem}); start it "
            "or unset PREFECT_API_URL"
        )


def _deliver() -> None:
    """Let what Prefect sends in the background arrive while there is a server to take it."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=_DELIVERY_SECONDS)
    APILogWorker.drain_all(timeout=_DELIVERY_SECONDS)


def _start(port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    return subprocess.Popen(
        [*command, "--host", _HOST, "--port", str(port), "--log-level", "CRITICAL"],
        env={"PREFECT_SERVER_ANALYTICS_ENABLED": "false", **os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the command, which then stops the server
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def _die_with_parent() -> None:
    """Ask the kernel to stop this process when its parent dies, however it dies."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_SECONDS)
    raise InputError(
        "the local Prefect server did not start; see what `prefect server start` says, or name a "
        "running server in PREFECT_API_URL"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])
