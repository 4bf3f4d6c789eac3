"""The last steps of a build: the version's policies are tuned and judged, and it is published.

    tuned/{token}/version/far.safetensors   how unlike the version's rows a row may be
                 /costs.json     what the parts of a row take on this machine
                 /tuning.json    what the search over policies found
    tuned.json                   and what confidences are calibrated with, and copies among the rows
    evaluated.json               every compared policy on the version's own rows

The files of all steps are copied to the version; its manifest comes last, and makes it exist.
"""

import json
import logging
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import numpy as np
from prefect import task

from raee import __version__
from raee.config import PAPER_NEIGHBOURS, TunedPolicy
from raee.errors import InputError
from raee.exits import Entries, Neighbours
from raee.model.loaded import backbone_of, retriever_of
from raee.neighbours.gpu import search_on
from raee.neighbours.near_copies import copies_account
from raee.policies.compared import judged, objective_of
from raee.policies.costs import Costs
from raee.policies.measuring import machine, measure_costs, texts_measured
from raee.policies.objectives import Tuning
from raee.policies.replay import Trial, figures
from raee.policies.tuning import Study, study
from raee.readers.discriminant import scatter_at
from raee.reading import Database
from raee.statistics.calibration import calibrated, fit_temperatures
from raee.statistics.far import Far, far_of
from raee.texts import copies_of
from storage.checked import FileRecord
from storage.parquet import read_table
from storage.store import Folder
from storage.versions import (
    CENTRE,
    FAR,
    FORMAT,
    Manifest,
    has_version,
    publish,
    read_manifest,
)
from tasks.build.collect import put_readings_in_place
from tasks.build.fit import PROBED, sampled_states
from tasks.build.neighbours import INDEXED, entries_so_far, indexes_of
from tasks.build.plan import BuildPlan, plan_of
from tasks.build.shards import marks_of, rows_rejected, rows_swept
from tasks.build.sweep import centre_folder, head_of
from tasks.entries import read_entries, read_lists
from tasks.fitted import read_fits, read_sums, write_arrays
from tasks.markers import (
    VERSION,
    Attempt,
    account_of,
    done,
    marker,
    numbered,
    output,
    put_in_place,
)
from tasks.retrying import RETRIES
from tasks.rows import rows_of_shard

logger = logging.getLogger("raee")

SEED = 0
"""Of the folds in which policies are picked anew."""

_LIBRARIES = {
    "torch": "torch",
    "transformers": "transformers",
    "faiss-cpu": "faiss",
    "pyarrow": "pyarrow",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "prefect": "prefect",
}
"""By the name that a manifest has for it the module, which says its version however installed."""


@task(**RETRIES)
def tune_build(work: str) -> None:
    """Search over policies on the version's own rows, each without its text."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, "tuned") is not None:
        return
    attempt = Attempt(folder, "tuned")
    raw = _trial_as_read(work)
    costs = _costs(work, raw.entries)
    copies = copies_account(raw.entries, _lists(work))
    if copies["rows_with_an_equal"]:
        logger.info(
            "%d of %d rows have a text that another row has, too; figures leave out the text",
            copies["rows_with_an_equal"],
            copies["rows"],
        )
    if copies["barred"]:
        logger.warning("%s: %s", plan.where, copies["barred"])
    objective = objective_of(plan.job.policy)
    found = _studied(work, json.dumps(costs["seconds"]), copies["barred"])
    with suppress(InputError):  # said where the policy is judged
        _log_tuning(found.tuning, objective)
    far = write_arrays(attempt.version, FAR, _far(work, raw).tensors())
    attempt.folder.write_new("costs.json", json.dumps(costs).encode())
    attempt.folder.write_new("tuning.json", found.tuning.model_dump_json().encode())
    done(attempt, [far], len(raw), temperatures=_temperatures(work), copies=copies)


def _far(work: str, trial: Trial) -> Far:
    """What says how unlike the build's rows a fresh row is, at the first key's depth."""
    depth, marks = plan_of(work).job.key.depth, marks_of(work)
    entries, rows = trial.entries, trial.rows
    return far_of(
        scatter_at(read_sums(output(Folder(work), PROBED) / VERSION, "mean"), depth),
        sampled_states(work, "mean", [depth])[0],
        trial.label,
        copies_of(entries.hashes[rows], marks.hashes, marks.label, len(entries.labels)),
        trial.neighbours.distances[:, 0],
    )


def _log_tuning(tuning: Tuning, objective: TunedPolicy) -> None:
    """Say what a search found.  Raises InputError where nothing meets the objective."""
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


@task(**RETRIES)
def evaluate_build(work: str) -> None:
    """What the compared policies are worth on the version's own rows, each without its text."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, "evaluated") is not None:
        return
    attempt = Attempt(folder, "evaluated")
    trial = trial_of_build(work)
    names = [str(e) for e in plan.exits]
    costs = Costs(**found_costs(work)["seconds"])
    runs = judged(plan.job.policy, study_of_build(work), trial, costs, names, plan.where)
    metrics = {name: figures(run.done, trial) for name, run in runs.items()}
    done(attempt, [], len(trial), metrics=metrics)


def found_tuning(work: str) -> Tuning:
    """What a build's search over policies found."""
    return Tuning.model_validate_json(output(Folder(work), "tuned").read("tuning.json"))


def found_costs(work: str) -> dict[str, Any]:
    """A build's cost table, and where it was measured."""
    return json.loads(output(Folder(work), "tuned").read("costs.json"))


def study_of_build(work: str) -> Study:
    """A build's tuning, with what its picks did row by row."""
    barred = account_of(work, "tuned")["copies"]["barred"]
    return _studied(work, json.dumps(found_costs(work)["seconds"]), barred)


@lru_cache(maxsize=1)
def _studied(work: str, seconds: str, barred: str | None) -> Study:
    """Tuned once for the steps that tune, evaluate and report.  seconds: the costs, as JSON."""
    objective = objective_of(plan_of(work).job.policy)
    return study(trial_of_build(work), Costs(**json.loads(seconds)), objective, SEED, barred)


@lru_cache(maxsize=1)
def trial_of_build(work: str) -> Trial:
    """A build's complete rows, calibrated, with their neighbours among all rows."""
    raw = _trial_as_read(work)
    return replace(raw, entries=calibrated(raw.entries, _temperatures(work)))


@lru_cache(maxsize=1)
def _temperatures(work: str) -> dict[str, float]:
    return fit_temperatures(_trial_as_read(work).entries)


@lru_cache(maxsize=1)
def _trial_as_read(work: str) -> Trial:
    plan = plan_of(work)
    folder, parts, _ = entries_so_far(work)
    read = partial(read_table, folder)
    entries = read_entries(read, parts, plan.exits, plan.prompt.labels)
    rows = entries.complete
    return Trial(entries, rows, _lists(work)[rows])


@lru_cache(maxsize=1)
def _lists(work: str) -> Neighbours:
    """All rows' neighbours by the first key."""
    folder, _, lists = entries_so_far(work)
    return read_lists(partial(read_table, folder), lists, rows_swept(work))


def _costs(work: str, entries: Entries) -> dict[str, Any]:
    """The parent's cost table where it is this backbone's on this machine, or a new one."""
    plan = plan_of(work)
    database = _database(work, entries)
    here = {"machine": machine(database), "rows": rows_swept(work)}
    if plan.parent is not None:
        parent = read_manifest(plan.job.store, plan.job.name, plan.parent)
        before = parent.costs
        if (
            before is not None
            and (parent.backbone, parent.key) == (plan.backbone, plan.key)
            and before["machine"] == here["machine"]
            and parent.job["key"] == plan.job.key.model_dump(mode="json")
            and 0.8 < here["rows"] / before["rows"] < 1.25  # a search takes longer among more rows
        ):
            return before
    shard, labels = plan.shards[0], plan.prompt.labels
    texts = rows_of_shard(plan.job.corpus, shard, database.backbone, labels).texts
    spread = np.linspace(0, len(texts) - 1, min(texts_measured(database), len(texts))).astype(int)
    costs = measure_costs(database, [texts[i] for i in spread])
    return {**here, "seconds": asdict(costs)}


def _database(work: str, entries: Entries) -> Database:
    """What a build has so far, as a classification will read it."""
    plan = plan_of(work)
    backbone = backbone_of(plan.job.backbone)
    return Database(
        backbone=backbone,
        prompt=plan.prompt,
        head=head_of(work),
        key=plan.job.key,
        retriever=retriever_of(plan.job.key, plan.job.backbone.dtype),
        indexes=tuple(search_on(backbone.device, index) for index in indexes_of(work)),
        entries=entries,
        vote_k=PAPER_NEIGHBOURS,
        fits=read_fits(
            output(Folder(work), PROBED) / VERSION,
            entries.exits,
            account_of(work, PROBED)["account"],
        ),
    )


@task(**RETRIES)
def publish_build(work: str) -> str:
    """Put the version's files in place, and write its manifest, which makes it exist.

    Returns the version's id.  Raises InputError where the build was taken for dead meanwhile.
    """
    folder, plan = Folder(work), plan_of(work)
    if has_version(plan.job.store, plan.job.name, plan.version):
        return plan.version
    swept = put_readings_in_place(work)
    steps = [step for steps in _steps(folder, plan).values() for step in steps]
    files = put_in_place(folder, {s: account_of(work, s) for s in steps}, plan.folder)
    if plan.has_centre:
        centre_folder(work).copy([CENTRE], plan.folder)
        files.append(plan.folder.record(CENTRE))
    try:
        publish(plan.folder, _manifest(folder, plan, files, swept))
    except FileExistsError:
        if not has_version(plan.job.store, plan.job.name, plan.version):
            raise InputError(
                f"version {plan.version} was collected as a dead build's; build again"
            ) from None
        logger.info("version %s was published by another build meanwhile", plan.version)
    return plan.version


def _steps(folder: Folder, plan: BuildPlan) -> dict[str, list[str]]:
    """The steps of each stage that leave files or take time."""
    return {
        "centre": ["centre"] if marker(folder, "centre") is not None else [],
        "sweep": [numbered("shard", n) for n in plan.numbers],
        "fit": [PROBED],
        "index": [INDEXED],
        "vote": [numbered("part", n) for n in plan.numbers],
        "tune": ["tuned"],
        "evaluate": ["evaluated"],
        "report": ["reported"],
    }


def _manifest(
    folder: Folder, plan: BuildPlan, files: list[FileRecord], swept: list[FileRecord]
) -> Manifest:
    seconds = {}
    for name, steps in _steps(folder, plan).items():
        seconds[name] = round(sum(account_of(folder.uri, s)["seconds"] for s in steps), 3)
    prompt = plan.prompt
    return Manifest(
        format=FORMAT,
        name=plan.job.name,
        id=plan.version,
        parent=plan.parent,
        created_at=datetime.now(UTC),
        job=plan.job.model_dump(mode="json"),
        prompt={"template": prompt.template, "labels": prompt.labels, "words": prompt.words},
        backbone=plan.backbone,
        key=plan.key,
        exits=[str(e) for e in plan.exits],
        labels=list(prompt.labels),
        rows=rows_swept(folder.uri),
        rejected=dict(rows_rejected(folder.uri)),
        files=sorted(files, key=lambda f: f.path),
        corpus=plan.corpus,
        metrics=account_of(folder.uri, "evaluated")["metrics"],
        policy=plan.job.policy.model_dump(),
        seconds=seconds,
        probes=account_of(folder.uri, PROBED)["account"],
        costs=found_costs(folder.uri),
        tuning=found_tuning(folder.uri).model_dump(mode="json"),
        temperatures=account_of(folder.uri, "tuned")["temperatures"],
        copies=account_of(folder.uri, "tuned")["copies"],
        indexes=account_of(folder.uri, INDEXED)["indexes"],
        recipe=plan.recipe,
        swept=swept,
        code_version=__version__,
        libraries={n: str(import_module(m).__version__) for n, m in _LIBRARIES.items()},
    )
