"""Commands on the orchestrator: register the deployments, or try it all out on one machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import say
from flows.orchestrator.server import (
    require_server,  # its module sets variables that Prefect reads when it is imported
)
from raee.errors import InputError
from tasks.prefect_settings import read_settings

if TYPE_CHECKING:  # slow to import, and `raee --help` needs the commands' names only
    from tasks.job import Job

Jobs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[JOB.yaml ..]", help="Databases that get a rebuild of their own."),
]
Cron = Annotated[
    str | None, typer.Option(metavar="CRON", help='When to rebuild, such as "0 2 * * *".')
]
Timezone = Annotated[
    str, typer.Option(metavar="ZONE", help="The schedule's time zone, such as Europe/Berlin.")
]

PoolPrefix = Annotated[
    str,
    typer.Option(
        metavar="PREFIX", help="For the pools' names, if the server has other `cpu` and `gpu`."
    ),
]


def deploy(
    jobs: Jobs = None,
    pool_type: Annotated[
        str, typer.Option(metavar="process|docker|kubernetes", help="What the pools are.")
    ] = "process",
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="For docker and kubernetes: has raee in it.")
    ] = None,
    pool_prefix: PoolPrefix = "",
    cron: Cron = None,
    timezone: Timezone = "Etc/UTC",
) -> None:
    """Register pools, deployments and automations on the configured Prefect server."""
    loaded = _loaded(jobs, cron)
    if pool_type not in ("process", "docker", "kubernetes"):
        raise InputError(f"--pool-type {pool_type}: it is process, docker or kubernetes")
    if (pool_type == "process") != (image is None):
        raise InputError(
            "--image is what docker and kubernetes pools need, and process pools do not"
        )
    read_settings()
    from flows.orchestrator.deployments import deploy, pool_prefix_of, schedule_of

    prefix, schedule = pool_prefix_of(pool_prefix), schedule_of(cron, timezone)
    require_server()
    for name in deploy(pool_type, image, prefix, loaded, schedule):  # type: ignore[arg-type]
        say(name)


def up(
    jobs: Jobs = None,
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Where the server listens, on loopback.")
    ] = 4200,
    pool_prefix: PoolPrefix = "",
    cron: Cron = None,
    timezone: Timezone = "Etc/UTC",
) -> None:
    """Start a local server, both pools and a worker for each, until Ctrl-C, for trying it out."""
    loaded = _loaded(jobs, cron)
    read_settings()
    from flows.orchestrator.deployments import pool_prefix_of, schedule_of
    from flows.orchestrator.up import run

    run(port, pool_prefix_of(pool_prefix), loaded, schedule_of(cron, timezone))


def _loaded(jobs: list[str] | None, cron: str | None) -> "list[Job]":
    """The jobs, with addresses that hold wherever a worker runs."""
    if cron is not None and not jobs:
        raise InputError("--cron: name the job files whose databases are to be rebuilt then")
    from tasks.job import load_job

    return [_absolute(load_job(job)) for job in jobs or []]


def _absolute(job: "Job") -> "Job":
    def absolute(address: str) -> str:
        return address if "://" in address else str(Path(os.path.expanduser(address)).absolute())

    corpus = job.corpus.model_copy(update={"uri": absolute(job.corpus.uri)})
    changed = {"store": absolute(job.store), "corpus": corpus}
    if Path(job.backbone.model).is_dir():
        model = absolute(job.backbone.model)
        changed["backbone"] = job.backbone.model_copy(update={"model": model})
    if Path(job.key.model).is_dir():
        changed["key"] = job.key.model_copy(update={"model": absolute(job.key.model)})
    return job.model_copy(update=changed)
