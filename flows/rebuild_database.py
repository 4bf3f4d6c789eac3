"""The flow that builds a database: sweep, fit, tune, evaluate, publish and promote a version."""

from prefect import flow

from raee.errors import InputError
from tasks.artifacts import record_report, record_versions
from tasks.build import read_database_centre, sweep_shard
from tasks.build_plan import PlannedBuild, forget_build, is_published, plan_build
from tasks.collect import collect_readings
from tasks.credentials import use_credentials
from tasks.fit import fit_database_probes
from tasks.gate import promote_if_as_good
from tasks.job import Job
from tasks.match import match_rows
from tasks.neighbours import build_index, write_part
from tasks.progress import stage
from tasks.publish import evaluate_build, publish_build, tune_build
from tasks.reporting import write_report


@flow(name="rebuild-database")
def rebuild_database(job: Job) -> str:
    """Build a new version of a job's database and return its id.

    Rows that its parent has are taken over; where nothing has changed, the newest version's id is
    returned.  The version is promoted unless it is worse than the one in production.  A build that
    died goes on from the steps that are done.  Raises InputError where the job cannot be done;
    nothing is written to the store then.
    """
    use_credentials(job)
    build = plan_build(job)
    if build.unchanged:
        return build.version
    if not build.published:
        try:
            run_steps(build)
        except (FileNotFoundError, InputError):
            # Of two such builds at once the faster one has published, and removed their work.
            if not is_published(build, job):
                raise
    verdict = promote_if_as_good(job, build.version)
    record_versions(job.store, job.name, verdict)
    record_report(job.store, job.name, build.version)
    forget_build(build.work)
    return build.version


def run_steps(build: PlannedBuild) -> None:
    """All that makes a planned version exist."""
    read_database_centre(build.work)
    with stage("sweep", build.rows, build.done):
        for number in range(build.shards):
            sweep_shard(build.work, number)
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
