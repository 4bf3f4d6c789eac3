"""Object storage for the tests, on loopback: moto's server, and the gateway of a Ceph of our own.

Moto answers every request and checks no signature.  Ceph's gateway is the real thing: signatures,
conditional writes and multipart uploads as servers in use have them.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.ports import free_ports

BUCKET = "tests"

_START_SECONDS = 120

# Moto looks whether an object is there and then writes it: one request at a time, or two
# conditional writes of a name would both go through.
_MOTO = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app))
"""

_noticed: dict[str, str] = {}
"""The environment that fsspec's connections were made in."""

_CEPH_PROGRAMS = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool")


@dataclass(frozen=True)
class Server:
    """An S3 server, and who may use it."""

    url: str
    key: str = "test"
    secret: str = "testsecret"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment to speak to it, and to no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """Within, moto's server answers; its log is in the folder."""
    port = free_ports(1)
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _MOTO, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(port, folder / "moto.log")
            yield _with_bucket(Server(f"http://127.0.0.1:{port}"))
        finally:
            process.terminate()
            process.wait(timeout=30)


def why_no_ceph() -> str | None:
    """Why Ceph's gateway cannot be started here; None where it can."""
    missing = [program for program in _CEPH_PROGRAMS if shutil.which(program) is None]
    return f"no {', '.join(missing)} here; `make services` installs them" if missing else None


@contextmanager
def ceph(folder: Path) -> Iterator[Server]:
    """Within, the gateway of a Ceph answers: one for all processes that name the folder.

    The first of them starts it, in the folder, and the last stops it.
    """
    folder.mkdir(exist_ok=True)
    port = folder / "port"
    with (folder / "change").open("w") as change, (folder / "users").open("w") as users:
        with _locked(change):
            if not port.exists():
                port.write_text(str(_start_ceph(folder)))
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield Server(f"http://127.0.0.1:{port.read_text()}")
        finally:
            with _locked(change), contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop_ceph(folder / port.read_text())
                port.unlink()


@contextmanager
def _locked(file: IO[str]) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _start_ceph(below: Path) -> int:
    """Start a new Ceph with a bucket; returns its gateway's port, by which its folder is named."""
    port = free_ports(2)
    folder = below / str(port)
    folder.mkdir()
    script = Path(__file__).with_name("ceph_s3.sh")
    log = folder / "start.log"
    try:
        with log.open("wb") as output:
            started = subprocess.run(
                ["bash", str(script), str(folder), str(port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_START_SECONDS,
            )
        if started.returncode:
            raise RuntimeError(f"Ceph did not start: {log.read_text(errors='replace')}")
        _wait(port, folder / "log/client.rgw.log")
        _with_bucket(Server(f"http://127.0.0.1:{port}"))
    except BaseException:
        _stop_ceph(folder)
        raise
    return port


def _stop_ceph(folder: Path) -> None:
    for file in (folder / "run").glob("*.pid"):
        _stop(int(file.read_text()))
    shutil.rmtree(folder, ignore_errors=True)


def notice_environment() -> None:
    """Speak to the server, and as the user, that the environment names now.

    fsspec keeps a connection by its arguments alone, and these are not among them.
    """
    import s3fs  # not before a test needs it: most tests do not

    now = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    if now != _noticed:
        s3fs.S3FileSystem.clear_instance_cache()
        _noticed.clear()
        _noticed.update(now)


def _with_bucket(server: Server) -> Server:
    import s3fs

    fs = s3fs.S3FileSystem(
        endpoint_url=server.url, key=server.key, secret=server.secret, skip_instance_cache=True
    )
    fs.mkdir(BUCKET)
    return server


def _wait(port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.05)
    raise RuntimeError(log.read_text(errors="replace"))


def _stop(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        # It holds nothing that is wanted: the folder goes with it.
        os.kill(process, signal.SIGKILL)
