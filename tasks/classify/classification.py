"""The steps of a classification.

{output}/part-00000.parquet ..     predictions, in the input's order
        /rejects/part-00000.parquet .. rows that cannot be used, and why
        /manifest.json             written last
        /_work/plan.json, part-00000/.. ..    while it is under way: steps as in `tasks.steps`,
                                          copied when all are done
"""

import json
import logging
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from pydantic import BaseModel, ConfigDict

from raee.classify import ABSTAINED, Begun, Predictions, begin, classify, finish
from raee.config import FarSpec
from raee.predictions import predictions_frame
from raee.reading import Database
from raee.statistics.shift import far_distance
from storage.manifest import FORMAT, MANIFEST
from storage.parquet import part_name, table_of, write_table
from storage.scan import check_all_there, check_rejected
from storage.store import Folder
from tasks.classify.corpus_shift import (
    distances_of,
    drift_record,
    label_shares,
    ratio_of,
    shares_record,
)
from tasks.classify.plan import (
    PART,
    WORK,
    Classification,
    Classified,
    is_finished,
    open_classification,
)
from tasks.progress import advance, stage
from tasks.readings import Readings, load_readings
from tasks.retrying import RETRIES
from tasks.rows import ShardRows, rejected_in, rows_of_shard
from tasks.shard_steps import ShardStep, Walked, shard_step
from tasks.steps import Attempt, Marker, Step, StepRecord, forget, in_order, step

logger = logging.getLogger("raee")

BALANCE_ROWS = 2_000
"""Rows on which the corpus's label shares are estimated before it is classified with them."""

ABSTAIN = "abstain"
"""Instead of an exit in a manifest's counts: far rows that were left unlabelled."""


class Balanced(StepRecord):
    """The estimate of the corpus's label shares."""

    balance: dict[str, Any]
    """`ratio` of the corpus's shares to the database's, by label, and the manifest's record."""


BALANCE = Marker("balance", Balanced)


class ClassificationManifest(BaseModel):
    """What a classification read, did and wrote; says that its output is whole."""

    model_config = ConfigDict(frozen=True)

    format: int
    key: str
    database: str
    store: str
    version: str
    policy: dict[str, Any]
    """As it was asked for."""
    runs: dict[str, Any]
    """The policy that answered."""
    calibration: dict[str, dict[str, float]]
    """By exit, the line that calibrated the confidences."""
    input: str
    input_fingerprint: str
    output: str
    rows_in: int
    rows_out: int
    rejected: dict[str, int]
    """Rows that cannot be used, by reason."""
    tokens: int
    cut: int
    """Rows whose text was truncated."""
    far: dict[str, Any] | None
    """None if the job does not look for far rows, or the version cannot tell them."""
    drift: dict[str, Any] | None
    """None if the rows' distances are not known."""
    balance: dict[str, Any]
    exits: dict[str, int]
    """Rows by exit, or ABSTAIN."""
    layers_run: int
    """Layers run over all rows, as the walk counted them."""
    mean_layers: float
    """Layers a row."""
    rows_per_second: float
    """By the seconds of `read` and `classify`."""
    seconds: dict[str, float]
    """By stage; what a shard's rows take to read and tokenise counts only as far as the shard
    before it did not cover it, and writing goes on beside the shard after it."""


@step(BALANCE, opens=open_classification, stage="estimate balance")
def estimate_balance(work: Classification, attempt: Attempt) -> Balanced | None:
    """Estimate the corpus's label shares on a sample, unless the job expects the database's."""
    plan, database = work.plan, work.database
    if plan.job.balance == "database":
        return None
    texts: list[str] = []
    chooser = np.random.default_rng(0)
    for shard in plan.shards:
        found = rows_of_shard(plan.corpus, shard, database.backbone, None).texts
        wanted = min(len(found), math.ceil(BALANCE_ROWS * len(found) / plan.rows))
        chosen = np.sort(chooser.choice(len(found), wanted, replace=False))
        texts += [found[i] for i in chosen]
    with stage("estimate balance", len(texts)):
        predictions = classify(database, plan.runs, texts, advance)
    counts = np.bincount(predictions.labels, minlength=len(database.entries.labels))
    shares = label_shares(database.entries, database.index, plan.runs, counts)
    then = "the readers are corrected by them"
    record = shares_record(shares, database.entries.labels, then)
    ratio = ratio_of(shares, plan.job.balance)
    factors = np.ones(len(counts)) if ratio is None else ratio
    return Balanced(rows=len(texts), balance={"ratio": factors.tolist(), **record})


@dataclass(frozen=True)
class _Answered:
    """A shard whose rows are answered."""

    rows: ShardRows
    predictions: Predictions
    database: Database


def _begin_shard(work: Classification, number: int) -> tuple[ShardRows, Begun]:
    """A shard's rows, classified as far as that goes without a model.

    Raises InputError as `rows_of_shard` does.
    """
    plan, database = work.plan, work.database
    rows = rows_of_shard(plan.corpus, plan.shards[number], database.backbone, None)
    ratio = None
    if plan.job.balance != "database":
        ratio = np.array(work.record(BALANCE).balance["ratio"])
    lines = {database.entries.position_of(name): line for name, line in plan.lines.items()}
    return rows, begin(database, plan.runs, rows.texts, plan.job.far, ratio, lines)


def _walk_shard(work: Classification, begun: tuple[ShardRows, Begun]) -> _Answered:
    """A shard's rows with their answers.  Raises InputError as `classify` does."""
    return _Answered(begun[0], finish(begun[1], advance), work.database)


@shard_step(
    PART,
    opens=open_classification,
    stage="classify",
    after=[BALANCE],
    begin=_begin_shard,
    walk=_walk_shard,
)
def classify_shard(
    work: Classification, attempt: Attempt, number: int, walked: Walked[_Answered]
) -> Classified:
    """Write the predictions of a shard's rows, and its rejects.

    Its stages raise InputError as `rows_of_shard` and `classify` do.
    """
    asked = time.monotonic()
    rows, found, database = walked.found.rows, walked.found.predictions, walked.found.database
    name = part_name(number)
    table = table_of(predictions_frame(rows.usable["id"], database, found))
    files = [write_table(attempt.version, name, table)]
    if len(rows.rejects):
        files.append(write_table(attempt.version, f"rejects/{name}", table_of(rows.rejects)))
    wrote = time.monotonic() - asked
    stages = {"read": walked.waited, "classify": walked.seconds, "write": wrote}
    exits = [None if i == ABSTAINED else database.entries.exits[i] for i in found.exits]
    labelled = found.labels[found.labels >= 0]
    return Classified(
        rows=len(rows),
        files=files,
        rejected=rows.rejected(),
        stages=stages,
        layers_run=found.layers_run,
        tokens=found.tokens,
        layers=int(found.layers.sum()),
        exits=dict(Counter(ABSTAIN if e is None else str(e) for e in exits)),
        predicted=np.bincount(labelled, minlength=len(database.entries.labels)).tolist(),
        far=int(found.far.sum()),
        looked_at=int((~np.isnan(found.nearest)).sum()),
        cut=int(found.truncated.sum()),
    )


CLASSIFICATION_STEPS: tuple[Step[Classification, Any] | ShardStep[Classification, Any], ...] = (
    in_order([estimate_balance, classify_shard])
)
"""The flow runs them, and the output gets their files."""


@task(**RETRIES)
def finish_classification(output: str, max_reject_fraction: float) -> ClassificationManifest:
    """Copy the steps' files, and write the manifest, which says that the output is whole.

    Returns the manifest; if another run has finished the output before, that run's.  Raises
    InputError if rows are missing, or too many are rejected.
    """
    folder = Folder(output)
    if is_finished(output):
        logger.info("%s was finished by another run meanwhile", folder)
        forget(folder / WORK)
        return ClassificationManifest.model_validate_json(folder.read(MANIFEST))
    work = open_classification(output)
    plan = work.plan
    parts = [left for _, left in work.records(PART, per_shard=True)]
    rows = sum(part.rows for part in parts)
    rejected = rejected_in(part.rejected for part in parts)
    check_all_there(plan.corpus.uri, rows, rejected, plan.rows)
    check_rejected(plan.corpus.uri, rejected, plan.rows, max_reject_fraction)
    for each in CLASSIFICATION_STEPS:
        each.files(work).copy(folder)
    manifest = _manifest(work, parts, rejected)
    try:
        folder.write_new(MANIFEST, json.dumps(manifest.model_dump(), indent=1).encode())
    except FileExistsError:
        logger.info("%s was finished by another run meanwhile", folder)
    forget(work.folder)
    return manifest


def _manifest(
    work: Classification, parts: list[Classified], rejected: Counter[str]
) -> ClassificationManifest:
    """parts: the records of the shards, whose predictions are in the output."""
    plan = work.plan
    rows = sum(part.rows for part in parts)
    exits: Counter[str] = Counter()
    for part in parts:
        exits.update(part.exits)
    predicted = np.sum([part.predicted for part in parts], axis=0)
    looked_at, far = sum(part.looked_at for part in parts), sum(part.far for part in parts)
    stages = {name: round(sum(p.stages[name] for p in parts), 3) for name in parts[0].stages}
    distances = distances_of(work.target, len(parts), rows)
    readings = load_readings(plan.reads)  # without the model, which this process may not have
    return ClassificationManifest(
        format=FORMAT,
        key=plan.key,
        database=plan.job.name,
        store=plan.job.store,
        version=plan.version,
        policy=plan.policy.model_dump(),
        runs=plan.runs.model_dump(),
        calibration={name: asdict(line) for name, line in plan.lines.items()},
        input=plan.corpus.uri,
        input_fingerprint=plan.fingerprint,
        output=plan.output,
        rows_in=plan.rows,
        rows_out=rows,
        rejected=dict(rejected),
        tokens=sum(part.tokens for part in parts),
        cut=sum(part.cut for part in parts),
        far=_far_record(plan.job.far, readings, far, looked_at),
        drift=drift_record(readings, *distances),
        balance=_balance_record(work, readings, predicted),
        exits=dict(sorted(exits.items())),
        layers_run=sum(part.layers_run for part in parts),
        mean_layers=sum(part.layers for part in parts) / rows,
        rows_per_second=rows / (stages["read"] + stages["classify"]),
        seconds={"plan": round(plan.seconds, 3), **stages},
    )


def _far_record(
    spec: FarSpec | None, readings: Readings, far: int, looked_at: int
) -> dict[str, Any] | None:
    nearest, score = readings.nearest, readings.far
    if spec is None or nearest is None:
        return None
    level = 1 - spec.quantile
    limit = far_distance(nearest, spec.quantile) if score is None else score.limit(level)
    return {
        **spec.model_dump(),
        "score": "nearest distance" if score is None else "three distances",
        "limit": limit if math.isfinite(limit) else None,  # JSON knows no infinity
        "rows_looked_at": looked_at,
        "rows": far,
        "share": far / looked_at if looked_at else None,
    }


def _balance_record(
    work: Classification, readings: Readings, predicted: NDArray[np.int64]
) -> dict[str, Any]:
    plan, entries = work.plan, readings.entries
    then = "`balance: auto` corrects the readers by them"
    ratio = {}
    if plan.job.balance != "database":
        found = work.record(BALANCE).balance
        if found["differ_beyond_noise"]:
            return {"corrected": True, **found}
        then = "a sample of its rows did not show it, so the readers are not corrected"
        ratio = {"ratio": found["ratio"]}
    # All rows say more of the shares than the sample did.
    shares = label_shares(entries, readings.indexes[0], plan.runs, predicted)
    record = shares_record(shares, entries.labels, then)
    return {"corrected": False, **ratio, **record}
