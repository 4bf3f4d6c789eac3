"""A published version in use in this process, for `raee.Classifier`; no task uses it."""

import logging

from raee.config import Method
from raee.model.spec import untrusting
from raee.policies.compared import runnable
from raee.runner import Runner
from storage.database import open_version
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.readings import load_database, load_readings, tuning_of

logger = logging.getLogger("raee")


def load_version(store: str, name_at: str) -> tuple[Method, Runner, str]:
    """A version's method, the version in use as its own job says, and its whole name.

    name_at: a database, or with a version or an alias, `support@production`.  Labels are expected
    in the database's shares, whatever the job says of `balance`.  Raises InputError if there is no
    such version, it is damaged, or its model is not the one that it was built with.
    """
    use_credentials(None)
    chosen = open_version(store, name_at)
    manifest = chosen.manifest()
    job = Job.model_validate(manifest.job)
    job = job.model_copy(update={"backbone": untrusting(job.backbone)})
    database = load_database(chosen, job.backbone, job.key)
    readings, tuning = load_readings(chosen), tuning_of(manifest)
    if job.balance == "corpus":
        logger.warning("%s: `balance: corpus` is for a corpus; it is left out", readings.where)
    runs = runnable(job.policy, tuning, readings.where)
    runner = Runner(
        database=database,
        policy=job.policy,
        runs=runs,
        lines=readings.written_lines(runs),
        far=job.far,
        tuning=tuning,
        where=readings.where,
    )
    return job.method, runner, f"{chosen.database.name}@{chosen.id}"
