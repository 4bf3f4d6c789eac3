"""A process that keeps its models from one flow run to the next, for process pools.

A process worker starts a process for each flow run, and each would import torch and load its model
anew.  With `python -P -m flows.orchestrator.resident` as the pool's command, the worker starts only
a courier: it hands the run to a resident process of this worker, waits for it, and ends with its
exit code.  If the courier ends (the worker cancels the run, the machine's owner kills it), the
resident ends as well, and the next run starts another.

Each resident holds a lock: as many runs at once, as many residents.  If CUDA_VISIBLE_DEVICES
names GPUs, there is one resident for each, and it sees no other: one GPU belongs to one process.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from flows.orchestrator.lifeline import end_with_command, program

IDLE_SECONDS = 600.0
"""How long a resident waits for its next run before it frees its memory."""

_GPUS = "CUDA_VISIBLE_DEVICES"
_OF_A_RUN = "PREFECT__"
"""Beginning of the names of variables that differ from run to run."""

_START_SECONDS = 120.0
_END_SECONDS = 5.0
"""Time that a resident has for its last log lines: if the server is gone, Prefect would look for it
for long."""

_LOOK_SECONDS = 1.0
_LENGTH = struct.Struct("!Q")
_CODE = struct.Struct("!i")
_OUTPUTS = (1, 2)
_STALE = -1
_FAILED = 1


def main() -> int:
    """Hand over the flow run that the environment names; returns its exit code."""
    folder = _folder(os.getppid())
    with _free_number(folder) as number:
        environment = _environment(number)
        while True:
            with _connected(folder, number, environment) as resident:
                code = _hand_over(resident, environment)
            if code != _STALE:
                return code


def _folder(worker: int) -> Path:
    """The folder in which a worker's residents listen."""
    folder = Path(tempfile.gettempdir()) / f"raee-{os.getuid()}-{worker}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        sys.exit(f"raee: {folder} belongs to another user")
    return folder


@contextmanager
def _free_number(folder: Path) -> Iterator[int]:
    """The number of the first resident that no other run has, locked within this context.

    With GPUs it is the number of one of them, and waited for if all are taken; otherwise there are
    as many as the worker starts runs.
    """
    gpus = _gpus()
    while True:
        for number in range(len(gpus)) if gpus else count():
            with (folder / f"{number}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield number
                return
        time.sleep(_LOOK_SECONDS)


def _gpus() -> list[str]:
    return [gpu for gpu in os.environ.get(_GPUS, "").split(",") if gpu.strip()]


def _environment(number: int) -> dict[str, str]:
    environment = dict(os.environ)
    if gpus := _gpus():
        environment[_GPUS] = gpus[number]
    return environment


def _connected(folder: Path, number: int, environment: dict[str, str]) -> socket.socket:
    """A connection to the resident with a number, which is started if there is none."""
    address = folder / f"{number}.socket"
    deadline = time.monotonic() + _START_SECONDS
    started: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(address))
        except OSError:
            connection.close()
        else:
            return connection
        if started is None or started.poll() is not None:
            address.unlink(missing_ok=True)
            command = [*program("flows.orchestrator.resident"), str(address), str(os.getppid())]
            started = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        time.sleep(0.02)
    sys.exit(f"raee: the resident process at {address} does not answer")


def _hand_over(resident: socket.socket, environment: dict[str, str]) -> int:
    """Give a resident a run, with this process's output, and wait for its exit code."""
    message = json.dumps({"environment": environment, "folder": os.getcwd()}).encode()
    try:
        socket.send_fds(resident, [_LENGTH.pack(len(message))], _OUTPUTS)
        resident.sendall(message)
        answer = resident.recv(_CODE.size)
    except OSError:
        return _FAILED
    return int(_CODE.unpack(answer)[0]) if answer else _FAILED


def serve(address: str, worker: int) -> None:
    """Run flow runs one after another, until the worker is gone or none comes for long."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(_OF_A_RUN)}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(1)
        listener.settimeout(_LOOK_SECONDS)
        idle_since = time.monotonic()
        while _lives(worker) and time.monotonic() - idle_since < IDLE_SECONDS:
            try:
                courier, _ = listener.accept()
            except TimeoutError:
                continue
            courier.settimeout(None)
            with courier:
                if not _serve_one(courier, own):
                    break
            idle_since = time.monotonic()
    Path(address).unlink(missing_ok=True)


def _serve_one(courier: socket.socket, own: dict[str, str]) -> bool:
    """Run the flow run that a courier brings; False if this process has another environment."""
    head, outputs, _, _ = socket.recv_fds(courier, _LENGTH.size, 2)
    message = b"".join(_pieces(courier, _LENGTH.unpack(head)[0]))
    asked: dict[str, Any] = json.loads(message)
    environment: dict[str, str] = asked["environment"]
    if {k: v for k, v in environment.items() if not k.startswith(_OF_A_RUN)} != own:
        courier.sendall(_CODE.pack(_STALE))
        return False
    for ours, theirs in zip(_OUTPUTS, outputs, strict=True):
        os.dup2(theirs, ours)
        os.close(theirs)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(asked["folder"])
    over = threading.Event()
    threading.Thread(target=_end_with, args=(courier, over), daemon=True).start()
    code = _run(UUID(environment["PREFECT__FLOW_RUN_ID"]))
    over.set()
    # The worker reads the run's output until nobody can write to it any more.
    with open(os.devnull, "wb") as nowhere:
        for ours in _OUTPUTS:
            os.dup2(nowhere.fileno(), ours)
    courier.sendall(_CODE.pack(code))
    return True


def _pieces(connection: socket.socket, length: int) -> Iterator[bytes]:
    while length:
        piece = connection.recv(min(length, 1 << 16))
        if not piece:
            return
        length -= len(piece)
        yield piece


def _end_with(courier: socket.socket, over: threading.Event) -> None:
    """End this process, whatever it is doing, when the run's courier has ended."""
    with suppress(OSError):
        courier.recv(1)
    if not over.is_set():
        os._exit(_FAILED)


def _run(flow_run_id: UUID) -> int:
    """Run a flow run as `python -m prefect.engine` does; returns the exit code."""
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow_and_flow_run, run_flow

    try:
        with handle_engine_signals(flow_run_id):
            flow_run, flow = load_flow_and_flow_run(flow_run_id)
            run_flow(flow, flow_run=flow_run)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _FAILED
    except BaseException:  # the engine has logged it and told the server
        return _FAILED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    end_with_command()
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]))
        end = threading.Timer(_END_SECONDS, os._exit, [0])
        end.daemon = True
        end.start()
    else:
        sys.exit(main())
