"""The last steps of a build: the version is evaluated and published."""

import json
import logging
import time
from datetime import UTC, datetime
from importlib.metadata import version as installed

import numpy as np
from prefect import task

from raee.exits import Neighbours
from raee.replay import replay, scores
from storage.parquet import list_values, part_name, read_table
from storage.store import FileRecord, Folder
from storage.versions import CENTRE, FORMAT, MANIFEST, Manifest, publish
from tasks.build_plan import BuildPlan, plan_of
from tasks.entries import read_entries
from tasks.job import policies_of
from tasks.markers import done, marker
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")

_LIBRARIES = ("torch", "transformers", "faiss-cpu", "pyarrow", "numpy", "prefect")


@task(**RETRIES)
def evaluate_build(work: str) -> None:
    """Replay the policies on the version's own rows, leave-one-out."""
    folder, plan = Folder(work), plan_of(work)
    if folder.exists("metrics.json"):
        return
    begun = time.monotonic()
    paths = [f"entries/{part_name(n)}" for n in range(len(plan.shards))]
    entries = read_entries(plan.folder, paths, plan.exits, plan.prompt.labels)
    found = [read_table(folder, f"neighbours-{n:05d}.parquet") for n in range(len(plan.shards))]
    neighbours = Neighbours(
        np.concatenate([list_values(t["rows"]) for t in found]),
        np.concatenate([list_values(t["distances"]) for t in found]),
    )
    metrics = {}
    for name, policy in policies_of(plan.job).items():
        replayed = replay(policy, entries, neighbours, plan.job.key.depth)
        metrics[name] = scores(replayed.answers, entries.label, replayed.layers)
    with folder.create("metrics.json") as file:
        file.write(json.dumps(metrics).encode())
    done(folder, "evaluated", [], len(entries), begun)


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
        "index": ["index"],
        "vote": [f"part-{n:05d}" for n in numbers],
        "evaluate": ["evaluated"],
    }
    for name, steps in stages.items():
        said = [s for s in (marker(folder, step) for step in steps) if s is not None]
        seconds[name] = round(sum(s["seconds"] for s in said), 3)
        files += [FileRecord(**record) for s in said for record in s["files"]]
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
        rows=plan.rows,
        rejected=plan.rejected,
        files=sorted(files, key=lambda f: f.path),
        corpus=plan.corpus,
        metrics=json.loads(folder.read("metrics.json")),
        policy=plan.job.policy.model_dump(),
        seconds=seconds,
        code_version=installed("raee"),
        libraries={name: installed(name) for name in _LIBRARIES},
    )
