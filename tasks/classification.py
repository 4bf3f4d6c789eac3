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
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect import task
from pydantic import BaseModel, ConfigDict, Field

from raee.classify import ABSTAINED, classify
from raee.config import PolicySpec, RunnablePolicy
from raee.errors import InputError
from raee.exits import parse_exits
from raee.reading import Database
from raee.shift import far_distance, prior_ratio
from storage.aliases import resolve_version
from storage.conditional import require_conditional_writes
from storage.corpus import CorpusSpec
from storage.parquet import part_name, read_table, write_table
from storage.scan import Scan, Shard, read_shard, scan
from storage.store import Folder
from storage.versions import FORMAT, MANIFEST, read_manifest
from tasks.corpus_shift import drift_account, label_shares, shares_account
from tasks.database import check_fits, load_database
from tasks.entries import rejects_table
from tasks.job import Job
from tasks.markers import Attempt, done, forget, marker, numbered, put_in_place, rows_done, said
from tasks.models import check_policy, shard_rows_of
from tasks.policies import runnable, tuning_of
from tasks.predictions import predictions_table
from tasks.progress import advance, stage
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")

WORK = "_work"

PART = "part"
"""The steps that classify a shard."""

BALANCE = "balance"
"""The step that estimates the corpus's label shares."""

BALANCE_ROWS = 2_000
"""Rows on which the corpus's label shares are estimated before it is classified by them."""

ABSTAIN = "abstain"
"""In place of an exit, in a manifest's counts: far rows that were left unlabelled."""


class ClassificationPlan(BaseModel):
    """What a classification does; immutable once it stands in the output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    """Names what decides the result, the version apart."""
    job: Job
    version: str
    policy: PolicySpec
    """As it was asked for."""
    runs: RunnablePolicy = Field(discriminator="name")
    """What answers: the policy, or what the version's tuning found for it."""
    corpus: CorpusSpec
    output: str
    fingerprint: str
    rows: int
    total: int
    rejected: dict[str, int]
    shards: list[Shard]
    seconds: float
    """For looking over the input."""

    @property
    def database(self) -> Database:
        """The version that it reads, in memory."""
        job = self.job
        return load_database(job.store, job.name, self.version, job.backbone, job.key)


class PlannedClassification(BaseModel):
    """What the other steps of a classification are told."""

    output: str
    version: str
    rows: int
    done: int
    """Rows that an earlier try has classified."""
    shards: int
    """0 where the output is there already."""


@lru_cache(maxsize=8)
def plan_of(output: str) -> ClassificationPlan:
    """The plan in an output folder."""
    return ClassificationPlan.model_validate_json((Folder(output) / WORK).read("plan.json"))


@task(**RETRIES)
def plan_classification(
    job: Job, uri: str, output: str, version: str | None, policy: PolicySpec
) -> PlannedClassification:
    """Look the input over, split it into shards, and write the plan down in the output.

    version: an id or an alias.  Where the same classification died before, it goes on with the
    version that it began with.  Raises InputError, with nothing written, where it cannot be done.
    """
    folder = Folder(output)
    chosen = resolve_version(job.store, job.name, version)
    manifest = read_manifest(job.store, job.name, chosen)
    check_fits(job, manifest)
    check_policy(policy, parse_exits(manifest.exits))
    runs = runnable(policy, tuning_of(manifest), f"database {job.name}@{chosen}")
    corpus = CorpusSpec(uri=uri, id=job.corpus.id, text=job.corpus.text)
    begun = time.monotonic()
    with stage("read input", None):
        found = scan(corpus, False, None, job.max_reject_fraction, advance)
    seconds = time.monotonic() - begun
    key = _key(job, policy, corpus, found)
    started = _started(folder, key)
    if is_finished(output):
        _check_same(folder, key, chosen)
        logger.info("%s holds this classification already: nothing to do", folder)
        forget(folder / WORK)
        return PlannedClassification(
            output=folder.uri, version=chosen, rows=found.rows, done=found.rows, shards=0
        )
    if started is not None and started.version != chosen:
        if version == chosen:
            raise InputError(_other_output(folder, f"version {started.version}"))
        logger.warning("going on with version %s, as begun", started.version)
    if started is None:
        database = load_database(job.store, job.name, chosen, job.backbone, job.key)
        # In the work folder, which goes in the end: nothing else may lie in an output.
        require_conditional_writes((folder / WORK).uri, job.single_writer, folder.uri)
        started = ClassificationPlan(
            key=key,
            job=job,
            version=chosen,
            policy=policy,
            runs=runs,
            corpus=corpus,
            output=folder.uri,
            fingerprint=found.fingerprint,
            rows=found.rows,
            total=found.total,
            rejected=dict(found.rejected),
            shards=found.shards(shard_rows_of(job, database.backbone, found)),
            seconds=seconds,
        )
        (folder / WORK).write_new("plan.json", started.model_dump_json().encode())
        plan_of.cache_clear()
    logger.info(
        "input %s: %d rows in %d shards, %d rejected; database %s@%s",
        uri,
        started.rows,
        len(started.shards),
        sum(started.rejected.values()),
        job.name,
        started.version,
    )
    return PlannedClassification(
        output=folder.uri,
        version=started.version,
        rows=started.rows,
        done=rows_done(folder / WORK, PART, len(started.shards)),
        shards=len(started.shards),
    )


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
        rows, _ = read_shard(plan.corpus, shard, False, None)
        wanted = min(len(rows), math.ceil(BALANCE_ROWS * len(rows) / plan.rows))
        chosen = np.sort(chooser.choice(len(rows), wanted, replace=False))
        texts += [rows[i].text for i in chosen]
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
    rows, rejects = read_shard(plan.corpus, plan.shards[number], False, None)
    read = time.monotonic()
    database = plan.database
    ratio = None
    if plan.job.balance == "corpus":
        ratio = np.array(said(work, BALANCE)["balance"]["ratio"])
    texts = [row.text for row in rows]
    predictions = classify(database, plan.runs, texts, advance, plan.job.far, ratio)
    ran = time.monotonic()
    name = part_name(number)
    written = [write_table(attempt.version, name, predictions_table(rows, database, predictions))]
    if rejects:
        written.append(write_table(attempt.version, f"rejects/{name}", rejects_table(rejects)))
    stages = {"read": read - attempt.begun, "classify": ran - read, "write": time.monotonic() - ran}
    exits = [None if i == ABSTAINED else database.entries.exits[i] for i in predictions.exits]
    labelled = predictions.labels[predictions.labels >= 0]
    done(
        attempt,
        written,
        len(rows),
        stages=stages,
        layers_run=predictions.layers_run,
        tokens=predictions.tokens,
        layers=int(predictions.layers.sum()),
        exits=dict(Counter(ABSTAIN if e is None else str(e) for e in exits)),
        predicted=np.bincount(labelled, minlength=len(database.entries.labels)).tolist(),
        far=int(predictions.far.sum()),
        looked_at=int((~np.isnan(predictions.nearest)).sum()),
        cut=int(predictions.cut.sum()),
    )
    return len(rows)


@task(**RETRIES)
def finish_classification(output: str) -> dict[str, Any]:
    """Write the manifest, which says that the output is whole; returns its figures.

    Where another run has written it meanwhile, they are that run's.
    """
    folder = Folder(output)
    work = folder / WORK
    if is_finished(output):
        logger.info("%s was finished by another run meanwhile", folder)
        forget(work)
        return json.loads(folder.read(MANIFEST))
    plan = plan_of(output)
    steps = [numbered(PART, n) for n in range(len(plan.shards))]
    parts = [said(work, step) for step in steps]
    put_in_place(work, steps, folder)
    rows = sum(p["rows"] for p in parts)
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
        "input": plan.corpus.uri,
        "input_fingerprint": plan.fingerprint,
        "output": plan.output,
        "rows_in": plan.total,
        "rows_out": rows,
        "rejected": plan.rejected,
        "tokens": sum(p["tokens"] for p in parts),
        "cut": sum(p["cut"] for p in parts),
        "far": _far_account(plan, far, looked_at),
        "drift": drift_account(plan.database, _nearest(folder, len(plan.shards))),
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


def is_finished(output: str) -> bool:
    """Whether an output is whole."""
    return Folder(output).exists(MANIFEST)


def _far_account(plan: ClassificationPlan, far: int, looked_at: int) -> dict[str, Any] | None:
    spec, nearest = plan.job.far, plan.database.nearest
    if spec is None or nearest is None:
        return None
    limit = far_distance(nearest, spec.quantile)
    return {
        **spec.model_dump(),
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


def _nearest(folder: Folder, parts: int) -> NDArray[np.float32]:
    """The known distances of all rows to their nearest entries."""
    columns = [read_table(folder, part_name(n), ["nearest_distance"]) for n in range(parts)]
    return pa.concat_tables(columns)["nearest_distance"].drop_null().to_numpy()


def _key(job: Job, policy: PolicySpec, corpus: CorpusSpec, found: Scan) -> str:
    decisive = {
        "format": FORMAT,
        "name": job.name,
        "store": job.store,
        "policy": policy.model_dump(),
        "far": None if job.far is None else job.far.model_dump(),
        "balance": job.balance,
        "columns": corpus.model_dump(exclude={"uri"}),
        "files": [file.uri for file in found.files],
        "input": found.fingerprint,
        "shard_rows": job.shard_rows,
        "dtype": job.backbone.dtype,
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _started(folder: Folder, key: str) -> ClassificationPlan | None:
    """The plan of an earlier try; none where the folder holds a whole output.

    Raises InputError where it holds anything else.
    """
    if (folder / WORK).exists("plan.json"):
        plan_of.cache_clear()
        plan = plan_of(folder.uri)
        if plan.key != key:
            raise InputError(_other_output(folder, f"input {plan.corpus.uri}"))
        return plan
    names = [name for name in folder.names() if name != WORK]
    if names and MANIFEST not in names:
        raise InputError(
            f"output {folder} is not empty (it holds {names[0]}); give a new or empty folder"
        )
    return None


def _check_same(folder: Folder, key: str, version: str) -> None:
    """Raises InputError where a finished output is another job's."""
    try:
        manifest = json.loads(folder.read(MANIFEST))
        theirs = manifest["key"], manifest["version"]
    except (ValueError, KeyError, TypeError):
        raise InputError(_other_output(folder, "a manifest that is not raee's")) from None
    if theirs != (key, version):
        what = f"input {manifest['input']}, version {manifest['version']}"
        raise InputError(_other_output(folder, what))


def _other_output(folder: Folder, what: str) -> str:
    return f"output {folder} holds another job's output ({what}); give a new or empty folder"
