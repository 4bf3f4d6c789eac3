import fcntl
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from flows.orchestrator.server import local_server
from raee.errors import InputError
from tests.flows.jobs import ask_server, flow_runs, flow_states, raee, start_raee
from tests.orchestration.site import until
from tests.ports import free_ports


def _no_server():
    """The environment of a user who has configured no server."""
    return {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_without_a_server_a_command_brings_its_own_and_leaves_a_record(place):
    """What ran is in Prefect's database, which the tests' own server has, too."""
    command = start_raee("build", place.job(name="alone"), env=_no_server())
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert place.version(out.strip(), "alone").is_dir()
    lines = err.splitlines()
    assert [line for line in lines if line[2:3] + line[5:6] != "::"] == [], "the server's noise"
    assert flow_states("rebuild-database", "alone") == ["COMPLETED"]
    (run,) = flow_runs("rebuild-database", "alone")
    logs = ask_server("logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert any("sweep: 40 rows in" in log["message"] for log in logs)
    key = {"artifacts": {"key": {"any_": ["raee-alone-versions"]}}}
    assert len(ask_server("artifacts/filter", key)) == 1


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("without", ["", "example.com"])
def test_no_proxy_is_asked_for_a_server_on_this_machine(place, configured, without):
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy"), f"http://127.0.0.1:{free_ports(1)}")
    env = dict(os.environ) if configured else _no_server()
    command = start_raee("build", place.job(), env=env | proxies | {"NO_PROXY": without})
    _, err = command.communicate(timeout=150)
    assert command.returncode == 0, err


@pytest.mark.parametrize("configured", [False, True])
def test_a_proxy_that_cannot_be_asked_is_one_line(place, configured):
    env = dict(os.environ) if configured else _no_server()
    command = start_raee("build", place.job(), env=env | {"ALL_PROXY": "ftp://127.0.0.1:9"})
    _, err = command.communicate(timeout=60)
    assert command.returncode == 2
    assert err.startswith("raee: ALL_PROXY in the environment cannot be used: Unknown scheme")
    assert err.count("\n") == 1


def test_a_commands_own_server_dies_with_it_even_when_it_is_killed(place):
    command = start_raee("build", place.job(name="killed"), env=_no_server())
    try:
        while not (children := _children(command.pid)):
            assert command.poll() is None
            time.sleep(0.01)
        command.send_signal(signal.SIGKILL)
        command.communicate(timeout=60)
    finally:
        command.kill()
    (server,) = children
    deadline = time.monotonic() + 30
    while _is_alive(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(server)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_configured_server_that_does_not_answer_is_one_line(place):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    job = place.job()
    url = f"http://127.0.0.1:{free_ports(1)}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        answer = raee("build", job)
    assert answer.code == 2
    assert f"the configured Prefect server {url}" in answer.error
    assert "start it or unset PREFECT_API_URL" in answer.error
    assert not place.store.exists()


_COMMAND = """
import sys
from flows.cli.app import run

def command(arguments, standalone_mode):
    from flows.orchestrator.server import orchestrator
    with orchestrator() as wait:
        wait()
    return 0

sys.exit(run(command, []))
"""


def _start(home, preexec=None, **more):
    """A command of which there is only its server, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND],
        env=_no_server() | {"PREFECT_HOME": str(home), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=preexec,
    )


def _says(command):
    out, _ = command.communicate(timeout=120)
    return command.returncode, out


def test_first_commands_that_begin_at_once_all_get_a_server(tmp_path):
    commands = [_start(tmp_path / "new" / "home") for _ in range(3)]
    assert [_says(command) for command in commands] == [(0, "")] * 3


def test_a_server_makes_no_tables_while_another_does(tmp_path):
    with (tmp_path / "raee-server.lock").open("w") as another:
        fcntl.flock(another, fcntl.LOCK_EX)
        command = _start(tmp_path)
        until(60, "it waits", lambda: _has_open(command, "raee-server.lock"))
        time.sleep(0.5)
        assert not (tmp_path / "prefect.db").exists()
    assert _says(command) == (0, "")
    assert (tmp_path / "prefect.db").exists()


def _has_open(command, name):
    """Whether a command's server has a file open."""
    assert command.poll() is None
    for server in _children(command.pid):
        for file in Path(f"/proc/{server}/fd").iterdir():
            with suppress(OSError):  # it was closed meanwhile
                if file.readlink().name == name:
                    return True
    return False


def test_kinds_of_blocks_are_left_to_a_server_with_a_ui(tmp_path, monkeypatch):
    assert _says(_start(tmp_path)) == (0, "")
    assert _kinds_of_blocks(tmp_path) == 0
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with local_server(free_ports(1)):
        assert _kinds_of_blocks(tmp_path) > 0


def _kinds_of_blocks(home):
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return database.execute("SELECT count(*) FROM block_type").fetchone()[0]


def _broken_database(home):
    (home / "prefect.db").write_bytes(bytes(range(256)) * 64)
    return {}


def _no_room(home):
    return {"preexec": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))}


def _no_postgres(home):
    address = f"postgresql+asyncpg://raee:secret@127.0.0.1:{free_ports(1)}/raee"
    return {"PREFECT_API_DATABASE_CONNECTION_URL": address}


@pytest.mark.parametrize(
    ("spoil", "why", "where"),
    [
        (_broken_database, "file is not a database", "{home}/prefect.db"),
        (_no_room, "disk I/O error", "{home}/prefect.db"),
        (_no_postgres, "Connection refused", "postgresql+asyncpg://raee:***@127.0.0.1:"),
    ],
)
def test_a_local_server_that_does_not_start_says_why(tmp_path, spoil, why, where):
    code, said = _says(_start(tmp_path, **spoil(tmp_path)))
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith("raee: the local Prefect server did not start: ")
    assert why in line
    assert where.format(home=tmp_path) in line


@pytest.mark.parametrize(
    ("name", "why"), [("file", "File exists"), ("file/home", "Not a directory")]
)
def test_a_home_that_can_be_none_is_one_line(tmp_path, name, why):
    (tmp_path / "file").write_text("")
    code, said = _says(_start(tmp_path / name))
    assert code == 2
    assert said.startswith(f"raee: PREFECT_HOME {tmp_path / name}: {why}; a local Prefect server ")
    assert said.count("\n") == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_home_that_may_not_be_written_to_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    code, said = _says(_start(tmp_path))
    assert code == 2
    assert said.startswith(f"raee: PREFECT_HOME {tmp_path}: Permission denied; a local Prefect ")
    assert said.count("\n") == 1


def test_a_server_whose_port_is_taken_says_so():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"did not start: Port {port} is already in use"),
            local_server(port),
        ):
            pass


def test_a_server_that_is_ended_while_it_starts_is_told(tmp_path):
    command = _start(tmp_path)
    while not (children := _children(command.pid)):
        assert command.poll() is None
        time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    code, said = _says(command)
    assert code == 2
    assert "did not start: it has ended with code -9" in said


def test_an_empty_address_of_a_server_is_none(tmp_path):
    assert _says(_start(tmp_path, PREFECT_API_URL=" ")) == (0, "")
    assert (tmp_path / "prefect.db").exists()
    profile = '[profiles.mine]\nPREFECT_API_URL = ""\n'
    (tmp_path / "profiles.toml").write_text(profile)
    assert _says(_start(tmp_path, PREFECT_PROFILE="mine")) == (0, "")
