"""prefect.yaml, and what the commands that register it refuse."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate

from flows.orchestrator.crashes import MOST_RUNS, automations, check_run_count
from flows.orchestrator.deployments import GPU, RESIDENT, Schedule, _make_pool, definition
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


def test_a_job_with_a_named_prompt_stays_the_same(place):
    prompt = {"name": "sst2", "template": "chat", "examples": 1}
    backbone = {"family": "causal-lm", "model": "x"}
    job = load_job(place.job(prompt=prompt, backbone=backbone))
    own = definition([job], None)["deployments"][-1]["parameters"]["job"]
    assert own["prompt"] == prompt
    assert Job.model_validate(own) == job


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


def test_a_run_is_dead_once_three_heartbeats_are_missing_and_is_found_within_100_s():
    silent = automations()[0].trigger.within.total_seconds()
    assert silent + 10 <= 100
    for deployment in definition([], None)["deployments"]:
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) * 3 == silent


def test_a_run_that_crashes_again_and_again_is_given_up(monkeypatch):
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MOST_RUNS))
    check_run_count()
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MOST_RUNS + 1))
    with pytest.raises(RuntimeError, match="has crashed 5 times and is not run again"):
        check_run_count()


_PLAIN = {
    "variables": {"type": "object", "properties": {"command": {"type": "string"}}},
    "job_configuration": {"command": "{{ command }}"},
}
"""A pool's template with what every type has."""


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
    _make_pool(client, GPU, pool_type, "raee:1", has_gpu=True)
    template = client.read_work_pool(GPU).base_job_template
    properties = template["variables"]["properties"]
    assert properties["image"]["default"] == "raee:1"
    if pool_type == "docker":
        assert properties["env"]["default"]["NVIDIA_VISIBLE_DEVICES"] == "all"
    else:
        pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_pool_that_is_there_runs_the_new_image_and_keeps_what_people_have_changed(client):
    _make_pool(client, GPU, "docker", "raee:1", has_gpu=True)
    template = client.read_work_pool(GPU).base_job_template
    properties = template["variables"]["properties"]
    properties["mem_limit"]["default"] = "8g"
    properties["env"]["default"]["HF_HOME"] = "/models"
    client.update_work_pool(GPU, WorkPoolUpdate(base_job_template=template))
    _make_pool(client, GPU, "docker", "raee:2", has_gpu=True)
    properties["image"]["default"] = "raee:2"
    assert client.read_work_pool(GPU).base_job_template == template


def test_a_process_pool_that_is_there_gets_the_residents(client):
    client.create_work_pool(WorkPoolCreate(name=GPU, type="process", base_job_template=_PLAIN))
    _make_pool(client, GPU, "process", None, has_gpu=True)
    template = client.read_work_pool(GPU).base_job_template
    assert template["variables"]["properties"]["command"]["default"] == RESIDENT


def test_a_pool_whose_template_has_no_place_for_an_image_is_refused_and_left_as_it_is(client):
    client.create_work_pool(WorkPoolCreate(name=GPU, type="docker", base_job_template=_PLAIN))
    before = client.read_work_pool(GPU)
    with pytest.raises(InputError, match=r"the work pool gpu lacks a place that .*'image'"):
        _make_pool(client, GPU, "docker", "raee:1", has_gpu=True)
    assert client.read_work_pool(GPU) == before


@pytest.mark.parametrize(
    ("pool_type", "own"), [("kubernetes", r" \(--pool-type kubernetes\)$"), ("ecs", "raee-\\)$")]
)
def test_a_pool_of_another_type_is_left_as_it_is(client, pool_type, own):
    client.create_work_pool(WorkPoolCreate(name=GPU, type=pool_type, base_job_template=_PLAIN))
    before = client.read_work_pool(GPU)
    with pytest.raises(InputError, match=f"has a work pool gpu of type {pool_type}, and ") as said:
        _make_pool(client, GPU, "process", None, has_gpu=True)
    assert re.search(own, str(said.value))
    assert "delete" not in str(said.value)
    assert "--pool-prefix" in str(said.value)
    assert client.read_work_pool(GPU) == before


def test_the_pools_have_the_prefix_in_every_deployment_and_nothing_else_has(place):
    job = load_job(place.job())
    plain, found = definition([job], None), definition([job], None, "team-")
    pools = [d["work_pool"].pop("name") for d in plain["deployments"]]
    prefixed = [d["work_pool"].pop("name") for d in found["deployments"]]
    assert prefixed == [f"team-{pool}" for pool in pools]
    assert found == plain


@pytest.mark.parametrize("command", ["deploy", "up"])
@pytest.mark.parametrize(
    ("prefix", "why"),
    [("a/b", "it is letters"), ("-a", "it is letters"), ("prefect-", "Prefect keeps such names")],
)
def test_a_prefix_of_no_pools_is_refused(command, prefix, why):
    answer = raee(command, f"--pool-prefix={prefix}")
    assert answer.code == 2
    assert answer.error.startswith("--pool-prefix ")
    assert why in answer.error


def test_an_installed_package_and_a_checkout_have_the_same_definition(tmp_path):
    """The wheel has it as the package's own; `prefect deploy` finds it at the top of a checkout."""
    top = Path(__file__).parents[3]
    source = tmp_path / "source"
    for part in ("flows", "raee", "storage", "tasks", "README.md", "LICENSE", "pyproject.toml"):
        if (top / part).is_dir():
            shutil.copytree(top / part, source / part)
        else:
            shutil.copy(top / part, source / part)
    build = "import setuptools.build_meta as b; print(b.build_wheel('wheel'))"
    built = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (source / "wheel").glob("raee-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "target")
    said = (top / "prefect.yaml").read_text("utf-8")
    assert (tmp_path / "target/flows/prefect.yaml").read_text("utf-8") == said
    show = (
        "from flows.orchestrator.deployments import definition; print(definition([], None)['name'])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", show],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "target")},
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "raee\n", shown.stderr
