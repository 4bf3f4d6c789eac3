"""The steps of a build that tune the version's policies and judge them on its own rows.

tuned/{token}/version/far.safetensors   how unlike the version's rows a row may be
/costs.json     what the parts of a row take on this machine
/tuning.json    what the search over policies found
tuned.json                   and what confidences are calibrated with, and copies among the rows
evaluated.json               every compared policy on the version's own rows, beside the baselines
"""

import json
import logging
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from raee.config import TunedPolicy
from raee.drawn import evenly
from raee.errors import InputError
from raee.neighbours.near_copies import copies_record
from raee.policies.compared import beside_baselines, judged, metrics_of, objective_of
from raee.policies.costs import Costs
from raee.policies.measuring import machine, measure_costs, texts_measured
from raee.policies.objectives import Tuning
from raee.readers.discriminant import scatter_at
from raee.statistics.far import Far, far_of
from raee.texts import copies_of
from storage.manifest import FAR
from tasks.build.build import (
    COSTS,
    EVALUATE,
    FIT,
    TUNE,
    TUNING,
    VOTE,
    Build,
    Evaluated,
    Tuned,
    open_build,
)
from tasks.fitted import read_sums, write_arrays
from tasks.rows import rows_of_shard
from tasks.steps import Attempt, step

logger = logging.getLogger("raee")


@step(TUNE, opens=open_build, stage="tune", after=[FIT, VOTE])
def tune_build(build: Build, attempt: Attempt) -> Tuned:
    """Search over policies on the version's own rows, each without its text."""
    plan, lists = build.plan, build.readings.lists
    assert lists is not None, "a build writes its rows' lists"
    costs = _costs(build)
    copies = copies_record(build.readings.entries, lists)
    if copies["rows_with_an_equal"]:
        logger.info(
            "%d of %d rows have a text that another row has, too; figures leave out the text",
            copies["rows_with_an_equal"],
            copies["rows"],
        )
    if copies["barred"]:
        logger.warning("%s: %s", plan.target.where, copies["barred"])
    found = build.studied(costs["seconds"], copies["barred"])
    with suppress(InputError):  # evaluate_build logs it
        _log_tuning(found.tuning, objective_of(plan.job.policy))
    far = write_arrays(attempt.version, FAR, _far(build).tensors())
    attempt.folder.write_new(COSTS, json.dumps(costs).encode())
    attempt.folder.write_new(TUNING, found.tuning.model_dump_json().encode())
    rows = len(build.raw_trial)
    return Tuned(rows=rows, files=[far], temperatures=build.temperatures, copies=copies)


@step(EVALUATE, opens=open_build, stage="evaluate", after=[TUNE])
def evaluate_build(build: Build, attempt: Attempt) -> Evaluated:
    """Judge the compared policies on the version's own rows, each without its text.

    It warns if a baseline is better than the job's policy.  Raises InputError if that names an exit
    that the version lacks.
    """
    plan, trial = build.plan, build.trial
    names = [str(e) for e in plan.exits]
    costs = Costs(**build.cost_table()["seconds"])
    runs = judged(plan.job.policy, build.study(), trial, costs, names, plan.target.where)
    metrics = metrics_of(runs, trial)
    beside = beside_baselines(plan.job.policy.name, runs, metrics)
    if beside is not None:
        logger.info("%s", beside.difference)
        if beside.better is not None:
            logger.warning("%s: %s", plan.target.where, beside.better)
    return Evaluated(rows=len(trial), metrics=metrics)


def _far(build: Build) -> Far:
    """The statistics of how unlike the build's rows a fresh row is, at the first key's depth."""
    depth, marks, trial = build.plan.job.key.depth, build.swept.marks, build.raw_trial
    entries, rows = trial.entries, trial.rows
    return far_of(
        scatter_at(read_sums(build.files(FIT), "mean"), depth),
        build.swept.states("mean", [depth])[0],
        trial.label,
        copies_of(entries.hashes[rows], marks.hashes, marks.label, len(entries.labels)),
        trial.neighbours.distances[:, 0],
    )


def _log_tuning(tuning: Tuning, objective: TunedPolicy) -> None:
    """Log what a search found.  Raises InputError if nothing meets the objective."""
    picked = tuning.pick(objective)
    logger.info(
        "tuned: %d policies tried on %d rows; the pick has accuracy %.3f (cross-fitted) at %.2f "
        "layers, the best exit at full depth %.3f",
        tuning.tried,
        tuning.rows,
        picked.cross_fitted.accuracy,
        picked.cross_fitted.mean_layers,
        tuning.full_depth.cross_fitted.accuracy,
    )


def _costs(build: Build) -> dict[str, Any]:
    """The parent's cost table if it is this backbone's on this machine, or a new one."""
    plan, database, parent = build.plan, build.database, build.parent_manifest
    here = {"machine": machine(database), "rows": build.swept.rows}
    before = None if parent is None else parent.costs
    if parent is not None and before is not None:
        same_models = (parent.backbone, parent.key) == build.identities
        same_key = parent.job["key"] == plan.job.key.model_dump(mode="json")
        # A search takes longer among more rows.
        alike = 0.8 < here["rows"] / before["rows"] < 1.25
        if same_models and same_key and alike and before["machine"] == here["machine"]:
            return before
    shard, labels = plan.shards[0], plan.prompt.labels
    texts = rows_of_shard(plan.job.corpus, shard, build.backbone, labels).texts
    spread = evenly(len(texts), texts_measured(database))
    costs = measure_costs(database, [texts[i] for i in spread])
    return {**here, "seconds": asdict(costs)}
