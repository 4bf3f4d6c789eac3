"""The promotion gate: a rebuild takes production over only where it is as good.

It is held against two versions.  Against the one in production, which notices what a single night
did; and against a pinned one, because many nights that are each no worse beyond noise may together
lose a lot.  The pinned version is looked at again and again, so the n-th look has the level
LEVEL / (n (n + 1)): over all looks together they come to LEVEL.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prefect import task

from raee.costs import Costs
from raee.errors import InputError
from raee.paired import paired
from raee.policies import neighbours_planned_on
from raee.replay import Replayed, replay
from raee.tuning import NEIGHBOURS, TUNED, study
from storage.aliases import DEFAULT_ALIAS, PINNED, aliases, history, promote
from storage.parquet import read_table
from storage.versions import Verdict, write_verdict
from tasks.database import Readings, load_readings
from tasks.job import Job
from tasks.policies import objective_of, runnable, tuning_of
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")

LEVEL = 0.05
"""One-sided level of the test that a version is worse than the one it would replace, and of all
tests together that it is worse than the pinned one."""


@dataclass(frozen=True)
class Compared:
    """A new version against an older one."""

    p_value: float
    """Of "the new version is no worse than the old"."""
    how: str
    """In words, what was compared."""


@task(**RETRIES)
def promote_if_as_good(job: Job, version: str) -> str:
    """Point `production` at a version, unless it is worse beyond noise.

    It is held against the version in production, and against the pinned one.  Each is answered on
    its own rows, each without its text, by its own policy, cross-fitted where that was picked on
    these rows; rows that both have are compared pair by pair (McNemar's exact test).  Says what
    came out and why; that stays with the version.
    """
    verdict = _judge_and_promote(job, version)
    if verdict.promoted:
        logger.info("%s", verdict.why)
    else:
        logger.warning("%s", verdict.why)
    write_verdict(job.store, job.name, version, verdict)
    return verdict.why


def _judge_and_promote(job: Job, version: str) -> Verdict:
    pointing = aliases(job.store, job.name)
    current = pointing.get(DEFAULT_ALIAS)
    if current == version:
        return Verdict(promoted=True, why=f"{DEFAULT_ALIAS} points at {version} already")
    new = load_readings(job.store, job.name, version)
    try:
        runnable(job.policy, tuning_of(new.manifest), new.where)
    except InputError as error:
        said = f"{version} stays unpromoted: its own policy cannot be met: {error}"
        return Verdict(promoted=False, why=said)
    if current is None:
        promote(job.store, job.name, version, PINNED)
        how = ["there was none before"]
    else:
        if PINNED not in pointing:  # versions were promoted before there were pins
            promote(job.store, job.name, current, PINNED)
        against = {DEFAULT_ALIAS: (current, LEVEL)}
        pinned = pointing.get(PINNED, current)
        if pinned != current:
            against[PINNED] = (pinned, look_level(looks(job.store, job.name)))
        how = []
        for alias, (other, level) in against.items():
            try:
                found = compare(new, load_readings(job.store, job.name, other))
            except InputError as error:  # what does not run has nothing to lose to one that does
                how.append(f"{alias} ({other}) cannot be run: {error}")
                continue
            said = f"against {alias} ({other}) {found.how}, p = {found.p_value:.2g}"
            if found.p_value < level:
                said = (
                    f"{version} stays unpromoted: it is worse beyond noise: {said}, below "
                    f"{level:.2g}"
                )
                if alias == PINNED:
                    said += f"; `raee promote {job.name} {version}` takes and pins it all the same"
                return Verdict(promoted=False, why=said)
            how.append(f"{said}, not below {level:.2g}")
    promote(job.store, job.name, version, DEFAULT_ALIAS)
    return Verdict(promoted=True, why=f"{DEFAULT_ALIAS} now points at {version}: {'; '.join(how)}")


def looks(store: str, name: str) -> int:
    """How often new versions have been held against the pinned one, this time included.

    A version that was refused is not counted: it was the end of a row of looks.
    """
    pinned_at = history(store, name, PINNED)[-1].updated_at
    return 1 + sum(record.updated_at > pinned_at for record in history(store, name, DEFAULT_ALIAS))


def look_level(look: int) -> float:
    """Level of the n-th look at the pinned version, from 1 on; all of them sum to LEVEL."""
    return LEVEL / (look * (look + 1))


def compare(new: Readings, old: Readings) -> Compared:
    """Whether a new version is worse than an old one.

    On rows that both have, the new labels count for both: a corrected label is no fault.  Rows of
    one text count once.  Seconds a row are by the new version's cost table, and only said.
    """
    from scipy.stats import fisher_exact  # slow to import

    ours, theirs = _answered(new, new.costs), _answered(old, new.costs)
    pace = f"{1000 * ours.seconds:.2f} ms a row, before {1000 * theirs.seconds:.2f}"
    common = [row for row in ours.rows if row in theirs.rows]
    if not common:
        right, before = (
            np.array([said == label for said, label, _ in a.rows.values()]) for a in (ours, theirs)
        )
        wins, losses = int(right.sum()), int(before.sum())
        table = [[wins, len(right) - wins], [losses, len(before) - losses]]
        return Compared(
            float(fisher_exact(table, alternative="less").pvalue),
            f"no row in common; accuracy {right.mean():.4f}, before {before.mean():.4f}; {pace}",
        )
    right = np.array([ours.rows[row][0] == ours.rows[row][1] for row in common])
    before = np.array([theirs.rows[row][0] == ours.rows[row][1] for row in common])
    _, once = np.unique([ours.rows[row][2] for row in common], return_index=True)
    found = paired(right[once], before[once])
    return Compared(
        found.p_value("less"),
        f"on {len(common)} rows in common {found.wins} answers got right and {found.losses} got "
        f"wrong (accuracy {right.mean():.4f}, before {before.mean():.4f}; {pace})",
    )


@dataclass(frozen=True)
class _Answered:
    """A version's complete rows, as its policy answers them."""

    rows: dict[tuple[str, str], tuple[str, str, int]]
    """By id and text hash the answer, the row's label and the hash of its token ids."""
    seconds: float
    """Mean of a row."""


def _answered(readings: Readings, costs: Costs) -> _Answered:
    labels = readings.manifest.labels
    rows, done = _run(readings, costs)
    names: list[tuple[str, str]] = []
    for part in readings.parts:
        table = read_table(readings.folder, part, ["id", "text_hash"])
        columns = (table["id"].to_pylist(), table["text_hash"].to_pylist())
        names += list(zip(*columns, strict=True))
    entries = readings.entries
    return _Answered(
        {
            names[row]: (labels[answer], labels[entries.label[row]], int(entries.hashes[row]))
            for row, answer in zip(rows, done.answers, strict=True)
        },
        float(done.seconds.mean()),
    )


def _run(readings: Readings, costs: Costs) -> tuple[NDArray[np.int64], Replayed]:
    """The complete rows, and what the version's policy did with them.

    A policy that the version's tuning picked is cross-fitted, so that a version that tried more
    policies is not the better one for it.
    """
    job = Job.model_validate(readings.manifest.job)
    policy = runnable(job.policy, tuning_of(readings.manifest), readings.where)
    if job.policy.name == TUNED and readings.manifest.format >= 4:
        trial = readings.trial(NEIGHBOURS)
        done = study(trial, costs, objective_of(job.policy)).done[TUNED]
    else:
        trial = readings.trial(neighbours_planned_on(policy))
        done = replay(policy, trial, costs)
    return trial.rows, done
