"""The flow that builds a database: sweep, fit, tune, evaluate, publish and promote a version."""

import logging
import time
from typing import Any

from prefect import flow

from flows.orchestrator.chunks import Shards, Workers
from flows.orchestrator.crashes import check_run_count
from flows.orchestrator.fan_out import spread
from flows.orchestrator.runs import of_job, run_name
from flows.sweep_shards import sweep_shards
from raee.errors import InputError
from tasks.about import about
from tasks.artifacts import record_asset, record_report, record_versions
from tasks.build.build import look_up_build
from tasks.build.centre import read_database_centre
from tasks.build.gate import promote_if_as_good
from tasks.build.planning import PlannedBuild, forget_build, plan_build
from tasks.build.publish import publish_build
from tasks.build.table import BUILD_STEPS
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.progress import stage
from tasks.shard_steps import ShardStep
from tasks.steps import Marker

logger = logging.getLogger("raee")


@flow(name="rebuild-database", flow_run_name=run_name("rebuild", of_job))
def rebuild_database(job: Job, workers: Workers | None = None) -> str:
    """Build a new version of a job's database and return its id.

    Readings of rows that its parent has are reused; if nothing has changed, the newest version's id
    is returned.  The version is promoted unless it is worse than the one in production.  A build
    that died goes on from the steps that are done.  Raises InputError if the job cannot be done,
    and nothing is written to the store then; RuntimeError if a shard fails on each worker, or the
    run has crashed too often.

    Args:
        job: What to build, as in a job file.
        workers: How the sweep is spread over the workers of the pool of `sweep-shards`; without
            it, this process sweeps.
    """
    check_run_count()
    begun = time.monotonic()
    use_credentials(job.credentials)
    with about(job.name):
        planned = plan_build(job, by_workers=workers is not None)
    with about(job.name, planned.version):
        if planned.unchanged:
            return planned.version
        version = job.database.version(planned.version)
        if not planned.published:
            try:
                run_steps(planned, job, workers)
            except (FileNotFoundError, InputError, RuntimeError):
                # If the version exists, another such build has published it and removed the work.
                if not version.exists():
                    raise
        verdict = promote_if_as_good(job, version)
        record_versions(job.database, verdict)
        record_report(version)
        record_asset(job.database.folder.uri, [job.corpus.uri], version=version.id)
        forget_build(planned.work)
        logger.info("rebuilt: %d rows in %.1f s", planned.rows, time.monotonic() - begun)
    return planned.version


def run_steps(planned: PlannedBuild, job: Job, workers: Workers | None) -> None:
    """Run the steps of a planned build that are not done, and publish its version.

    Raises what the steps raise, and with workers as `spread` does.
    """
    for step in BUILD_STEPS:
        if step is read_database_centre and workers is not None:
            continue  # a worker that sweeps reads it: no model need be loaded here before
        if isinstance(step, ShardStep):
            with stage(step.stage, planned.rows, planned.done):
                spread(_shards(planned, job, step.marker), workers)
        elif step.per_shard:
            with stage(step.stage, planned.rows):
                for number in range(planned.shards):
                    step(planned.work, number)
        else:
            step(planned.work)
    publish_build(planned.work)


def _shards(planned: PlannedBuild, job: Job, marker: Marker[Any]) -> Shards:
    return Shards(
        flow=sweep_shards,
        address=planned.work,
        work=look_up_build(planned.work),
        marker=marker,
        credentials=job.credentials,
        database=job.name,
        about=f"{job.name}@{planned.version}",
    )
