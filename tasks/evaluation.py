"""Evaluation: every policy on labelled rows that the database has not seen."""

import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.classify import Database, Predictions, classify
from raee.replay import scores
from storage.aliases import resolve_version
from storage.scan import read_shard, scan
from storage.versions import read_manifest
from tasks.database import check_fits, load_database
from tasks.job import Job, policies_of
from tasks.models import shard_rows_of
from tasks.progress import advance, stage


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
    policies = policies_of(job)
    runs: dict[str, list[Predictions]] = {name: [] for name in policies}
    seconds = dict.fromkeys(policies, 0.0)
    label: list[int] = []
    with stage("evaluate", found.rows * len(policies)):
        for shard in found.shards(shard_rows_of(job, database.backbone, found)):
            usable, _ = read_shard(corpus, shard, True, labels)
            texts = [row.text for row in usable]
            label += [labels.index(str(row.label)) for row in usable]
            for name, policy in policies.items():
                begun = time.monotonic()
                runs[name].append(classify(database, policy, texts, advance))
                seconds[name] += time.monotonic() - begun
    right = np.array(label, dtype=np.uint16)
    results = {
        name: _figures(database, runs[name], right)
        | {"rows_per_second": found.rows / seconds[name]}
        for name in policies
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


def _figures(
    database: Database, runs: list[Predictions], right: NDArray[np.uint16]
) -> dict[str, Any]:
    answers = np.concatenate([run.labels for run in runs])
    layers = np.concatenate([run.layers for run in runs])
    exits = Counter(str(database.entries.exits[i]) for run in runs for i in run.exits)
    return {**scores(answers, right, layers), "exits": dict(exits.most_common())}
