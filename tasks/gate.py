"""The promotion gate: a rebuild takes production over only where it is as good."""

import logging
from typing import Any

import numpy as np
from prefect import task

from raee.errors import InputError
from raee.paired import paired
from raee.policies import neighbours_planned_on
from raee.replay import replay
from storage.aliases import DEFAULT_ALIAS, aliases, promote
from storage.parquet import read_table
from storage.versions import Verdict, write_verdict
from tasks.database import Readings, load_readings
from tasks.job import Job
from tasks.policies import runnable, tuning_of
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")

LEVEL = 0.05
"""One-sided level of the test that a version is worse than the one it would replace."""


@task(**RETRIES)
def promote_if_as_good(job: Job, version: str) -> str:
    """Point `production` at a version, unless it is worse than the current one beyond noise.

    Both are replayed on their own rows, each without itself, with their own policies; rows that
    both have are compared pair by pair (McNemar's exact test).  Says what came out and why; that
    stays with the version.
    """
    verdict = _judge_and_promote(job, version)
    if verdict.promoted:
        logger.info("%s", verdict.why)
    else:
        logger.warning("%s", verdict.why)
    write_verdict(job.store, job.name, version, verdict)
    return verdict.why


def _judge_and_promote(job: Job, version: str) -> Verdict:
    current = aliases(job.store, job.name).get(DEFAULT_ALIAS)
    if current == version:
        return Verdict(promoted=True, why=f"{DEFAULT_ALIAS} points at {version} already")
    new = load_readings(job.store, job.name, version)
    try:
        runnable(job.policy, tuning_of(new.manifest), new.where)
    except InputError as error:
        said = f"{version} stays unpromoted: its own policy cannot be met: {error}"
        return Verdict(promoted=False, why=said)
    how = "there was none before"
    if current is not None:
        try:
            found = compare(new, load_readings(job.store, job.name, current))
        except InputError as error:  # what does not run has nothing to lose to a version that does
            how = f"the one before cannot be run: {error}"
        else:
            how = f"{found['how']}, p = {found['p_value']:.2g}"
            if found["p_value"] < LEVEL:
                said = (
                    f"{version} stays unpromoted: it is worse than {DEFAULT_ALIAS} ({current}) "
                    f"beyond noise: {how}, below {LEVEL}"
                )
                return Verdict(promoted=False, why=said)
            how += f", not below {LEVEL}"
    promote(job.store, job.name, version, DEFAULT_ALIAS)
    return Verdict(promoted=True, why=f"{DEFAULT_ALIAS} now points at {version}: {how}")


def compare(new: Readings, old: Readings) -> dict[str, Any]:
    """The p-value of "the new version is no worse than the old", and in words what was compared.

    On rows that both have, the new labels count for both: a corrected label is no fault.
    """
    from scipy.stats import fisher_exact  # slow to import

    ours, theirs = _answers(new), _answers(old)
    common = [row for row in ours if row in theirs]
    if not common:
        right, before = (
            np.array([said == label for said, label in a.values()]) for a in (ours, theirs)
        )
        wins, losses = int(right.sum()), int(before.sum())
        table = [[wins, len(right) - wins], [losses, len(before) - losses]]
        return {
            "p_value": float(fisher_exact(table, alternative="less").pvalue),
            "how": f"no row in common; accuracy {right.mean():.4f}, before {before.mean():.4f}",
        }
    right = np.array([ours[row][0] == ours[row][1] for row in common])
    before = np.array([theirs[row][0] == ours[row][1] for row in common])
    found = paired(right, before)
    return {
        "p_value": found.p_value("less"),
        "how": f"on {len(common)} rows in common {found.wins} answers got right and "
        f"{found.losses} got wrong "
        f"(accuracy {right.mean():.4f}, before {before.mean():.4f})",
    }


def _answers(readings: Readings) -> dict[tuple[str, str], tuple[str, str]]:
    """By id and text hash of each complete row the version's answer, and the row's label."""
    manifest, labels = readings.manifest, readings.manifest.labels
    job = Job.model_validate(manifest.job)
    policy = runnable(job.policy, tuning_of(manifest), readings.where)
    trial = readings.trial(neighbours_planned_on(policy))
    answers = replay(policy, trial).answers
    names: list[tuple[str, str]] = []
    for part in readings.parts:
        table = read_table(readings.folder, part, ["id", "text_hash"])
        columns = (table["id"].to_pylist(), table["text_hash"].to_pylist())
        names += list(zip(*columns, strict=True))
    return {
        names[row]: (labels[answer], labels[label])
        for row, answer, label in zip(trial.rows, answers, trial.label, strict=True)
    }
