"""The policies that a version is judged by, under the names that tables show."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raee.config import (
    FixedPolicy,
    FullPolicy,
    PolicySpec,
    RaeePolicy,
    RetrievalPolicy,
    RunnablePolicy,
    TunedPolicy,
)
from raee.errors import InputError
from raee.exits import Entries, parse_exits
from raee.policies.baselines import (
    BASELINES,
    MAJORITY,
    Against,
    Rated,
    against,
    against_the_best,
    better_baseline,
)
from raee.policies.costs import Costs
from raee.policies.objectives import Tuning
from raee.policies.replay import NO_EXIT, Replayed, Trial, figures, replay
from raee.policies.tuning import FULL_DEPTH, TUNED, Study
from raee.readers.logistic import READER as LOGISTIC
from raee.readers.words import READER as WORDS

logger = logging.getLogger("raee")

COMPARED = (
    *BASELINES,
    *("full", "fixed", "retrieval", "raee", "kernel", "de3", "cascade", "tuned"),
)
"""In the order of tables: what people do without raee, what the head says at full depth, exits."""

_PICKED = ("fixed", "retrieval", "kernel", "de3", "cascade")
"""Policies that a tuning picks for a table, of many of their kind."""


@dataclass(frozen=True)
class Judged:
    """A policy on a version's own rows, and what it, or picks like it, did with them."""

    policy: RunnablePolicy
    done: Replayed
    """Cross-fitted where the policy was picked on these rows."""
    picked: bool
    """Whether it was."""


def objective_of(spec: PolicySpec) -> TunedPolicy:
    """What a job asks of tuning; the default where it names another policy."""
    return spec if isinstance(spec, TunedPolicy) else TunedPolicy()


def runnable(spec: PolicySpec, tuning: Tuning | None, where: str) -> RunnablePolicy:
    """A policy that says for itself where rows leave: of `tuned`, the one that was found.

    where: the version, for messages.  Raises InputError where it was not tuned, or nothing that
    was found meets the objective.
    """
    if not isinstance(spec, TunedPolicy):
        return spec
    if tuning is None:
        raise InputError(f"{where} was built without tuning; name another policy or build it anew")
    found = tuning.pick(spec)
    if spec.risk is not None and found.policy == tuning.promise.baseline.policy:
        logger.warning(
            "%s: no cheaper policy can be promised to lose at most %g of the accuracy with "
            "confidence %g%s; every row runs to full depth",
            where,
            spec.risk.max_loss,
            spec.risk.confidence,
            "" if tuning.promise.barred is None else f" ({tuning.promise.barred})",
        )
    if not isinstance(spec.accuracy, str) and found.cross_fitted.accuracy < spec.accuracy:
        logger.warning(
            "%s: the pick for accuracy %g has %.3f on rows that it was picked without: the target "
            "is an estimate, and may be missed",
            where,
            spec.accuracy,
            found.cross_fitted.accuracy,
        )
    return found.policy


def compared(
    spec: PolicySpec, tuning: Tuning | None, exits: Sequence[str], where: str
) -> dict[str, RunnablePolicy]:
    """The policies that a table compares, by name; the job's own with the job's settings.

    `fixed`, `retrieval`, `kernel`, `de3` and `cascade` have the settings that the tuning picked for
    them.  `tuned` is left out, with a warning, where nothing that was found meets the objective or,
    if the job asks for it, the version was not tuned.
    """
    found: dict[str, RunnablePolicy] = {
        "full": FullPolicy(),
        "fixed": FixedPolicy(),
        "retrieval": RetrievalPolicy(),
        "raee": RaeePolicy(),
    }
    for exit in parse_exits(exits):
        if exit.reader in (WORDS.name, LOGISTIC.name):  # each is asked at one depth
            found[exit.reader] = FixedPolicy(exit=str(exit))
    if tuning is not None:
        for name in _PICKED:
            if name in tuning.families:
                found[name] = tuning.families[name].policy
    if isinstance(spec, TunedPolicy) or tuning is not None:
        try:
            found[TUNED] = runnable(objective_of(spec), tuning, where)
        except InputError as error:
            logger.warning("%s: the policy tuned is left out: %s", where, error)
    if not isinstance(spec, TunedPolicy):
        found[spec.name] = spec
    return {name: found[name] for name in COMPARED if name in found}


def judged(
    spec: PolicySpec, study: Study, trial: Trial, costs: Costs, exits: Sequence[str], where: str
) -> dict[str, Judged]:
    """The compared policies on a version's own rows.  study: of the trial, for the job's policy."""
    found = {}
    set_by_the_job = None if isinstance(spec, TunedPolicy) else spec.name
    for name, policy in compared(spec, study.tuning, exits, where).items():
        picked = name in (*_PICKED, TUNED) and name in study.done and name != set_by_the_job
        done = study.done[name] if picked else replay(policy, trial, costs)
        found[name] = Judged(policy, done, picked)
    return found


def report_runs(
    spec: PolicySpec, study: Study, trial: Trial, costs: Costs, exits: Sequence[str], where: str
) -> dict[str, Judged]:
    """The policies of a report: the compared ones, and the best exit at full depth.

    Where a job's target cannot be met, the report shows what comes nearest.
    """
    found = judged(spec, study, trial, costs, exits, where)
    full_depth = Judged(study.tuning.full_depth.policy, study.done[FULL_DEPTH], True)
    nearest = Judged(study.picked.policy, study.done[TUNED], True)
    return {FULL_DEPTH: full_depth, TUNED: nearest, **found}


def majority_label(entries: Entries) -> int:
    """The index of the database's most frequent label; of equal ones the first."""
    return int(np.bincount(entries.label).argmax())


def majority(trial: Trial) -> Replayed:
    """The database's most frequent label for every row, which costs nothing."""
    rows = len(trial)
    return Replayed(
        np.full(rows, NO_EXIT),
        np.full(rows, majority_label(trial.entries), np.uint16),
        np.zeros(rows, np.int64),
        np.zeros(rows),
    )


def metrics_of(runs: Mapping[str, Judged], trial: Trial) -> dict[str, dict[str, Any]]:
    """By name, figures on a version's own rows: of the judged policies, and of the majority.

    Each is compared with every baseline that there is (`against`); equal texts count once there,
    since copies are no evidence of their own.
    """
    done = {MAJORITY: majority(trial), **{name: run.done for name, run in runs.items()}}
    once = trial.texts.first_rows
    right = {name: (replayed.answers == trial.label)[once] for name, replayed in done.items()}
    there = [b for b in BASELINES if b in done]
    return {
        name: {
            **figures(replayed, trial),
            "against": {b: against(right[name], right[b]).model_dump() for b in there},
        }
        for name, replayed in done.items()
    }


@dataclass(frozen=True)
class BesideBaselines:
    """A policy beside the baselines, in words."""

    difference: str
    """To the best of them."""
    better: str | None
    """Which of them is better, and what to do; None if none is."""


def beside_baselines(
    name: str, runs: Mapping[str, Judged], metrics: Mapping[str, Mapping[str, Any]]
) -> BesideBaselines | None:
    """A policy beside the baselines on a version's own rows; None if it was not judged.

    metrics: as `metrics_of` has them; costs are modelled seconds.
    """
    if name not in runs:
        return None
    found = {b: Against.model_validate(one) for b, one in metrics[name]["against"].items()}
    rated = {n: Rated(m["accuracy"], m["seconds_per_row"]) for n, m in metrics.items()}
    policies = {n: run.policy for n, run in runs.items()}
    return BesideBaselines(
        against_the_best(name, found), better_baseline(name, policies, rated, found)
    )
