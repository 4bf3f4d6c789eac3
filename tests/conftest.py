"""What all tests share: no network, one thread, the same examples in every run, shared data."""

import atexit
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import certifi
import hypothesis
import pytest

from storage.store import Folder
from tests import s3

# Before torch and transformers are imported.  A test never depends on what a hub answers; and
# threads that wait for each other on busy cores make a tiny model ten times slower than one does.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The tests start hundreds of processes, each of which would compile our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Prefect reads all authorities anew for each flow run, also for a server without TLS: with one of
# them, that is a hundredth of the work.
if "PREFECT_API_SSL_CERT_FILE" not in os.environ:
    _descriptor, _authority = tempfile.mkstemp(prefix="raee-tests-authority-")
    atexit.register(os.unlink, _authority)
    _first, _end, _ = Path(certifi.where()).read_bytes().partition(b"-----END CERTIFICATE-----\n")
    with open(_descriptor, "wb") as _file:
        _file.write(_first + _end)
    os.environ["PREFECT_API_SSL_CERT_FILE"] = _authority

hypothesis.settings.register_profile("same-every-run", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same-every-run")

SHARED = Path(
    os.environ.get("RAEE_SHARED", Path(__file__).resolve().parents[2] / "shared")
).resolve()


_ORCHESTRATION = "tests/orchestration/"
_ROOMS = {"[sqlite]": "room on SQLite", "[postgresql]": "room on PostgreSQL"}
"""By the ends of the names of the tests that are in them."""


def pytest_addoption(parser) -> None:
    parser.addoption("--screenshot", help="Where the orchestrator's page of versions is drawn.")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A machine room stays with one of several processes; other files go to them one by one."""
    from xdist.scheduler import LoadFileScheduling

    class Rooms(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _room(nodeid) or super()._split_scope(nodeid)

    return Rooms(config, log)


def _room(nodeid: str) -> str | None:
    if not nodeid.startswith(_ORCHESTRATION):
        return None
    return next((room for end, room in _ROOMS.items() if nodeid.endswith(end)), None)


def pytest_collection_modifyitems(items) -> None:
    """The machine rooms come first: they wait more than they work, and each while others work."""
    rooms = {room: [i for i in items if _room(i.nodeid) == room] for room in _ROOMS.values()}
    first, second = rooms.values()
    others = [i for i in items if _room(i.nodeid) is None]
    others.sort(key=lambda i: not i.nodeid.startswith(_ORCHESTRATION))
    items[:] = [*first, *reversed(second), *others]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data, prompts and models beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}; RAEE_SHARED may name it")
    return SHARED


@pytest.fixture(scope="session")
def moto(tmp_path_factory) -> Iterator[s3.Server]:
    with s3.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory) -> Iterator[s3.Server]:
    missing = s3.why_no_ceph()
    if missing is not None:
        pytest.skip(missing)
    own = tmp_path_factory.getbasetemp()
    of_all_processes = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with s3.ceph(of_all_processes / "ceph") as server:
        yield server


@pytest.fixture
def store_on(request, tmp_path, monkeypatch) -> Iterator[Callable[[str], str]]:
    """Makes an empty store: `local`, `memory`, or on an S3 server, `moto` or `ceph`.

    From then on the environment names that server and its credentials, for this process and for
    those that it starts.  The store goes when the test ends.
    """
    made: list[tuple[str, dict[str, str]]] = []

    def make(kind: str) -> str:
        if kind == "local":
            return str(tmp_path / "store")
        environment: dict[str, str] = {}
        if kind == "memory":
            uri = f"memory://{uuid.uuid4().hex}"
        else:
            environment = dict(request.getfixturevalue(kind).environment)
            uri = f"s3://{s3.BUCKET}/{uuid.uuid4().hex}"
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            s3.notice_environment()
        made.append((uri, environment))
        return uri

    yield make
    for uri, environment in made:
        with patch.dict(os.environ, environment):
            if environment:
                s3.notice_environment()
            Folder(uri).remove()
