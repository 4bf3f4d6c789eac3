"""A Prefect of the tests' own: its home in a temporary folder, its server on a loopback port.

Import it before anything that imports Prefect, which reads its settings once.
"""

import atexit
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import flows.orchestrator.server  # noqa: F401 - it sets what Prefect reads when it is imported
from flows.orchestrator.lifeline import program
from tests.ports import free_ports

HOME = Path(tempfile.mkdtemp(prefix="raee-tests-prefect-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
PORT = free_ports(1)
URL = f"http://127.0.0.1:{PORT}/api"

os.environ["PREFECT_HOME"] = str(HOME)
os.environ["PREFECT_API_URL"] = URL
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"

_START_SECONDS = 120


@contextmanager
def server() -> Iterator[str]:
    """Within, a server answers at URL; its home is new, so it makes its database first."""
    # As commands start theirs: Prefect's own stands still for a minute while many builds begin.
    command = [*program("flows.orchestrator.sqlite_server"), "server", "start"]
    # Without the services in the background (schedules, automations): no test needs them, and they
    # keep the database busy.
    options = ["--no-ui", "--no-services", "--host", "127.0.0.1", "--port", str(PORT)]
    with (HOME / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(process)
            yield URL
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{URL}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError((HOME / "server.log").read_text(errors="replace"))
