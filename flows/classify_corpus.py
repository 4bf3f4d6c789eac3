"""The flow that classifies a corpus with a version of a database."""

from prefect import flow

from raee.config import PolicySpec
from tasks.artifacts import record_classification
from tasks.classification import (
    PlannedClassification,
    classify_shard,
    estimate_balance,
    finish_classification,
    is_finished,
    plan_classification,
)
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.progress import stage


@flow(name="classify-corpus")
def classify_corpus(
    job: Job,
    input: str,
    output: str,
    version: str | None = None,
    policy: PolicySpec | None = None,
) -> str:
    """Classify the texts at `input` into the folder `output` and return its address.

    version: an id or an alias; by default what `production` points at, or the newest.  policy: by
    default the job's.  A classification that died goes on from the parts that are done.  Raises
    InputError where it cannot be done; nothing is written then.
    """
    use_credentials(job)
    planned = plan_classification(job, input, output, version, policy or job.policy)
    if planned.shards:
        try:
            run_steps(planned)
        except FileNotFoundError:
            # Of two such runs at once the faster one has finished, and removed their work.
            if not is_finished(planned.output):
                raise
        figures = finish_classification(planned.output)
        record_classification(job.name, figures)
    return planned.output


def run_steps(planned: PlannedClassification) -> None:
    """All that a planned classification's output is made of."""
    estimate_balance(planned.output)
    with stage("classify", planned.rows, planned.done):
        for number in range(planned.shards):
            classify_shard(planned.output, number)
