"""The promotion gate: a rebuild takes over production only if it is as good.

It is compared with two versions: with the one in production, which shows what a single night did,
and with a pinned one, because many nights that are each no worse beyond noise may together lose a
lot.

A tuned policy is picked anew every night, and picks of about the same worth differ on a tenth of
the rows, by accuracy that the price pays for.  That hides what new rows do to a database.  So tuned
versions are compared by what they are picked from: for each row, the share of the probes at all
depths that are right.  Other policies are compared by their answers.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prefect import task

from raee.config import RunnablePolicy
from raee.errors import InputError
from raee.policies.compared import runnable
from raee.policies.replay import replay
from raee.policies.table import neighbours_planned_on
from raee.policies.tuning import TUNED
from raee.readers.probe import READER as PROBE
from raee.statistics.paired import paired, worse_p_value
from storage.alias_names import DEFAULT_ALIAS, PINNED
from storage.database import Version
from storage.manifest import Manifest, Verdict
from tasks.job import Job
from tasks.readings import Readings, load_readings, tuning_of
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")

LEVEL = 0.007
"""One-sided level of each test that a version is worse: the chance that one of thirty looks, night
after night at the same pinned version, is a false alarm, is then 5 % (Pocock, Biometrika 64, 1977:
equally spaced looks, each at 2.46 standard errors)."""


_Rows = dict[tuple[str, str], tuple[NDArray[np.str_], str, int]]
"""By id and text hash: the answers (one, or one a probe), the row's label, and the hash of its
token ids."""


@dataclass(frozen=True)
class Compared:
    """A new version against an older one."""

    p_value: float
    """Of "the new version is no worse than the old"."""
    how: str
    """What was compared, in words."""


@task(**RETRIES)
def promote_if_as_good(job: Job, version: Version) -> str:
    """Point `production` at a version, unless it is worse beyond noise.

    It is compared with the version in production, and with the pinned one.  Each is read on its own
    rows, each row without its text; rows that both have are compared pair by pair.  Returns what
    came out and why, which also stays with the version.  Raises InputError if the version cannot be
    read.
    """
    verdict = _judge_and_promote(job, version)
    if verdict.promoted:
        logger.info("%s", verdict.why)
    else:
        logger.warning("%s", verdict.why)
    version.keep_verdict(verdict)
    return verdict.why


def _judge_and_promote(job: Job, version: Version) -> Verdict:
    database, new_id = version.database, version.id
    pointing = database.aliases()
    current = pointing.get(DEFAULT_ALIAS)
    if current == new_id:
        return Verdict(promoted=True, why=f"{DEFAULT_ALIAS} points at {new_id} already")
    new = load_readings(version)
    try:
        runnable(job.policy, tuning_of(new.manifest), new.where)
    except InputError as error:
        why = f"{new_id} stays unpromoted: its own policy cannot be met: {error}"
        return Verdict(promoted=False, why=why)
    if current is None:
        database.promote(new_id, PINNED)
        how = ["there was none before"]
    else:
        if PINNED not in pointing:  # versions were promoted before there were pins
            with suppress(InputError):  # of a version that is gone
                database.promote(current, PINNED)
        against = {DEFAULT_ALIAS: current}
        if (pinned := pointing.get(PINNED, current)) != current:
            against[PINNED] = pinned
        how = []
        for alias, other in against.items():
            try:
                found = compare(new, load_readings(database.version(other)))
            except InputError as error:  # an old version that cannot run is no obstacle
                how.append(f"{alias} ({other}) cannot be run: {error}")
                continue
            why = f"against {alias} ({other}) {found.how}, p = {found.p_value:.2g}"
            if found.p_value < LEVEL:
                why = f"{new_id} stays unpromoted: it is worse beyond noise: {why}, below {LEVEL}"
                if alias == PINNED:
                    why += f"; `raee promote {job.name} {new_id}` takes and pins it all the same"
                return Verdict(promoted=False, why=why)
            how.append(f"{why}, not below {LEVEL}")
    database.promote(new_id, DEFAULT_ALIAS)
    return Verdict(promoted=True, why=f"{DEFAULT_ALIAS} now points at {new_id}: {'; '.join(how)}")


def compare(new: Readings, old: Readings) -> Compared:
    """Whether a new version is worse than an old one.

    On rows that both have, the new labels count for both: a corrected label is no fault.  Rows of
    one text count once.  Raises InputError if the policy of one cannot be run.
    """
    from scipy.stats import fisher_exact  # slow to import

    policies = [_policy(readings) for readings in (new, old)]
    probes = all(_is_tuned(readings) for readings in (new, old))
    ours, theirs = (
        _read(readings, None if probes else policy)
        for readings, policy in zip((new, old), policies, strict=True)
    )
    pace = _pace(new.manifest, old.manifest)
    common = [row for row in ours if row in theirs]
    if not common:
        right, before = (
            np.array([np.mean(answers == label) for answers, label, _ in read.values()])
            for read in (ours, theirs)
        )
        wins, losses = round(right.sum()), round(before.sum())
        table = [[wins, len(right) - wins], [losses, len(before) - losses]]
        return Compared(
            float(fisher_exact(table, alternative="less").pvalue),
            f"no row in common; accuracy {right.mean():.4f}, before {before.mean():.4f}{pace}",
        )
    label = [ours[row][1] for row in common]
    right, before = (
        np.array([np.mean(read[row][0] == own) for row, own in zip(common, label, strict=True)])
        for read in (ours, theirs)
    )
    _, once = np.unique([ours[row][2] for row in common], return_index=True)
    accuracy = f"accuracy {right.mean():.4f}, before {before.mean():.4f}"
    if probes:
        how = f"the probes' mean {accuracy}"
    else:
        found = paired(right[once] == 1, before[once] == 1)
        how = f"{found.wins} answers got right and {found.losses} got wrong ({accuracy})"
    return Compared(
        worse_p_value(right[once], before[once]), f"on {len(common)} rows in common {how}{pace}"
    )


def _policy(readings: Readings) -> RunnablePolicy:
    """A version's policy.  Raises InputError if it cannot be run."""
    job = Job.model_validate(readings.manifest.job)
    return runnable(job.policy, tuning_of(readings.manifest), readings.where)


def _is_tuned(readings: Readings) -> bool:
    """Whether a version's policy is picked among exits that probes are read at."""
    return readings.manifest.policy["name"] == TUNED and bool(
        readings.entries.positions(PROBE.name)
    )


def _pace(new: Manifest, old: Manifest) -> str:
    """Two versions' own policies, in words: milliseconds a row by each one's own cost table."""
    words = []
    for manifest in (new, old):
        figures = manifest.metrics.get(manifest.policy["name"])
        if figures is None or manifest.costs is None:
            return ""
        words.append(
            f"{figures['accuracy']:.4f} at {1000 * figures['seconds_per_row']:.2f} ms a row"
        )
    return f"; its policy has {words[0]}, before {words[1]}"


def _read(readings: Readings, policy: RunnablePolicy | None) -> _Rows:
    """A version's complete rows, as a policy answers them, or all probes if there is no policy."""
    entries, names = readings.entries, np.array(readings.manifest.labels)
    if policy is None:
        rows = entries.complete
        answers = entries.answers[rows][:, entries.positions(PROBE.name)]
    else:
        trial = readings.trial(neighbours_planned_on(policy))
        rows, answers = trial.rows, replay(policy, trial).answers[:, None]
    keys: list[tuple[str, str]] = []
    for part in readings.parts:
        table = readings.files.table(part, ["id", "text_hash"])
        columns = (table["id"].to_pylist(), table["text_hash"].to_pylist())
        keys += list(zip(*columns, strict=True))
    return {
        keys[row]: (names[own], str(names[entries.label[row]]), int(entries.hashes[row]))
        for row, own in zip(rows, answers, strict=True)
    }
