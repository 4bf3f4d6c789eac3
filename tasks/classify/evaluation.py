"""Evaluation: every policy on labelled rows that the database has not seen."""

import time
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import bootstrap

from raee.classify import ABSTAINED, Predictions, classify
from raee.exits import parse_exits
from raee.policies.replay import scores
from raee.reading import Database
from raee.statistics.paired import paired
from raee.statistics.shift import differs, prior_ratio
from storage.aliases import resolve_version
from storage.scan import scan
from storage.versions import read_manifest
from tasks.classify.corpus_shift import label_shares
from tasks.credentials import use_credentials
from tasks.database import check_fits, load_database
from tasks.job import Job
from tasks.models import check_policy, shard_rows_of
from tasks.policies import compared, runnable, tuning_of
from tasks.progress import advance, stage
from tasks.rows import label_numbers, rows_of_shard

_SIDE_BY_SIDE = 500
"""Rows that all policies classify in turn: what else the machine does falls on all of them."""

_RESAMPLES = 2_000
_CONFIDENCE = 0.95


def evaluate_corpus(job: Job, uri: str, version: str | None) -> dict[str, Any]:
    """Classify labelled rows with every policy; accuracy, macro-F1, Matthews, layers and rows/s.

    What a policy chooses for itself, such as the exit of `fixed`, is chosen on the database's rows,
    not on these.  The job's own policy runs as a classification would, with far rows.  Raises
    InputError as a classification does.
    """
    use_credentials(job.credentials)
    chosen = resolve_version(job.store, job.name, version)
    manifest = read_manifest(job.store, job.name, chosen)
    check_fits(job, manifest)
    check_policy(job.policy, parse_exits(manifest.exits))
    labels = manifest.labels
    corpus = job.corpus.model_copy(update={"uri": uri})
    with stage("read rows", None):
        found = scan(corpus, labels, job.max_reject_fraction, advance)
    database = load_database(job.store, job.name, chosen, job.backbone, job.key)
    tuning, where = tuning_of(manifest), f"database {job.name}@{chosen}"
    policies = compared(job.policy, tuning, manifest.exits, where)
    shards = found.shards(shard_rows_of(job, database.backbone, found))
    read = [rows_of_shard(corpus, shard, database.backbone, labels) for shard in shards]
    rows = pl.concat([part.usable for part in read])
    right = label_numbers(rows["label"], labels).astype(np.int32)
    texts = rows["text"].to_list()
    ratio = None
    if job.balance == "corpus":
        own = runnable(job.policy, tuning, where)
        with stage("estimate balance", len(texts)):
            predicted = classify(database, own, texts, advance).labels
        counts = np.bincount(predicted, minlength=len(labels))
        shares = label_shares(database, own, counts)
        ratio = prior_ratio(shares) if differs(shares) else None
    runs: dict[str, list[Predictions]] = {name: [] for name in policies}
    seconds = dict.fromkeys(policies, 0.0)
    with stage("evaluate", len(texts) * len(policies)):
        for start in range(0, len(texts), _SIDE_BY_SIDE):
            some = texts[start : start + _SIDE_BY_SIDE]
            for name, policy in policies.items():
                # The others are measured bare: who did not ask pays for no look at far rows.
                far = job.far if name == job.policy.name else None
                begun = time.monotonic()
                runs[name].append(classify(database, policy, some, advance, far, ratio))
                seconds[name] += time.monotonic() - begun
    hits = {name: _all(found, "labels") == right for name, found in runs.items()}
    results = {}
    for name in runs:
        results[name] = _figures(database, runs[name], right) | {
            "rows_per_second": len(texts) / seconds[name],
            "accuracy_interval": _interval(hits[name]),
        }
        if "logistic" in hits:
            results[name]["against_logistic"] = _against(hits[name], hits["logistic"])
    return {
        "database": job.name,
        "version": chosen,
        "input": uri,
        "rows": len(rows),
        "rejected": dict(sum((Counter(part.rejected()) for part in read), Counter())),
        "labels": labels,
        "depth": database.backbone.depth,
        "policies": results,
        "settings": {name: policy.model_dump() for name, policy in policies.items()},
    }


def _figures(
    database: Database, found: list[Predictions], right: NDArray[np.int32]
) -> dict[str, Any]:
    places, exits = _all(found, "exits"), database.entries.exits
    names = ["abstain" if i == ABSTAINED else str(exits[i]) for i in places]
    return {
        **scores(_all(found, "labels"), right, _all(found, "layers")),
        "exits": dict(Counter(names).most_common()),
        "far": int(_all(found, "far").sum()),
    }


def _all(found: list[Predictions], field: str) -> NDArray[Any]:
    return np.concatenate([getattr(predictions, field) for predictions in found])


def _interval(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Bootstrap interval of an accuracy (percentiles; Efron and Tibshirani, 1993, chapter 13)."""
    if hits.all() or not hits.any():  # nothing varies
        return float(hits[0]), float(hits[0])
    found = bootstrap(
        (hits,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _against(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, float]:
    """Rows on which only one is right, and McNemar's exact two-sided p-value."""
    found = paired(ours, theirs)
    return {"wins": found.wins, "losses": found.losses, "p_value": found.p_value()}
