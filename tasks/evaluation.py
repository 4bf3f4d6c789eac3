"""Evaluation: every policy on labelled rows that the database has not seen."""

import logging
import time
from typing import Any

import numpy as np

from raee.classify import classify
from raee.replay import scores
from storage.aliases import resolve_version
from storage.scan import read_shard, scan
from storage.versions import read_manifest
from tasks.database import check_fits, load_database
from tasks.job import Job, policies_of
from tasks.models import auto_shard_rows
from tasks.progress import advance, stage

logger = logging.getLogger("raee")


def evaluate_corpus(job: Job, uri: str, version: str | None) -> dict[str, Any]:
    """Classify labelled rows with every policy; accuracy, macro-F1, Matthews, layers and rows/s.

    `fixed` without an exit of its own is the single exit that is best on the database's rows, not
    on these.  Raises InputError as a classification does.
    """
    chosen = resolve_version(job.store, job.name, version)
    manifest = read_manifest(job.store, job.name, chosen)
    check_fits(job, manifest)
    labels = manifest.labels
    corpus = job.corpus.model_copy(update={"uri": uri})
    with stage("read rows", None):
        found = scan(corpus, True, labels, job.max_reject_fraction, advance)
    database = load_database(job.store, job.name, chosen, job.backbone, job.key)
    rows = job.shard_rows
    if rows == "auto":
        rows = auto_shard_rows(database.backbone, found.characters / found.rows)
    shards = [read_shard(corpus, shard, True, labels)[0] for shard in found.shards(rows)]
    label = np.array([labels.index(str(r.label)) for s in shards for r in s], dtype=np.uint16)
    results: dict[str, dict[str, Any]] = {}
    for name, policy in policies_of(job).items():
        answers, layers, exits = [], [], []
        begun = time.monotonic()
        with stage(name, found.rows):
            for shard in shards:
                said = classify(database, policy, [row.text for row in shard], advance)
                answers.append(said.labels)
                layers.append(said.layers)
                exits.append(said.exits)
        seconds = time.monotonic() - begun
        places, counts = np.unique(np.concatenate(exits), return_counts=True)
        results[name] = {
            **scores(np.concatenate(answers), label, np.concatenate(layers)),
            "rows_per_second": found.rows / seconds,
            "exits": {
                str(database.entries.exits[p]): int(n) for p, n in zip(places, counts, strict=True)
            },
        }
    return {
        "database": job.name,
        "version": chosen,
        "input": uri,
        "rows": found.rows,
        "rejected": dict(found.rejected),
        "labels": labels,
        "depth": database.backbone.depth,
        "policies": results,
    }
