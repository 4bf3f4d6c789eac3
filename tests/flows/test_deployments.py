"""prefect.yaml, and what the commands that register it refuse."""

from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from flows.crashes import MOST_RUNS, automations, check_run_count
from flows.deployments import GPU, Schedule, _make_pool, definition
from raee.errors import InputError
from tasks.job import Job, load_job
from tests.flows.jobs import raee
from tests.ports import free_ports


def test_each_job_gets_a_rebuild_of_its_own_and_nothing_else_changes(place):
    job = load_job(place.job())
    plain = definition([], None)
    found = definition([job], Schedule("0 2 * * *", "Europe/Berlin"))
    assert found["deployments"][: len(plain["deployments"])] == plain["deployments"]
    (own,) = found["deployments"][len(plain["deployments"]) :]
    assert own["name"] == "demo"
    assert own["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    said = yaml.safe_load(Path(place.job()).read_text())
    labels = said["prompt"]["labels"]
    assert own["parameters"]["job"]["prompt"]["labels"] == [{k: v} for k, v in labels.items()]
    assert Job.model_validate(own["parameters"]["job"]) == job
    assert list(Job.model_validate(own["parameters"]["job"]).prompt.labels) == list(labels)
    (schedule,) = own["schedules"]
    assert (schedule["cron"], schedule["timezone"], schedule["active"]) == (
        "0 2 * * *",
        "Europe/Berlin",
        True,
    )


def test_a_job_without_a_schedule_is_registered_and_fires_never(place):
    own = definition([load_job(place.job())], None)["deployments"][-1]
    assert "schedules" not in own


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--pool-type", "slurm"], "--pool-type slurm: it is process, docker or kubernetes"),
        (["--pool-type", "docker"], "--image is what docker and kubernetes pools need"),
        (["--image", "raee:1"], "--image is what docker and kubernetes pools need"),
        (["--cron", "0 2 * * *"], "--cron: name the job files"),
        (["nowhere.yaml"], "nowhere.yaml: there is no such job file"),
    ],
)
def test_what_cannot_be_registered_is_refused_in_a_line(arguments, why):
    answer = raee("deploy", *arguments)
    assert answer.code == 2
    assert answer.error.startswith(why)


_CRON = """--cron {}: it is minute, hour, day of the month, month and day of the week, such as """
_ZONE = "--timezone {}: there is no such time zone; name one of the IANA database, such as "


@pytest.mark.parametrize("command", ["deploy", "up"])
@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--cron", "nightly"], _CRON.format("'nightly'")),
        (["--cron", "61 2 * * *"], _CRON.format("'61 2 * * *'")),
        (["--cron", "0 2 * * *", "--timezone", "Berlin"], _ZONE.format("'Berlin'")),
        (["--timezone", ""], _ZONE.format("''")),
    ],
)
def test_a_schedule_that_is_none_is_refused_before_a_server_is_asked(place, command, more, why):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_ports(1)}/api"}):
        answer = raee(command, place.job(), *more)
    assert answer.code == 2
    assert answer.error.startswith(why)


@pytest.mark.parametrize("port", ["-1", "0", "65536", "http"])
def test_a_port_that_is_none_is_refused(port):
    answer = raee("up", "--port", port)
    assert answer.code == 2
    assert "Invalid value for '--port'" in answer.err


def test_without_a_server_it_says_how_to_have_one(monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        answer = raee("deploy")
    assert answer.code == 2
    assert answer.error.startswith("no Prefect server is configured: set PREFECT_API_URL, or")


def test_a_port_that_is_taken_is_refused():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        answer = raee("up", "--port", listener.getsockname()[1])
    assert answer.code == 2
    assert answer.error.endswith("name another")


def test_a_dead_run_is_found_within_a_minute_and_a_living_one_says_so_in_time():
    silent = automations()[0].trigger.within.total_seconds()
    assert silent + 10 <= 60
    for deployment in definition([], None)["deployments"]:
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) + 10 <= silent


def test_a_run_that_crashes_again_and_again_is_given_up(monkeypatch):
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MOST_RUNS))
    check_run_count()
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MOST_RUNS + 1))
    with pytest.raises(RuntimeError, match="has crashed 5 times and is not run again"):
        check_run_count()


@pytest.fixture
def client():
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        yield client
        with suppress(ObjectNotFound):
            client.delete_work_pool(GPU)


@pytest.mark.parametrize("pool_type", ["docker", "kubernetes"])
def test_a_pool_of_containers_runs_the_image_with_a_gpu(client, pool_type):
    _make_pool(client, GPU, pool_type, "raee:1")
    template = client.read_work_pool(GPU).base_job_template
    properties = template["variables"]["properties"]
    assert properties["image"]["default"] == "raee:1"
    if pool_type == "docker":
        assert properties["env"]["default"]["NVIDIA_VISIBLE_DEVICES"] == "all"
    else:
        pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_pool_of_another_type_is_left_as_it_is(client):
    _make_pool(client, GPU, "kubernetes", "raee:1")
    before = client.read_work_pool(GPU)
    with pytest.raises(InputError, match="has a work pool gpu of type kubernetes; delete it"):
        _make_pool(client, GPU, "process", None)
    assert client.read_work_pool(GPU) == before
