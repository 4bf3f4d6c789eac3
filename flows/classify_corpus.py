"""The flow that classifies a corpus with a version of a database."""

import logging
from collections import Counter
from typing import Any

from prefect import flow, runtime

from flows.classify_shards import classify_shards
from flows.orchestrator.chunks import Shards, Workers
from flows.orchestrator.crashes import check_run_count
from flows.orchestrator.fan_out import spread
from flows.orchestrator.runs import of_job, run_name
from raee.config import PolicySpec
from storage.scan import check_rejected
from tasks.about import about
from tasks.artifacts import record_asset, record_classification
from tasks.classify.classification import CLASSIFICATION_STEPS, finish_classification
from tasks.classify.plan import (
    Classified,
    PlannedClassification,
    is_finished,
    look_up_classification,
    plan_classification,
)
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.progress import stage
from tasks.shard_steps import ShardStep
from tasks.steps import Marker

logger = logging.getLogger("raee")

DATE = "{date}"
"""The part of an output's address that becomes the day on which the flow run was due, such as
2026-11-25."""


@flow(name="classify-corpus", flow_run_name=run_name("classify", of_job))
def classify_corpus(
    job: Job,
    input: str,
    output: str,
    version: str | None = None,
    policy: PolicySpec | None = None,
    workers: Workers | None = None,
) -> str:
    """Classify texts with a version of a database and return the output's address.

    A classification that died goes on from the parts that are done.  Raises InputError if it cannot
    be done, and nothing is written then; RuntimeError if a shard fails on each worker, or the run
    has crashed too often.

    Args:
        job: The job that the database is built with.
        input: The texts: file, folder or glob.
        output: A new or empty folder; `{date}` in it becomes the day on which the run was due.
        version: An id or an alias; by default the version that `production` points at, or the
            newest.
        policy: By default the job's.
        workers: How the shards are spread over the workers of the pool of `classify-shards`;
            without it, this process classifies.
    """
    check_run_count()
    use_credentials(job.credentials)
    output = output.replace(DATE, f"{runtime.flow_run.scheduled_start_time:%Y-%m-%d}")
    with about(job.name):
        planned = plan_classification(
            job, input, output, version, policy or job.policy, by_workers=workers is not None
        )
    if planned.shards:
        with about(job.name, planned.version):
            try:
                run_steps(planned, job, workers)
            except (FileNotFoundError, RuntimeError):
                # If the output is finished, another such run has done it and removed the work.
                if not is_finished(planned.output):
                    raise
            manifest = finish_classification(planned.output, job.max_reject_fraction)
            record_classification(manifest)
            database = job.database.folder.uri
            record_asset(planned.output, [input, database], version=planned.version)
            logger.info(
                "%d rows classified, %d rejected, %.2f layers a row on average, %.0f rows/s; %s",
                manifest.rows_out,
                sum(manifest.rejected.values()),
                manifest.mean_layers,
                manifest.rows_per_second,
                planned.output,
            )
    return planned.output


def run_steps(planned: PlannedClassification, job: Job, workers: Workers | None) -> None:
    """Run the steps of a planned classification that are not done.

    Raises what the steps raise, and with workers as `spread` does.
    """
    for step in CLASSIFICATION_STEPS:
        if isinstance(step, ShardStep):
            with stage(step.stage, planned.rows, planned.done):
                spread(_shards(planned, job, step.marker), workers)
        else:
            step(planned.output)


def _shards(planned: PlannedClassification, job: Job, marker: Marker[Any]) -> Shards:
    rejected: Counter[str] = Counter()

    def check(left: Classified) -> None:
        rejected.update(left.rejected)
        check_rejected(planned.input, rejected, planned.rows, job.max_reject_fraction)

    return Shards(
        flow=classify_shards,
        address=planned.output,
        work=look_up_classification(planned.output),
        marker=marker,
        check=check,
        credentials=job.credentials,
        database=job.name,
        about=planned.output,
    )
