"""Tuning again what is published: without the model, in seconds.

The command `tune`; no task uses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raee.policies.compared import (
    BesideBaselines,
    beside_baselines,
    judged,
    metrics_of,
    objective_of,
)
from raee.policies.objectives import Tuning
from raee.policies.tuning import neighbours_needed, study
from tasks.build.build import SEED
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.progress import advance, stage
from tasks.readings import check_fits, load_readings


@dataclass(frozen=True)
class Retuned:
    """A version's policies, tuned again."""

    where: str
    """The version, for messages."""
    tuning: Tuning
    metrics: Mapping[str, Mapping[str, Any]]
    """As `raee.policies.compared.metrics_of` has them."""
    beside: BesideBaselines | None
    """The job's policy beside the baselines; None if nothing meets its objective."""


def tune_version(job: Job, version: str | None) -> Retuned:
    """Search over policies on a version's own rows, as its build did.

    version: an id or an alias; by default as `Database.open`.  Raises InputError if there is no
    such version, or it is another job's.
    """
    use_credentials(job.credentials)
    readings = load_readings(job.database.open(version))
    manifest = readings.manifest
    check_fits(job, manifest)
    rows = len(readings.entries.complete)
    trial, costs = readings.trial(neighbours_needed(job.policy)), readings.costs
    with stage("tune", rows):
        found = study(trial, costs, objective_of(job.policy), SEED, manifest.barred)
        advance(rows)
    runs = judged(job.policy, found, trial, costs, manifest.exits, readings.where)
    metrics = metrics_of(runs, trial)
    beside = beside_baselines(job.policy.name, runs, metrics)
    return Retuned(readings.where, found.tuning, metrics, beside)
