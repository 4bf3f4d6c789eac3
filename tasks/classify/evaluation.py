"""Evaluation: every policy on labelled rows that the database has not seen.

The command `evaluate`; no task uses it.
"""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from raee.all_exits import outcome
from raee.evaluation import (
    PolicyFigures,
    compare_on,
    majority_figures,
    notes,
    read_for,
    timed_rows,
)
from raee.exits import parse_exits
from raee.policies.baselines import MAJORITY
from raee.policies.compared import compared
from raee.policies.table import check_policy
from storage.scan import scan
from tasks.classify.corpus_shift import label_shares, ratio_of
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.models import shard_rows_of
from tasks.progress import advance, stage
from tasks.readings import check_fits, load_database, tuning_of
from tasks.rows import label_numbers, rows_of_shard


class Evaluation(BaseModel):
    """Every policy on labelled rows that a version has not seen."""

    model_config = ConfigDict(frozen=True)

    database: str
    version: str
    input: str
    rows: int
    rejected: dict[str, int]
    """Rows that cannot be used, by reason."""
    labels: list[str]
    depth: int
    """Layers of the backbone."""
    policies: dict[str, PolicyFigures]
    """By policy."""
    settings: dict[str, dict[str, Any]]
    """By policy."""
    majority: PolicyFigures
    """The database's most frequent label for every row: no policy, but what all must beat."""
    notes: list[str]
    """Lines about the job's policy beside the baselines, for people."""


def evaluate_corpus(job: Job, uri: str, version: str | None) -> Evaluation:
    """Figures of every policy on labelled rows: accuracy, macro-F1, Matthews, layers and rows/s.

    The rows are read once; under `balance: corpus` twice, if their label shares differ from the
    database's beyond noise.

    version: an id or an alias; by default as `Database.open`.  A policy's own choices, such as the
    exit of `fixed`, are made on the database's rows, not on these.  The job's own policy runs as a
    classification would, with far rows.  Raises InputError as a classification does.
    """
    use_credentials(job.credentials)
    chosen = job.database.open(version)
    manifest = chosen.manifest()
    check_fits(job, manifest)
    check_policy(job.policy, parse_exits(manifest.exits))
    labels = manifest.labels
    corpus = job.corpus.model_copy(update={"uri": uri})
    with stage("read rows", None):
        found = scan(corpus, labels, job.max_reject_fraction, advance)
    database = load_database(chosen, job.backbone, job.key)
    tuning, where = tuning_of(manifest), chosen.where
    policies = compared(job.policy, tuning, manifest.exits, where)
    shards = found.shards(shard_rows_of(job, database.backbone, found))
    read = [rows_of_shard(corpus, shard, database.backbone, labels) for shard in shards]
    rows = pl.concat([part.usable for part in read])
    right = label_numbers(rows["label"], labels).astype(np.int32)
    texts = rows["text"].to_list()
    own = None if job.balance == "database" else policies.get(job.policy.name)
    with stage("evaluate", len(texts)):
        seen = read_for(database, policies, texts, advance)
    ratio = None
    if own is not None:
        answers = outcome(database, own, seen, seen.trial(database.entries, right)).labels
        shares = label_shares(
            database.entries, database.index, own, np.bincount(answers, minlength=len(labels))
        )
        ratio = ratio_of(shares, job.balance)
    if ratio is not None:
        # Confidences under other shares follow from whole distributions, which nobody keeps.
        with stage("evaluate with the corpus's shares", len(texts)):
            seen = read_for(database, policies, texts, advance, ratio)
    with stage("measure rows/s", timed_rows(database, len(texts)) * len(policies)):
        results = compare_on(
            database, policies, texts, seen, right, job.policy.name, job.far, ratio, advance
        )
    majority = majority_figures(database, right)
    return Evaluation(
        database=job.name,
        version=chosen.id,
        input=uri,
        rows=len(rows),
        rejected=dict(sum((Counter(part.rejected()) for part in read), Counter())),
        labels=labels,
        depth=database.backbone.depth,
        policies=results,
        settings={name: policy.model_dump() for name, policy in policies.items()},
        majority=majority,
        notes=notes(job.policy.name, policies, {MAJORITY: majority, **results}),
    )
