"""A server, pools and workers of a test's own, as an operator has them; and what they are asked."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from flows.orchestrator.server import SERVER_SETTINGS
from tests.ports import free_ports

_START_SECONDS = 120
_BYTES = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

Found = TypeVar("Found")

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL that answers: its address for Prefect, and the folder of its tables."""

    url: str
    files: Path


def environment_in(root: Path) -> dict[str, str]:
    """Of a room's processes, which keep what they have in a folder."""
    return {
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # nothing starts a second server
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # the same sums in every process
        "PREFECT_WORKER_QUERY_SECONDS": "3",  # a look costs worker and server some 40 ms
        # What no test waits for; every five seconds, it is a fifth of what an idle server does.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "60",
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
        "RAEE_CACHE": str(root / "cache"),
    }


@dataclass
class Site:
    """One machine room: nothing in it is shared with another test's."""

    root: Path
    environment: dict[str, str]
    """Of every process: the object storage, and how the server is reached."""
    postgres: Postgres | None = None
    """What keeps the server's records; without, SQLite."""
    port: int = field(default_factory=lambda: free_ports(1))
    server: subprocess.Popen[bytes] | None = None
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_bytes(self) -> int:
        """What the server's records take."""
        if self.postgres is not None:
            files = [file for file in self.postgres.files.rglob("*") if file.is_file()]
            return sum(file.stat().st_size for file in files)
        with contextlib.closing(sqlite3.connect(self.root / "prefect" / "prefect.db")) as database:
            return database.execute(_BYTES).fetchone()[0]

    def start_server(self) -> None:
        """Start it and wait until it answers."""
        self.launch_server()
        self.wait_for_server()

    def launch_server(self) -> None:
        program = "flows.orchestrator.sqlite_server" if self.postgres is None else "prefect"
        command = [sys.executable, "-m", program, "server", "start", "--host", "127.0.0.1"]
        more = {
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            **SERVER_SETTINGS,
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        }
        if self.postgres is not None:
            more["PREFECT_API_DATABASE_CONNECTION_URL"] = self.postgres.url
            # Beyond five, it would connect anew for each transaction.
            more["PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE"] = "40"
        self.server = self._start("server", [*command, "--port", str(self.port)], more)

    def wait_for_server(self) -> None:
        assert self.server is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.server.poll() is None:
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.ask("GET", "health")
                return
            time.sleep(0.1)
        raise RuntimeError((self.root / "server.log").read_text(errors="replace")[-3000:])

    def stop_server(self) -> None:
        assert self.server is not None
        self.server.terminate()
        self.server.wait(timeout=60)

    def have_workers(self, pool: str, wanted: int) -> None:
        """Start as many as a pool lacks, end those it has beyond; each runs one flow at a time."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
        # What a worker starts is called `python`: it must be this one.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        names = [name for name in self.workers if name.startswith(pool)]
        for name in names[wanted:]:
            self.kill_worker(name)
        for _ in range(wanted - len(names)):
            name = f"{pool}-{next(self._numbers)}"
            own = ["--limit", "1", "--name", name]
            self.workers[name] = self._start(name, [*command, *own], {"PATH": path})

    def worker_of(self, run: str) -> str:
        """The worker whose process runs a flow run."""
        process = self.ask("GET", f"flow_runs/{run}")["infrastructure_pid"].split(":")[-1]
        stat = Path(f"/proc/{process}/stat").read_text()
        parent = int(stat[stat.rindex(")") :].split()[2])
        return next(name for name, worker in self.workers.items() if worker.pid == parent)

    def freeze_worker_of(self, run: str) -> str | None:
        """The worker of a flow run, stopped where it is; none if the run has ended by then."""
        try:
            name = self.worker_of(run)
        except FileNotFoundError:  # its process is gone
            return None
        self._signal(self.workers[name].pid, signal.SIGSTOP)
        time.sleep(1)  # what it has sent by then arrives
        if self.state(run)["type"] == "RUNNING":
            return name
        self._signal(self.workers[name].pid, signal.SIGCONT)
        return None

    def kill_worker(self, name: str) -> None:
        """A machine that loses its power: the worker and all that it has started."""
        worker = self.workers.pop(name)
        self._signal(worker.pid, signal.SIGKILL)
        worker.wait()

    def _signal(self, worker: int, what: signal.Signals) -> None:
        """Send a signal to a worker and to all that it has started."""
        os.killpg(worker, what)
        listening = f"/raee-{os.getuid()}-{worker}/"  # where its residents do
        for resident in processes("cmdline", listening):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(resident.name), what)

    def close(self) -> None:
        for name in list(self.workers):
            self.kill_worker(name)
        if self.server is not None and self.server.poll() is None:
            self.server.kill()
            self.server.wait()

    def _start(
        self, name: str, command: list[str], more: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **self.environment, **more},
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def give_way(self, niceness: int) -> None:
        """Let other rooms' processes go before this one's, and those that these will start."""
        for process in self.processes():
            with contextlib.suppress(OSError):  # it has ended
                for thread in (process / "task").iterdir():
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)

    def processes(self) -> list[Path]:
        """Folders below /proc of all processes of this room."""
        return processes("environ", f"PREFECT_HOME={self.environment['PREFECT_HOME']}\0")

    def raee(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A command, as an operator gives it."""
        return subprocess.run(
            [sys.executable, "-c", "from flows.cli.app import main; main()", *map(str, arguments)],
            env={**os.environ, **self.environment},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the server's API answers."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    said = answer.read()
                return json.loads(said) if said else None
            except urllib.error.HTTPError as error:
                if error.code != 503:  # its database was busy, and it says: come again
                    raise
            time.sleep(0.5)
        raise RuntimeError(f"the server stays busy: {path}")

    def deployment(self, name: str) -> dict[str, Any]:
        """By the name of its flow and its own."""
        return self.ask("GET", f"deployments/name/{name}")

    def run(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Start a flow run, as the UI does; returns its id."""
        id = self.deployment(deployment)["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.ask("POST", f"deployments/{id}/create_flow_run", body)["id"]

    def run_of_nobody(self, tags: Sequence[str], *states: str) -> str:
        """A run that only the server knows, taken from state to state; returns its id."""
        flow = self.ask("POST", "flows/", {"name": "nobody"})["id"]
        run = self.ask("POST", "flow_runs/", {"flow_id": flow, "tags": tags})["id"]
        for state in states:
            body = {"state": {"type": state}, "force": True}
            self.ask("POST", f"flow_runs/{run}/set_state", body)
        return run

    def state(self, run: str) -> dict[str, Any]:
        return self.ask("GET", f"flow_runs/{run}")["state"]

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Flow runs, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            body = {"flow_runs": filters, "sort": "EXPECTED_START_TIME_ASC"}
            page = self.ask(
                "POST", "flow_runs/filter", {**body, "limit": 200, "offset": len(found)}
            )
            found += page
            if len(page) < 200:
                return found

    def ended(self, run: str, seconds: float = 180) -> dict[str, Any]:
        """The state in which a run ends."""
        return until(seconds, f"run {run} ends", lambda: _ended(self.state(run)))

    def completed(self, run: str, seconds: float = 180) -> None:
        state = self.ended(run, seconds)
        assert state["type"] == "COMPLETED", (state, self.logs(run))

    def logs(self, run: str) -> list[str]:
        """What a run has logged, oldest first."""
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        return [line["message"] for line in self.ask("POST", "logs/filter", body)]

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """The history under a key, oldest first."""
        body = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        return self.ask("POST", "artifacts/filter", body)[::-1]


def _ended(state: dict[str, Any]) -> dict[str, Any] | None:
    return state if state["type"] in TERMINAL else None


def until(seconds: float, what: str, look: Callable[[], Found | None]) -> Found:
    """What `look` finds, once it finds something that is true."""
    begun = time.monotonic()
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if found := look():
                return found
        waited = time.monotonic() - begun
        assert waited < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(min(0.5 + waited / 20, 2))  # a look costs the server some 15 ms


def processes(file: str, mark: str) -> list[Path]:
    """Folders below /proc of the processes in one of whose files a mark stands."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in (process / file).read_bytes():
                found.append(process)
    return found


def why_no_postgres() -> str | None:
    """Why PostgreSQL cannot be started here; None where it can."""
    if not _POSTGRES:
        return "no PostgreSQL here; `make services` installs it"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Within, a PostgreSQL of our own answers."""
    port = free_ports(1)
    # Not below pytest's folders, which are for one user alone: it refuses root.
    data = Path(tempfile.mkdtemp(prefix="raee-tests-postgres-"))
    user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(data, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    programs = _POSTGRES[-1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -c jit=off -k {data}"
    control = [*user, str(programs / "pg_ctl"), "-D", str(data), "-w"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": data}
    initdb = [*user, str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "raee"]
    subprocess.run(initdb, check=True, **quiet)
    log = str(data / "server.log")
    subprocess.run([*control, "-o", options, "-l", log, "start"], check=True, **quiet)
    try:
        yield Postgres(f"postgresql+asyncpg://raee@127.0.0.1:{port}/postgres", data / "base")
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)
        shutil.rmtree(data)
