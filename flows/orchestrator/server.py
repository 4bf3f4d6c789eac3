"""The orchestrator's server: the configured one, or a local one for as long as a command runs."""

import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flows.orchestrator.lifeline import lifeline, program
from flows.orchestrator.proxies import pass_by_proxies
from raee.errors import InputError
from tasks.prefect_settings import home, read_settings, server_url

_START_SECONDS = 120.0
_DELIVERY_SECONDS = 10.0
_POLL_SECONDS = 0.05
_STOP_SECONDS = 30.0
QUICK_STOP_SECONDS = 3.0
"""Time that a process of `raee up` has to end once it was asked: all are gone within 10 s."""

_HOST = "127.0.0.1"
_LAST_LINES = 200
"""How many lines of a server's output are kept: a traceback and what follows it."""

_REASONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:\w+\.)*\w*(?:Error|Exception): (.*)",  # of a traceback
        r"ERROR: +(\[Errno .*)",  # what uvicorn says if it cannot listen
        r"(Port \d+ is already in use)",
    )
)
"""Lines of a server's output that say why it has ended."""

_TOO_LARGE = re.compile(r"must be less than (\S+) bytes when serialized \(got (\S+) bytes\)")
"""Prefect's message if a flow's parameters are too large."""

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Server:
    """A local server, and the last lines of its output."""

    url: str
    """The address of its API."""
    process: Process
    last_lines: deque[str]
    reader: threading.Thread
    """Reads the lines until the server has ended."""

    def end(self) -> str | None:
        """Why it has ended; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self.reader.join()
        # If a signal has ended it, its last lines do not say why.
        reason = _reason(self.last_lines) if code > 0 else None
        return reason or f"it has ended with code {code}"


SERVER_SETTINGS = {
    # How soon the runs that a cancelled flow has started are cancelled, too.
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "5",
    # How soon a new schedule fires.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "15",
}
"""Settings of a server that this program starts for others."""

_WITHOUT_BLOCKS = {
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    # Or it would write down, for the next server, that the kinds are registered.
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}
"""Settings of a command's own server: to register the kinds of blocks is a sixth of its start, and
only the UI needs that, of which a server of the user's then takes care."""

# Prefect reads these when it is first imported: its console lines are for operators of flows, not
# for users of a command; this program's own lines reach the server as logs of the run.
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "raee")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")


@contextmanager
def orchestrator() -> Iterator[Callable[[], None]]:
    """Within this context, flows have a server; yields a function that waits until it answers.

    If no server is configured, a local one starts in a process of its own, while the caller
    imports what it needs, and stops at the end.  It records in Prefect's own database, so `prefect
    server start` shows the runs in its UI later.  Prefect's built-in temporary server would do the
    same, but it only starts when the first flow does, and takes three times as long.

    Raises InputError if the server does not start, or a job is larger than the server takes.
    """
    read_settings()
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    if server_url() is not None:
        with _refusals_in_words():
            yield require_server
        return
    port = _free_port()
    options = ["--no-ui", "--log-level", "ERROR"]
    with _running(port, options, _WITHOUT_BLOCKS, _STOP_SECONDS) as server:
        # There are no heartbeats: the server ends with the command anyway, and each run would wait
        # up to a second for the last one.
        silent = {PREFECT_API_URL: server.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        with temporary_settings(silent):
            try:
                with _refusals_in_words():
                    yield lambda: _wait(server)
            finally:
                _deliver()


@contextmanager
def _refusals_in_words() -> Iterator[None]:
    """Within this context, InputError says it if a server finds a flow's parameters too large."""
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        yield
    except PrefectHTTPStatusError as error:
        sizes = _TOO_LARGE.search(str(error))
        if sizes is None:
            raise
        raise InputError(
            f"the job is {sizes[2]} bytes as JSON, and the Prefect server takes {sizes[1]}; let "
            "the corpus name the labels instead of the prompt, or set "
            "PREFECT_SERVER_API_MAX_PARAMETER_SIZE where the server runs"
        ) from error


@contextmanager
def local_server(port: int) -> Iterator[Server]:
    """Within this context, a server with its UI answers on a loopback port.

    Raises InputError if it does not start.
    """
    # The UI asks the API at this address, wherever a browser opens it.
    more = {"PREFECT_SERVER_UI_API_URL": _url(port), **SERVER_SETTINGS}
    with _running(port, ["--log-level", "WARNING"], more, QUICK_STOP_SECONDS) as server:
        _wait(server)
        yield server


def require_free(port: int) -> None:
    """Raises InputError if something listens on a loopback port already."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; name another") from error


@contextmanager
def _running(
    port: int, options: Sequence[str], more: dict[str, str], stop_seconds: float
) -> Iterator[Server]:
    """Within this context, a server runs in a process of its own."""
    command = [*program("flows.orchestrator.sqlite_server"), "server", "start"]
    pass_by_proxies()
    with lifeline(home()):
        process = subprocess.Popen(
            [*command, "--host", _HOST, "--port", str(port), *options],
            env={"PREFECT_SERVER_ANALYTICS_ENABLED": "false", **os.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the command, which then stops the server
        )
        # The output goes to no file: if the disk is full, the output is what says so.
        last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        reader = threading.Thread(target=_read_lines, args=(process, last_lines), daemon=True)
        reader.start()
        try:
            yield Server(_url(port), process, last_lines, reader)
        finally:
            stop([process], stop_seconds)
            reader.join()


def _read_lines(process: Process, last_lines: deque[str]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        last_lines.extend(line.decode(errors="replace") for line in output)


def stop(processes: Sequence[Process], seconds: float) -> None:
    """Ask processes to end, and end them by force if they have not after so many seconds."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def require_server() -> None:
    """Raises InputError if no server is configured, or the configured one does not answer."""
    read_settings()
    if server_url() is None:
        raise InputError(
            "no Prefect server is configured: set PREFECT_API_URL, or let `raee up` start one"
        )
    pass_by_proxies()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise InputError(
            f"the configured Prefect server {client.api_url} does not answer ({problem}); start it "
            "or unset PREFECT_API_URL"
        )


def _deliver() -> None:
    """Let Prefect's background messages arrive while there is a server to take them."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=_DELIVERY_SECONDS)
    APILogWorker.drain_all(timeout=_DELIVERY_SECONDS)


def _url(port: int) -> str:
    return f"http://{_HOST}:{port}/api"


def _wait(server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_SECONDS)
    why = server.end() or f"it does not answer after {_START_SECONDS:.0f} s"
    raise InputError(
        f"the local Prefect server did not start: {why} (its records: {_records()}); mend that, or "
        "name a running server in PREFECT_API_URL"
    )


def _reason(lines: Iterable[str]) -> str | None:
    """Why a server has ended, by its output."""
    found = [match[1] for line in lines for reason in _REASONS if (match := reason.match(line))]
    return found[-1] if found else None


def _records() -> str:
    """The address of a local server's database, without its password."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    address = "" if url is None else url.get_secret_value()
    return re.sub("(//[^:/@]*):[^@]*@", r"\1:***@", address)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])
