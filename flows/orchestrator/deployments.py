"""The deployments of prefect.yaml, registered on a server: pools, schedules, automations.

prefect.yaml alone says what there is.  This module adds what that file cannot say: pools of the
wanted type, a deployment for each job file, the version of raee, and that a schedule which someone
has paused stays paused when everything is registered anew.
"""

import asyncio
import copy
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from flows.orchestrator.crashes import TAG, register
from flows.orchestrator.lifeline import program
from raee import __version__
from raee.errors import InputError
from tasks.job import Job

PoolType = Literal["process", "docker", "kubernetes"]
_POOL_TYPES = get_args(PoolType)

CPU, GPU = "cpu", "gpu"
"""The pools: one for flows that plan and publish, one for those that run the model."""

RESIDENT = "python -P -m flows.orchestrator.resident"
"""The command that a worker of a process pool starts for a flow run; see
`flows.orchestrator.resident`."""

_FILE = "prefect.yaml"
"""The file lies in `flows`; at the top of a checkout `prefect deploy` finds a link to it."""

_PAGE = 100


@dataclass(frozen=True)
class Schedule:
    """When a database is rebuilt."""

    cron: str
    timezone: str


def schedule_of(cron: str | None, timezone: str) -> Schedule | None:
    """A schedule, or None without a cron.  Raises InputError if one of the two is not valid."""
    if not _is_valid(cron="0 2 * * *", timezone=timezone) or not timezone:
        raise InputError(
            f"--timezone {timezone!r}: there is no such time zone; name one of the IANA database, "
            "such as Europe/Berlin"
        )
    if cron is None:
        return None
    if not _is_valid(cron=cron):
        raise InputError(
            f"--cron {cron!r}: it is minute, hour, day of the month, month and day of the week, "
            'such as "0 2 * * *" for two at night'
        )
    return Schedule(cron, timezone)


def _is_valid(**schedule: str) -> bool:
    try:
        CronSchedule(**schedule)
    except ValueError:
        return False
    return True


def pool_prefix_of(prefix: str) -> str:
    """A prefix of the pools' names.  Raises InputError if Prefect would not take such names."""
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.-]*)?", prefix):
        raise InputError(
            f"--pool-prefix {prefix!r}: it is letters, digits, dots, dashes and underscores, such "
            "as team-"
        )
    if prefix.lower().startswith("prefect"):
        raise InputError(
            f"--pool-prefix {prefix}: Prefect keeps such names for itself; take another"
        )
    return prefix


def deploy(
    pool_type: PoolType,
    image: str | None,
    prefix: str,
    jobs: Sequence[Job],
    schedule: Schedule | None,
) -> list[str]:
    """Make pools, deployments and automations on the configured server; returns their names.

    image: for docker and kubernetes pools, an image that has raee installed.  prefix: of the pools'
    names.  jobs: databases that get a `rebuild-database` of their own.  Raises InputError if
    there is a pool of another type, or the server refuses something.
    """
    with get_client(sync_client=True) as client:
        for name in (CPU, GPU):
            _make_pool(client, prefix + name, pool_type, image, has_gpu=name == GPU)
        before = _schedules(client)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _FILE
            found = definition(jobs, schedule, prefix)
            path.write_text(yaml.safe_dump(found, sort_keys=False), "utf-8")
            _prefect_deploy(path)
        _leave_as_they_were(client, before)
        names = sorted(deployment.name for deployment in _deployments(client))
    return [*names, *register()]


def definition(jobs: Sequence[Job], schedule: Schedule | None, prefix: str = "") -> dict[str, Any]:
    """prefect.yaml, with a deployment for each job after its template, and this raee's version.

    prefix: of the pools' names.
    """
    found: dict[str, Any] = yaml.safe_load((files("flows") / _FILE).read_text("utf-8"))
    template = next(d for d in found["deployments"] if d["name"] == "rebuild-database")
    for job in jobs:
        own = copy.deepcopy(template)
        own["name"] = job.name
        own["description"] = f"Build a new version of the database {job.name}."
        own["parameters"]["job"] = _as_parameters(job)
        del own["schedules"]
        if schedule is not None:
            cron = {"cron": schedule.cron, "timezone": schedule.timezone}
            own["schedules"] = [{"slug": "nightly", "active": True, **cron}]
        found["deployments"].append(own)
    for deployment in found["deployments"]:
        deployment["version"] = __version__
        pool = deployment["work_pool"]
        # The pool is a copy: deployments share what the file says once.
        deployment["work_pool"] = {**pool, "name": prefix + pool["name"]}
    return found


def _as_parameters(job: Job) -> dict[str, Any]:
    """A job as a server may keep it: PostgreSQL sorts the keys of what it stores."""
    parameters = job.model_dump(mode="json", exclude_unset=True)
    prompt = parameters.get("prompt")
    if isinstance(prompt, dict) and "labels" in prompt:
        prompt["labels"] = [{name: word} for name, word in prompt["labels"].items()]
    return parameters


def _make_pool(
    client: SyncPrefectClient, name: str, pool_type: PoolType, image: str | None, has_gpu: bool
) -> None:
    """Make a pool, or have the existing one run what a new one would.

    In an existing pool only what is set here changes: people edit the rest in the UI.
    """
    try:
        pool: WorkPool | None = client.read_work_pool(name)
    except ObjectNotFound:
        pool = None
    if pool is not None and pool.type != pool_type:
        own = f", or take this one (--pool-type {pool.type})" if pool.type in _POOL_TYPES else ""
        raise InputError(
            f"the server has a work pool {name} of type {pool.type}, and it may be someone else's; "
            f"give yours another name (--pool-prefix raee-){own}"
        )
    template = asyncio.run(get_default_base_job_template_for_infrastructure_type(pool_type))
    if template is None:
        raise InputError(f"Prefect knows no work pools of type {pool_type} here")
    if pool is None:
        _say_what_runs(template, pool_type, image, has_gpu)
        wanted = WorkPoolCreate(name=name, type=pool_type, base_job_template=template)
        client.create_work_pool(wanted)
        return
    changed = copy.deepcopy(pool.base_job_template)
    try:
        _say_what_runs(changed, pool_type, image, has_gpu)
    except (LookupError, TypeError) as error:
        raise InputError(
            f"the job template of the work pool {name} lacks a place that raee fills "
            f"({error}); mend it in the UI, or give yours another name (--pool-prefix raee-)"
        ) from error
    if changed != pool.base_job_template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=changed))


def _say_what_runs(
    template: dict[str, Any], pool_type: PoolType, image: str | None, has_gpu: bool
) -> None:
    """Set in a job template what raee needs of it, and nothing else."""
    properties = template["variables"]["properties"]
    if image is not None:
        properties["image"]["default"] = image
    if pool_type == "process":
        properties["command"]["default"] = RESIDENT
    if has_gpu and pool_type == "docker":
        environment = properties["env"]
        default = environment.get("default") or {}
        environment["default"] = {**default, "NVIDIA_VISIBLE_DEVICES": "all"}
    if has_gpu and pool_type == "kubernetes":
        pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        resources = pod["containers"][0].setdefault("resources", {})
        resources.setdefault("limits", {})["nvidia.com/gpu"] = 1


def _prefect_deploy(path: Path) -> None:
    command = [*program("flows.orchestrator.lifeline"), "--no-prompt", "deploy", "--all"]
    ran = subprocess.run(
        [*command, "--prefect-file", str(path)],
        # The server may be known here by settings that no variable has: without its address Prefect
        # would start another one, on the same SQLite file.
        env=os.environ | get_current_settings().to_environment_variables(exclude_unset=True),
        cwd=path.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ran.returncode:
        raise InputError(f"`prefect deploy` failed: {ran.stdout.strip()[-1000:]}")


def _schedules(client: SyncPrefectClient) -> dict[tuple[str, str], tuple[UUID, Any]]:
    """By deployment and slug, the deployment's id and the schedule, as the server has them."""
    return {
        (deployment.name, schedule.slug): (deployment.id, schedule)
        for deployment in _deployments(client)
        for schedule in deployment.schedules
        if schedule.slug is not None
    }


def _leave_as_they_were(
    client: SyncPrefectClient, before: dict[tuple[str, str], tuple[UUID, Any]]
) -> None:
    """Set schedules back to paused or active as people left them: a deploy has reset them."""
    for key, (deployment, schedule) in _schedules(client).items():
        if key in before and before[key][1].active != schedule.active:
            client.update_deployment_schedule(deployment, schedule.id, before[key][1].active)


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """The server's deployments of this program."""
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=tagged, limit=_PAGE, offset=len(found)):
        found += page
    return found
