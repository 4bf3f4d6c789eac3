"""Tuning again what is published: without the model, in seconds."""

from raee.policies.compared import objective_of
from raee.policies.objectives import Tuning
from raee.policies.tuning import NEIGHBOURS, study
from storage.aliases import resolve_version
from tasks.build.publish import SEED
from tasks.credentials import use_credentials
from tasks.database import Readings, check_fits, load_readings
from tasks.job import Job
from tasks.progress import advance, stage


def tune_version(job: Job, version: str | None) -> tuple[Readings, Tuning]:
    """Search over policies on a version's own rows, as its build did.

    Raises InputError where there is no such version, or it is another job's.
    """
    use_credentials(job.credentials)
    chosen = resolve_version(job.store, job.name, version)
    readings = load_readings(job.store, job.name, chosen)
    check_fits(job, readings.manifest)
    rows = len(readings.entries.complete)
    with stage("tune", rows):
        found = study(
            readings.trial(NEIGHBOURS),
            readings.costs,
            objective_of(job.policy),
            SEED,
            readings.manifest.barred,
        )
        advance(rows)
    return readings, found.tuning
