"""The plan of a classification, which is checked and written before anything else is done.

{output}/_work/plan.json    what is classified, by which version
"""

import json
import logging
import time
from functools import lru_cache
from hashlib import sha256

from prefect import task
from pydantic import BaseModel, ConfigDict, Field

from raee.config import PolicySpec, RunnablePolicy
from raee.errors import InputError
from raee.exits import parse_exits
from raee.far_rows import deepest_run
from raee.policies.compared import runnable
from raee.policies.table import check_policy
from raee.reading import Database
from raee.statistics.calibration import Line
from storage.apart import check_output_apart
from storage.conditional import require_conditional_writes
from storage.corpus import CorpusSpec
from storage.database import Version
from storage.manifest import FORMAT, MANIFEST
from storage.scan import Scan, Shard, count
from storage.store import Folder
from tasks.job import Job
from tasks.models import shard_rows_of
from tasks.progress import advance, stage
from tasks.readings import check_fits, check_outlines, load_database, load_readings, tuning_of
from tasks.retrying import RETRIES
from tasks.steps import STEPS, Marker, StepRecord, Work, forget

logger = logging.getLogger("raee")

WORK = "_work"

_PLAN = "plan.json"


class Classified(StepRecord):
    """The record of a shard's classification."""

    rejected: dict[str, int]
    """Rows that cannot be used, by reason."""
    stages: dict[str, float]
    """Seconds."""
    layers_run: int
    """Layers run over all rows, as the walk counted them."""
    tokens: int
    layers: int
    """Layers that each row ran, summed over the rows."""
    exits: dict[str, int]
    """Rows by exit."""
    predicted: list[int]
    """Rows by label."""
    far: int
    looked_at: int
    """Rows of which it is known how far they are."""
    cut: int
    """Rows whose text was truncated."""


PART = Marker("part", Classified)


class ClassificationPlan(BaseModel):
    """What a classification does; immutable once it is in the output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int
    """The format of its steps' records."""
    key: str
    """Digest of what decides the result, the version apart."""
    job: Job
    version: str
    policy: PolicySpec
    """As it was asked for."""
    runs: RunnablePolicy = Field(discriminator="name")
    """The policy that answers: that one, or what the version's tuning found for it."""
    lines: dict[str, Line]
    """By exit, the line that calibrates the confidences that are written."""
    corpus: CorpusSpec
    output: str
    fingerprint: str
    rows: int
    """Usable or not."""
    shards: list[Shard]
    seconds: float
    """Seconds that it took to count the input's rows."""

    @property
    def reads(self) -> Version:
        """The version that it reads."""
        return self.job.database.version(self.version)


class Classification(Work):
    """A classification under way, by the address of its output.

    Raises FileNotFoundError if there is none, or it has ended.
    """

    def __init__(self, output: str) -> None:
        self.target = Folder(output)
        folder = self.target / WORK
        self.plan = ClassificationPlan.model_validate_json(folder.read(_PLAN))
        super().__init__(folder, len(self.plan.shards))

    @property
    def database(self) -> Database:
        """The version that it reads, in memory."""
        return _database_for(self.plan.reads, self.plan.job, self.plan.runs)


@lru_cache(maxsize=8)
def open_classification(output: str) -> Classification:
    """The classification in an output folder.

    Raises FileNotFoundError if there is none, or it has ended.
    """
    return Classification(output)


@task(**RETRIES)
def look_up_classification(output: str) -> Classification:
    """As `open_classification`, for a flow: the output may have been emptied and begun anew."""
    open_classification.cache_clear()
    return open_classification(output)


class PlannedClassification(BaseModel):
    """The result of planning: what a flow needs to run the other steps."""

    input: str
    output: str
    version: str
    rows: int
    """Usable or not."""
    done: int
    """Rows that an earlier try has classified."""
    shards: int
    """0 if the output is whole already."""


@task(**RETRIES)
def plan_classification(
    job: Job,
    uri: str,
    output: str,
    version: str | None,
    policy: PolicySpec,
    *,
    by_workers: bool = False,
) -> PlannedClassification:
    """Check the input, split it into shards, and write the plan in the output.

    version: an id or an alias; by default as `Database.open`.  by_workers: whether others
    classify, so that planning loads no model.  If the same classification died before, it goes on
    with the version that it began with.  Raises InputError, with nothing written, if it cannot be
    done.
    """
    check_output_apart(uri, output)
    folder = Folder(output)
    folder.require_writable_kind()
    reads = job.database.open(version)
    chosen, manifest = reads.id, reads.manifest()
    check_fits(job, manifest)
    check_policy(policy, parse_exits(manifest.exits))
    runs = runnable(policy, tuning_of(manifest), reads.where)
    corpus = job.corpus.model_copy(update={"uri": uri})
    begun = time.monotonic()
    with stage("count rows", None):
        found = count(corpus, advance)
    seconds = time.monotonic() - begun
    key = _key(job, policy, corpus, found)
    started = _started(folder, key, corpus, found)
    if is_finished(output):
        _check_same(folder, key, chosen)
        logger.info("%s holds this classification already: nothing to do", folder)
        forget(folder / WORK)
        return PlannedClassification(
            input=uri,
            output=folder.uri,
            version=chosen,
            rows=found.rows,
            done=found.rows,
            shards=0,
        )
    if started is not None and started.version != chosen:
        if version == chosen:
            raise InputError(_other_output(folder, f"version {started.version}"))
        logger.warning("going on with version %s, as begun", started.version)
    if started is None:
        readings = load_readings(reads)
        if by_workers:
            backbone = check_outlines(manifest, job.backbone, job.key)
        else:
            backbone = _database_for(reads, job, runs).backbone
        # The trial is in the work folder, which goes in the end: an output holds nothing else.
        require_conditional_writes((folder / WORK).uri, job.single_writer, folder.uri)
        started = ClassificationPlan(
            steps=STEPS,
            key=key,
            job=job,
            version=chosen,
            policy=policy,
            runs=runs,
            lines={
                str(readings.entries.exits[position]): line
                for position, line in readings.written_lines(runs).items()
            },
            corpus=corpus,
            output=folder.uri,
            fingerprint=found.fingerprint,
            rows=found.rows,
            shards=found.shards(shard_rows_of(job, backbone, found)),
            seconds=seconds,
        )
        (folder / WORK).write_new(_PLAN, started.model_dump_json().encode())
        open_classification.cache_clear()
    logger.info(
        "input %s: %d rows in %d shards; database %s@%s",
        uri,
        started.rows,
        len(started.shards),
        job.name,
        started.version,
    )
    return PlannedClassification(
        input=uri,
        output=folder.uri,
        version=started.version,
        rows=started.rows,
        done=open_classification(folder.uri).rows_done(PART),
        shards=len(started.shards),
    )


def _database_for(version: Version, job: Job, runs: RunnablePolicy) -> Database:
    """A version in memory, with the layers that rows may run under a policy."""
    deepest = deepest_run(load_readings(version).entries, job.key, runs, job.far)
    return load_database(version, job.backbone, job.key, deepest)


def is_finished(output: str) -> bool:
    """Whether an output is whole."""
    return Folder(output).exists(MANIFEST)


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


def _started(
    folder: Folder, key: str, corpus: CorpusSpec, found: Scan
) -> ClassificationPlan | None:
    """The plan of an earlier try; None if the folder is empty or holds a whole output.

    Raises InputError if it holds anything else.
    """
    if (folder / WORK).exists(_PLAN):
        if json.loads((folder / WORK).read(_PLAN)).get("steps") != STEPS:
            raise InputError(
                f"output {folder} was begun by another version of raee; go on with that, or give a "
                "new or empty folder"
            )
        open_classification.cache_clear()
        plan = open_classification(folder.uri).plan
        if plan.key != key:
            if plan.corpus == corpus and plan.fingerprint != found.fingerprint:
                raise InputError(
                    f"output {folder} was begun on {corpus.uri} before that was written anew; give "
                    "a new or empty folder"
                )
            raise InputError(_other_output(folder, f"input {plan.corpus.uri}"))
        return plan
    names = [name for name in folder.names() if name != WORK]
    if names and MANIFEST not in names:
        raise InputError(
            f"output {folder} is not empty (it holds {names[0]}); give a new or empty folder"
        )
    return None


def _check_same(folder: Folder, key: str, version: str) -> None:
    """Raises InputError if a finished output is another job's."""
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
