import os
import signal
import subprocess
import sys
import time
from functools import partial

from flows.server import die_with
from tests.flows.jobs import ask_server, flow_runs, flow_states, raee, start_raee
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


def test_a_process_whose_parent_was_killed_before_it_could_ask_ends_at_once():
    another = os.getppid()  # than this process, as the parent of an orphan is
    child = subprocess.run(
        [sys.executable, "-c", "print('it runs')"],
        stdout=subprocess.PIPE,
        preexec_fn=partial(die_with, another),
        check=False,
    )
    assert (child.returncode, child.stdout) == (1, b"")


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
