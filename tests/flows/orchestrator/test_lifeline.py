"""What a command starts ends with it, whatever ends the command and whoever stands between."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.orchestrator.lifeline import lifeline, program
from tests.orchestration.site import until

_COMMAND = """
import subprocess, sys, time
from pathlib import Path
from flows.orchestrator.lifeline import lifeline
with lifeline(Path(sys.argv[3])):
    # A shell that knows nothing of it stands between, as a worker does.
    subprocess.Popen(["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", sys.argv[1]])
    time.sleep(float(sys.argv[2]))
"""

_STARTED = """
import signal, time
from flows.orchestrator.lifeline import end_with_command
signal.signal(signal.SIGTERM, signal.{handler})
end_with_command()
print("it runs", flush=True)
time.sleep(120)
"""


def _started(folder: Path, seconds: float = 120, handler: str = "SIG_DFL") -> subprocess.Popen[str]:
    """A command, once what it has started runs; both write to one pipe."""
    started = _STARTED.format(handler=handler)
    command = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, started, str(seconds), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "it runs\n"
    return command


def _all_end(command: subprocess.Popen[str]) -> None:
    """Within ten seconds nobody holds the pipe any more."""
    assert command.stdout is not None
    with command.stdout as output:
        os.set_blocking(output.fileno(), False)
        until(10, "all have ended", lambda: _at_end(output.fileno()))
    command.wait()


def _at_end(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """Where the lock lies; it is not left there."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_a_command_that_is_killed(folder, asked):
    command = _started(folder)
    command.send_signal(asked)
    _all_end(command)


def test_it_ends_with_a_command_that_ends_by_itself(folder):
    _all_end(_started(folder, seconds=1))


def test_what_does_not_end_when_it_is_asked_ends_all_the_same(folder):
    command = _started(folder, handler="SIG_IGN")
    command.kill()
    _all_end(command)


def test_what_begins_after_its_command_has_ended_ends_at_once(folder):
    program = (
        "from flows.orchestrator.lifeline import end_with_command; end_with_command(); input()"
    )
    environment = os.environ | {"RAEE_LIFELINE": str(folder / "gone")}
    begun = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, env=environment
    )
    assert begun.wait(timeout=10) == -signal.SIGTERM
    assert begun.stdin is not None
    begun.stdin.close()


def test_a_command_within_another_has_a_lifeline_of_its_own(folder, monkeypatch):
    monkeypatch.delenv("RAEE_LIFELINE", raising=False)
    with lifeline(folder):
        outer = os.environ["RAEE_LIFELINE"]
        with lifeline(folder):
            assert os.environ["RAEE_LIFELINE"] != outer
        assert os.environ["RAEE_LIFELINE"] == outer
        assert Path(outer).exists()
    assert "RAEE_LIFELINE" not in os.environ


@pytest.mark.parametrize("module", ["lifeline", "sqlite_server"])
def test_what_a_user_calls_like_our_packages_is_not_taken_for_them(tmp_path, module):
    """A data scientist's folder may well hold a `tasks.py`; a mistake in it is not ours."""
    for name in ("raee", "storage", "tasks"):
        (tmp_path / f"{name}.py").write_text(
            "raise SystemExit('the user has a module of this name')"
        )
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/__init__.py").write_text("raise SystemExit('a package of the user')")
    command = [*program(f"flows.orchestrator.{module}"), "version"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Version" in ran.stdout
