"""The last steps of a build: the version's policies are tuned and judged, and it is published.

    work/{build key}/costs.json     what the parts of a row take on this machine
                    /tuning.json    what the search over policies found
                    /metrics.json   every compared policy on the version's own rows

The manifest comes last, and makes the version exist.
"""

import json
import logging
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import Any

import numpy as np
from prefect import task

from raee.config import PAPER_NEIGHBOURS, TunedPolicy
from raee.costs import Costs
from raee.exits import Entries, Neighbours
from raee.measuring import TEXTS, machine, measure_costs
from raee.objectives import Tuning
from raee.reading import Database
from raee.replay import Trial, figures, replay
from raee.tuning import tune
from storage.parquet import list_values, part_name, read_table
from storage.scan import read_shard
from storage.store import FileRecord, Folder
from storage.versions import (
    CENTRE,
    FORMAT,
    MANIFEST,
    Manifest,
    publish,
    read_manifest,
)
from tasks.build import head_of, indexes_of
from tasks.build_plan import BuildPlan, plan_of
from tasks.entries import read_entries
from tasks.fitted import read_probes
from tasks.markers import done, marker
from tasks.models import backbone_of, retriever_of
from tasks.policies import compared
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")

SEED = 0
"""Of the halves that policies are searched and checked on."""

_LIBRARIES = ("torch", "transformers", "faiss-cpu", "pyarrow", "numpy", "scikit-learn", "prefect")


@task(**RETRIES)
def tune_build(work: str) -> None:
    """Search over policies on the version's own rows, each without itself."""
    folder = Folder(work)
    if marker(folder, "tuned") is not None:
        return
    begun = time.monotonic()
    trial = trial_of_build(work)
    costs = _costs(work, trial.entries)
    found = tune(trial, Costs(**costs["seconds"]), SEED)
    best = found.pick(TunedPolicy())
    logger.info(
        "tuned: %d policies tried on %d rows, checked on %d others; the best has accuracy %.3f at "
        "%.2f layers, full depth %.3f",
        found.tried,
        found.searched_rows,
        found.checked_rows,
        best.checked.accuracy,
        best.checked.mean_layers,
        found.full_depth.checked.accuracy,
    )
    with folder.create("costs.json") as file:
        file.write(json.dumps(costs).encode())
    with folder.create("tuning.json") as file:
        file.write(found.model_dump_json().encode())
    done(folder, "tuned", [], len(trial), begun)


@task(**RETRIES)
def evaluate_build(work: str) -> None:
    """Replay the compared policies on the version's own rows, each without itself."""
    folder, plan = Folder(work), plan_of(work)
    if folder.exists("metrics.json"):
        return
    begun = time.monotonic()
    trial = trial_of_build(work)
    tuning, costs = found_tuning(work), Costs(**found_costs(work)["seconds"])
    policies = compared(plan.job.policy, tuning, [str(e) for e in plan.exits], plan.where)
    metrics = {n: figures(replay(p, trial, costs), trial) for n, p in policies.items()}
    with folder.create("metrics.json") as file:
        file.write(json.dumps(metrics).encode())
    done(folder, "evaluated", [], len(trial), begun)


def found_tuning(work: str) -> Tuning:
    """What a build's search over policies found."""
    return Tuning.model_validate_json(Folder(work).read("tuning.json"))


def found_costs(work: str) -> dict[str, Any]:
    """A build's cost table, and where it was measured."""
    return json.loads(Folder(work).read("costs.json"))


def trial_of_build(work: str) -> Trial:
    """A build's complete rows, with their neighbours among all rows."""
    folder, plan = Folder(work), plan_of(work)
    numbers = range(len(plan.shards))
    paths = [f"entries/{part_name(n)}" for n in numbers]
    entries = read_entries(plan.folder, paths, plan.exits, plan.prompt.labels)
    found = [read_table(folder, f"neighbours-{n:05d}.parquet") for n in numbers]
    neighbours = Neighbours(
        np.concatenate([list_values(t["rows"]) for t in found]),
        np.concatenate([list_values(t["distances"]) for t in found]),
        np.arange(len(entries)),
    )
    rows = entries.complete
    return Trial(entries, rows, neighbours[rows])


def _costs(work: str, entries: Entries) -> dict[str, Any]:
    """The parent's cost table where it is this backbone's on this machine, or a new one."""
    plan = plan_of(work)
    database = _database(work, entries)
    here = {"machine": machine(database), "rows": plan.rows}
    if plan.parent is not None:
        parent = read_manifest(plan.job.store, plan.job.name, plan.parent)
        before = parent.costs
        if (
            before is not None
            and (parent.backbone, parent.key) == (plan.backbone, plan.key)
            and before["machine"] == here["machine"]
            and parent.job["key"] == plan.job.key.model_dump(mode="json")
            and 0.8 < plan.rows / before["rows"] < 1.25  # a search takes longer among more rows
        ):
            return before
    rows, _ = read_shard(plan.job.corpus, plan.shards[0], True, plan.prompt.labels)
    spread = np.linspace(0, len(rows) - 1, min(TEXTS, len(rows))).astype(int)
    costs = measure_costs(database, [rows[i].text for i in spread])
    return {**here, "seconds": asdict(costs)}


def _database(work: str, entries: Entries) -> Database:
    """What a build has so far, as a classification will read it."""
    plan, said = plan_of(work), marker(Folder(work), "probes")
    assert said is not None, "probes are fitted before anything is tuned"
    return Database(
        backbone=backbone_of(plan.job.backbone),
        prompt=plan.prompt,
        head=head_of(work),
        key=plan.job.key,
        retriever=retriever_of(plan.job.key, plan.job.backbone.dtype),
        indexes=indexes_of(work),
        entries=entries,
        vote_k=PAPER_NEIGHBOURS,
        probes=read_probes(plan.folder, said["account"]),
    )


@task(**RETRIES)
def publish_build(work: str) -> str:
    """Write the manifest, which makes the version exist; returns the version's id."""
    folder, plan = Folder(work), plan_of(work)
    try:
        if not plan.folder.exists(MANIFEST):
            publish(plan.folder, _manifest(folder, plan))
    except FileExistsError:
        logger.info("version %s was published by another build meanwhile", plan.version)
    folder.remove()
    return plan.version


def _manifest(folder: Folder, plan: BuildPlan) -> Manifest:
    files: list[FileRecord] = []
    seconds = {}
    if plan.has_centre:
        data = folder.read(CENTRE)
        with plan.folder.create(CENTRE) as file:
            file.write(data)
        files.append(file.record())
    numbers = range(len(plan.shards))
    stages = {
        "centre": ["centre"],
        "sweep": [f"shard-{n:05d}" for n in numbers],
        "fit": ["probes"],
        "index": ["index"],
        "vote": [f"part-{n:05d}" for n in numbers],
        "tune": ["tuned"],
        "evaluate": ["evaluated"],
        "report": ["reported"],
    }
    for name, steps in stages.items():
        said = [s for s in (marker(folder, step) for step in steps) if s is not None]
        seconds[name] = round(sum(s["seconds"] for s in said), 3)
        files += [FileRecord(**record) for s in said for record in s["files"]]
    prompt = plan.prompt
    fitted = marker(folder, "probes")
    assert fitted is not None, "probes are fitted before a version is published"
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
        rows=plan.rows,
        rejected=plan.rejected,
        files=sorted(files, key=lambda f: f.path),
        corpus=plan.corpus,
        metrics=json.loads(folder.read("metrics.json")),
        policy=plan.job.policy.model_dump(),
        seconds=seconds,
        probes=fitted["account"],
        costs=found_costs(folder.uri),
        tuning=found_tuning(folder.uri).model_dump(mode="json"),
        code_version=installed("raee"),
        libraries={name: installed(name) for name in _LIBRARIES},
    )
