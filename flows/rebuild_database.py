"""The flow that builds a database: sweep, fit, tune, evaluate, publish and promote a version."""

import logging
import time
from functools import partial

from prefect import flow

from flows.orchestrator.crashes import check_run_count
from flows.orchestrator.fan_out import Shards, Workers, spread
from flows.orchestrator.runs import of_job, run_name
from flows.sweep_shards import sweep_shards
from raee.errors import InputError
from storage.store import Folder
from tasks.about import about
from tasks.artifacts import record_asset, record_report, record_versions
from tasks.build.collect import collect_readings
from tasks.build.fit import fit_database_probes
from tasks.build.gate import promote_if_as_good
from tasks.build.match import match_rows
from tasks.build.neighbours import build_index, write_part
from tasks.build.plan import PlannedBuild, forget_build, is_published, plan_build
from tasks.build.publish import evaluate_build, publish_build, tune_build
from tasks.build.shards import shard_account
from tasks.build.sweep import check_swept, read_database_centre
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.progress import stage
from tasks.report.writing import write_report

logger = logging.getLogger("raee")


@flow(name="rebuild-database", flow_run_name=run_name("rebuild", of_job))
def rebuild_database(job: Job, workers: Workers | None = None) -> str:
    """Build a new version of a job's database and return its id.

    Rows that its parent has are taken over; where nothing has changed, the newest version's id is
    returned.  The version is promoted unless it is worse than the one in production.  A build that
    died goes on from the steps that are done.  Raises InputError where the job cannot be done;
    nothing is written to the store then.

    Args:
        job: What to build, as in a job file.
        workers: How the sweep is spread over the workers of the pool of `sweep-shards`; without
            it, this process sweeps.
    """
    check_run_count()
    begun = time.monotonic()
    use_credentials(job.credentials)
    with about(job.name):
        build = plan_build(job)
    with about(job.name, build.version):
        if build.unchanged:
            return build.version
        if not build.published:
            try:
                run_steps(build, job, workers)
            except (FileNotFoundError, InputError, RuntimeError):
                # Of two such builds at once the faster one has published, and removed their work.
                if not is_published(build, job):
                    raise
        verdict = promote_if_as_good(job, build.version)
        record_versions(job.database, verdict)
        record_report(job.database.version(build.version))
        record_asset(job.database.folder.uri, [job.corpus.uri], version=build.version)
        forget_build(build.work)
        logger.info("rebuilt: %d rows in %.1f s", build.rows, time.monotonic() - begun)
    return build.version


def run_steps(build: PlannedBuild, job: Job, workers: Workers | None) -> None:
    """All that makes a planned version exist."""
    read_database_centre(build.work)
    shards = Shards(
        flow=sweep_shards,
        address=build.work,
        folder=Folder(build.work),
        step="shard",
        total=build.shards,
        account=partial(shard_account, build.work),
        credentials=job.credentials,
        database=job.name,
        about=f"{job.name}@{build.version}",
    )
    with stage("sweep", build.rows, build.done):
        spread(shards, workers)
    rows, new = check_swept(build.work)
    logger.info("%d rows are new, %d known", new, rows - new)
    collect_readings(build.work)
    match_rows(build.work)
    fit_database_probes(build.work)
    build_index(build.work)
    with stage("vote", build.rows):
        for number in range(build.shards):
            write_part(build.work, number)
    tune_build(build.work)
    evaluate_build(build.work)
    write_report(build.work)
    publish_build(build.work)
