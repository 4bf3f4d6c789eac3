"""The steps of a classification, each done when its result stands in the output.

{output}/part-00000.parquet ..     predictions, in the input's order
        /rejects/part-00000.parquet .. rows that cannot be used, and why
        /manifest.json             written last
        /_work/plan.json, part-00000/.. ..    while it is under way: steps as in `tasks.markers`,
                                          put in place when all are done
"""

import json
import logging
import math
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect import task

from raee.classify import ABSTAINED, classify
from raee.statistics.shift import far_distance, prior_ratio
from storage.parquet import part_name, read_table, table_of, write_table
from storage.scan import check_all_there, check_rejected
from storage.store import Folder
from storage.versions import FORMAT, MANIFEST, read_manifest
from tasks.classify.corpus_shift import drift_account, label_shares, shares_account
from tasks.classify.plan import PART, WORK, ClassificationPlan, is_finished, plan_of
from tasks.classify.predictions import predictions_frame
from tasks.markers import Attempt, done, forget, marker, numbered, put_in_place, said
from tasks.progress import advance, stage
from tasks.retrying import RETRIES
from tasks.rows import rejected_in, rows_of_shard

logger = logging.getLogger("raee")

BALANCE = "balance"
"""The step that estimates the corpus's label shares."""

BALANCE_ROWS = 2_000
"""Rows on which the corpus's label shares are estimated before it is classified by them."""

ABSTAIN = "abstain"
"""In place of an exit, in a manifest's counts: far rows that were left unlabelled."""


@task(**RETRIES)
def estimate_balance(output: str) -> None:
    """Where the job says `balance: corpus`, estimate the corpus's label shares on a sample."""
    folder, plan = Folder(output) / WORK, plan_of(output)
    if plan.job.balance == "database" or marker(folder, BALANCE) is not None:
        return
    attempt = Attempt(folder, BALANCE)
    database, texts = plan.database, []
    chooser = np.random.default_rng(0)
    for shard in plan.shards:
        found = rows_of_shard(plan.corpus, shard, database.backbone, None).texts
        wanted = min(len(found), math.ceil(BALANCE_ROWS * len(found) / plan.rows))
        chosen = np.sort(chooser.choice(len(found), wanted, replace=False))
        texts += [found[i] for i in chosen]
    with stage("estimate balance", len(texts)):
        predictions = classify(database, plan.runs, texts, advance)
    counts = np.bincount(predictions.labels, minlength=len(database.entries.labels))
    shares = label_shares(database, plan.runs, counts)
    account = shares_account(shares, database.entries.labels)
    ratio = prior_ratio(shares) if account["differ_beyond_noise"] else np.ones(len(counts))
    done(attempt, [], len(texts), balance={"ratio": ratio.tolist(), **account})


@task(**RETRIES)
def classify_shard(output: str, number: int) -> int:
    """Classify a shard's rows and write them; returns how many they are."""
    folder, plan = Folder(output), plan_of(output)
    work, step = folder / WORK, numbered(PART, number)
    if (before := marker(work, step)) is not None:
        return int(before["rows"])
    attempt = Attempt(work, step)
    database = plan.database
    rows = rows_of_shard(plan.corpus, plan.shards[number], database.backbone, None)
    read = time.monotonic()
    ratio = None
    if plan.job.balance == "corpus":
        ratio = np.array(said(work, BALANCE)["balance"]["ratio"])
    texts = rows.texts
    lines = {database.entries.position_of(name): line for name, line in plan.lines.items()}
    predictions = classify(database, plan.runs, texts, advance, plan.job.far, ratio, lines)
    ran = time.monotonic()
    name = part_name(number)
    table = table_of(predictions_frame(rows.usable["id"], database, predictions))
    written = [write_table(attempt.version, name, table)]
    if len(rows.rejects):
        written.append(write_table(attempt.version, f"rejects/{name}", table_of(rows.rejects)))
    stages = {"read": read - attempt.begun, "classify": ran - read, "write": time.monotonic() - ran}
    exits = [None if i == ABSTAINED else database.entries.exits[i] for i in predictions.exits]
    labelled = predictions.labels[predictions.labels >= 0]
    done(
        attempt,
        written,
        len(rows),
        rejected=rows.rejected(),
        stages=stages,
        layers_run=predictions.layers_run,
        tokens=predictions.tokens,
        layers=int(predictions.layers.sum()),
        exits=dict(Counter(ABSTAIN if e is None else str(e) for e in exits)),
        predicted=np.bincount(labelled, minlength=len(database.entries.labels)).tolist(),
        far=int(predictions.far.sum()),
        looked_at=int((~np.isnan(predictions.nearest)).sum()),
        cut=int(predictions.truncated.sum()),
    )
    return len(rows)


@task(**RETRIES)
def finish_classification(output: str, max_reject_fraction: float) -> dict[str, Any]:
    """Write the manifest, which says that the output is whole; returns its figures.

    If another run has written it meanwhile, they are that run's.  Raises InputError if rows are
    missing, or too many are rejected.
    """
    folder = Folder(output)
    work = folder / WORK
    if is_finished(output):
        logger.info("%s was finished by another run meanwhile", folder)
        forget(work)
        return json.loads(folder.read(MANIFEST))
    plan = plan_of(output)
    barred = read_manifest(plan.job.store, plan.job.name, plan.version).barred
    steps = [numbered(PART, n) for n in range(len(plan.shards))]
    accounts = {step: said(work, step) for step in steps}
    parts = list(accounts.values())
    rows, rejected = sum(p["rows"] for p in parts), rejected_in(parts)
    check_all_there(plan.corpus.uri, rows, rejected, plan.rows)
    check_rejected(plan.corpus.uri, rejected, plan.rows, max_reject_fraction)
    put_in_place(work, accounts, folder)
    exits: Counter[str] = Counter()
    for part in parts:
        exits.update(part["exits"])
    predicted = np.sum([p["predicted"] for p in parts], axis=0)
    looked_at = sum(p["looked_at"] for p in parts)
    far = sum(p["far"] for p in parts)
    stages = {name: round(sum(p["stages"][name] for p in parts), 3) for name in parts[0]["stages"]}
    manifest = {
        "format": FORMAT,
        "key": plan.key,
        "database": plan.job.name,
        "store": plan.job.store,
        "version": plan.version,
        "policy": plan.policy.model_dump(),
        "runs": plan.runs.model_dump(),
        "calibration": {name: asdict(line) for name, line in plan.lines.items()},
        "input": plan.corpus.uri,
        "input_fingerprint": plan.fingerprint,
        "output": plan.output,
        "rows_in": plan.rows,
        "rows_out": rows,
        "rejected": dict(rejected),
        "tokens": sum(p["tokens"] for p in parts),
        "cut": sum(p["cut"] for p in parts),
        "far": _far_account(plan, far, looked_at),
        "drift": drift_account(plan.database, *_distances(folder, len(plan.shards)), barred),
        "balance": _balance_account(work, plan, predicted),
        "exits": dict(sorted(exits.items())),
        "layers_run": sum(p["layers_run"] for p in parts),
        "mean_layers": sum(p["layers"] for p in parts) / rows,
        "rows_per_second": rows / stages["classify"],
        "seconds": {"plan": round(plan.seconds, 3), **stages},
    }
    try:
        folder.write_new(MANIFEST, json.dumps(manifest, indent=1).encode())
    except FileExistsError:
        logger.info("%s was finished by another run meanwhile", folder)
    forget(work)
    return manifest


def _far_account(plan: ClassificationPlan, far: int, looked_at: int) -> dict[str, Any] | None:
    spec, nearest = plan.job.far, plan.database.nearest
    if spec is None or nearest is None:
        return None
    score, level = plan.database.far, 1 - spec.quantile
    limit = far_distance(nearest, spec.quantile) if score is None else score.limit(level)
    return {
        **spec.model_dump(),
        "score": "nearest distance" if score is None else "three distances",
        "limit": limit if math.isfinite(limit) else None,  # JSON knows no infinity
        "rows_looked_at": looked_at,
        "rows": far,
        "share": far / looked_at if looked_at else None,
    }


def _balance_account(
    work: Folder, plan: ClassificationPlan, predicted: NDArray[np.int64]
) -> dict[str, Any]:
    if plan.job.balance == "corpus":
        return {"corrected": True, **said(work, BALANCE)["balance"]}
    shares = label_shares(plan.database, plan.runs, predicted)
    return {"corrected": False, **shares_account(shares, plan.database.entries.labels)}


def _distances(folder: Folder, parts: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The known distances of all rows to their nearest entries, and how usual they are."""
    columns = ["nearest_distance", "usual"]
    table = pa.concat_tables([read_table(folder, part_name(n), columns) for n in range(parts)])
    nearest, usual = (table[column].drop_null().to_numpy() for column in columns)
    return nearest, usual
