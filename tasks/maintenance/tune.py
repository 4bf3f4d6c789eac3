"""Tuning again what is published: without the model, in seconds.

The command `tune`; no task uses it.
"""

from raee.policies.compared import objective_of
from raee.policies.objectives import Tuning
from raee.policies.tuning import NEIGHBOURS, study
from tasks.build.build import SEED
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.progress import advance, stage
from tasks.readings import Readings, check_fits, load_readings


def tune_version(job: Job, version: str | None) -> tuple[Readings, Tuning]:
    """Search over policies on a version's own rows, as its build did.

    version: an id or an alias; by default as `Database.open`.  Raises InputError if there is no
    such version, or it is another job's.
    """
    use_credentials(job.credentials)
    readings = load_readings(job.database.open(version))
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
