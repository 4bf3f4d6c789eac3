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
"""What a process of `raee up` has to end once it was asked: all of them are gone within ten."""

_HOST = "127.0.0.1"
_LAST_LINES = 200
"""Of a server's output that are kept: a traceback and what follows it."""

_REASONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:\w+\.)*\w*(?:Error|Exception): (.*)",  # of a traceback
        r"ERROR: +(\[Errno .*)",  # what uvicorn says where it cannot listen
        r"(Port \d+ is already in use)",
    )
)
"""Lines of a server's output that say why it has ended."""

_TOO_LARGE = re.compile(r"must be less than (\S+) bytes when serialized \(got (\S+) bytes\)")
"""What Prefect says of parameters."""

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Server:
    """A local server, and the last lines of what it says."""

    url: str
    """Of its API."""
    process: Process
    said: deque[str]
    reader: threading.Thread
    """Reads them until the server has ended."""

    def end(self) -> str | None:
        """Why it has ended; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self.reader.join()
        # Where a signal has ended it, what it said before is not why.
        reason = _reason(self.said) if code > 0 else None
        return reason or f"it has ended with code {code}"


SERVER_SETTINGS = {
    # How soon what a cancelled flow has started is cancelled, too.
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "5",
    # How soon a schedule that was just made fires.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "15",
}
"""Of a server that this program starts for others."""

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

    Raises InputError where a job is larger than what the server takes.
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
    with _running(port, ["--no-ui", "--log-level", "ERROR"], {}, _STOP_SECONDS) as server:
        # Without heartbeats: the server ends with the command anyway, and each run would wait up
        # to a second for the last one.
        silent = {PREFECT_API_URL: server.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        with temporary_settings(silent):
            try:
                with _refusals_in_words():
                    yield lambda: _wait(server)
            finally:
                _deliver()


@contextmanager
def _refusals_in_words() -> Iterator[None]:
    """Within, a server that finds a flow's parameters too large says so in a line."""
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
    """Within, a server with its UI answers on a loopback port.

    Raises InputError where it does not start.
    """
    # The UI asks the API at the address that it is told here, wherever a browser opens it.
    more = {"PREFECT_SERVER_UI_API_URL": _url(port), **SERVER_SETTINGS}
    with _running(port, ["--log-level", "WARNING"], more, QUICK_STOP_SECONDS) as server:
        _wait(server)
        yield server


def require_free(port: int) -> None:
    """Raises InputError where something listens on a loopback port already."""
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
    """Within, a server runs in a process of its own."""
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
        # Not to a file: where the disk is full, it is this that has to be told.
        said: deque[str] = deque(maxlen=_LAST_LINES)
        reader = threading.Thread(target=_read_lines, args=(process, said), daemon=True)
        reader.start()
        try:
            yield Server(_url(port), process, said, reader)
        finally:
            stop([process], stop_seconds)
            reader.join()


def _read_lines(process: Process, said: deque[str]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        said.extend(line.decode(errors="replace") for line in output)


def stop(processes: Sequence[Process], seconds: float) -> None:
    """Have processes end, by force where they have not within so long after they were asked."""
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
    """Raises InputError where no server is configured, or the one that is does not answer."""
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
    """Let what Prefect sends in the background arrive while there is a server to take it."""
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
