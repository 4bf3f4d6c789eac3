"""The plan of a build: looked over and written down before anything else is done.

    work/{build key}/plan.json            what is built, from which shards, as which version
                    /centre-texts.json    what a sentence encoder's centre is read over

The build key names what decides the result, so a build that died is found again by the next one.
"""

import json
import logging
from functools import lru_cache
from hashlib import sha256
from typing import Any

from prefect import task
from pydantic import BaseModel, ConfigDict

from raee.backbones import Backbone, label_tokens
from raee.batches import encode
from raee.exits import Exit, exits_of
from raee.keys import check_key
from raee.prompts import Prompt, declared_labels, resolve_prompt
from storage.scan import Scan, Shard, scan
from storage.store import Folder
from storage.versions import (
    CENTRE,
    FORMAT,
    Manifest,
    database_folder,
    index_path,
    new_version_id,
    read_manifest,
    require_whole,
    version_folder,
    version_ids,
)
from tasks.job import Job
from tasks.markers import rows_done
from tasks.models import backbone_of, check_policy, retriever_of, shard_rows_of
from tasks.progress import advance, stage
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")

CENTRE_TEXTS = "centre-texts.json"


class BuildPlan(BaseModel):
    """What a build does; immutable once it stands in the work folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: Job
    version: str
    parent: str | None
    prompt: Prompt
    backbone: dict[str, str]
    key: dict[str, str]
    depth: int
    rows: int
    rejected: dict[str, int]
    corpus: dict[str, Any]
    sample: dict[str, int] | None
    """By label the largest `sample_number` of a row in the sample; None where all rows are."""
    shards: list[Shard]

    @property
    def folder(self) -> Folder:
        """Where the version's files go."""
        return version_folder(self.job.store, self.job.name, self.version)

    @property
    def where(self) -> str:
        """The version, for messages."""
        return f"database {self.job.name}@{self.version}"

    @property
    def exits(self) -> tuple[Exit, ...]:
        """The exits of an entry, in the order of its lists."""
        return exits_of(self.depth, self.job.key.depths)

    @property
    def index_paths(self) -> list[str]:
        """The indexes' files in the version, one a key."""
        return [index_path(name) for name in self.job.key.names]

    @property
    def has_centre(self) -> bool:
        """Whether the backbone is read against a centre."""
        return self.job.backbone.family == "sentence-encoder"


class PlannedBuild(BaseModel):
    """What the other steps of a build are told."""

    work: str
    """Address of the work folder."""
    version: str
    rows: int
    done: int
    """Rows that an earlier try has swept."""
    shards: int


@lru_cache(maxsize=8)
def plan_of(work: str) -> BuildPlan:
    """The plan in a work folder."""
    return BuildPlan.model_validate_json(Folder(work).read("plan.json"))


@task(**RETRIES)
def plan_build(job: Job) -> PlannedBuild:
    """Look the job over, split its corpus into shards, and write the plan down.

    Where the same build died before, its plan is found and goes on.  Raises InputError, with
    nothing written, where the job cannot be done.
    """
    backbone, prompt, found = _look_over(job)
    retriever = retriever_of(job.key, job.backbone.dtype)
    key = backbone.fingerprint if retriever is None else retriever.fingerprint
    parent = _newest(job)
    centre = _inherited_centre(job, parent, backbone, prompt)
    plan = BuildPlan(
        job=job,
        version=new_version_id(),
        parent=None if parent is None else parent.id,
        prompt=prompt,
        backbone=backbone.fingerprint,
        key=key,
        depth=backbone.depth,
        rows=found.rows,
        rejected=dict(found.rejected),
        corpus={"uri": job.corpus.uri, "rows": found.total, "fingerprint": found.fingerprint},
        sample=found.sample(job.sample_rows),
        shards=found.shards(shard_rows_of(job, backbone, found)),
    )
    work = database_folder(job.store, job.name) / f"work/{_build_key(plan, found, centre)}"
    if not work.exists("plan.json"):
        if centre is not None:
            with work.create(CENTRE) as file:
                file.write(centre)
        elif plan.has_centre:
            with work.create(CENTRE_TEXTS) as file:
                file.write(json.dumps(found.centre_texts).encode())
        try:
            work.write_new("plan.json", plan.model_dump_json().encode())
        except FileExistsError:
            logger.info("another build of the same corpus has just begun: its plan is taken")
    plan_of.cache_clear()
    plan = plan_of(work.uri)
    rejected = sum(plan.rejected.values())
    logger.info(
        "corpus %s: %d rows in %d shards, %d rejected; version %s",
        job.corpus.uri,
        plan.rows,
        len(plan.shards),
        rejected,
        plan.version,
    )
    return PlannedBuild(
        work=work.uri,
        version=plan.version,
        rows=plan.rows,
        done=rows_done(work, "shard", len(plan.shards)),
        shards=len(plan.shards),
    )


def _look_over(job: Job) -> tuple[Backbone, Prompt, Scan]:
    declared = declared_labels(job.prompt, job.backbone.family)
    with stage("read corpus", None):
        found = scan(job.corpus, True, declared, job.max_reject_fraction, advance)
    numbers = all(name.isdecimal() for name in found.labels)
    labels = sorted(found.labels, key=lambda name: (len(name) if numbers else 0, name))
    backbone = backbone_of(job.backbone)
    prompt = resolve_prompt(job.prompt, job.backbone.family, labels)
    if backbone.family == "masked-lm":
        label_tokens(backbone.tokenizer, prompt.words)
    encode(backbone, prompt, [""])  # refuses a template that does not fit the model
    check_key(job.key, backbone)
    check_policy(job.policy, exits_of(backbone.depth, job.key.depths))
    return backbone, prompt, found


def _newest(job: Job) -> Manifest | None:
    ids = version_ids(job.store, job.name)
    return read_manifest(job.store, job.name, ids[-1]) if ids else None


def _inherited_centre(
    job: Job, parent: Manifest | None, backbone: Backbone, prompt: Prompt
) -> bytes | None:
    """The parent's centre, where the parent was read in the same way."""
    if (
        parent is None
        or parent.backbone != backbone.fingerprint
        or parent.prompt["template"] != prompt.template
        or CENTRE not in [f.path for f in parent.files]
    ):
        return None
    folder = version_folder(job.store, job.name, parent.id)
    require_whole(folder, parent, [CENTRE])
    return folder.read(CENTRE)


def _build_key(plan: BuildPlan, found: Scan, centre: bytes | None) -> str:
    decisive = {
        "format": FORMAT,
        "files": [file.uri for file in found.files],  # where the plan's shards are read
        "corpus": found.fingerprint,
        "columns": plan.job.corpus.model_dump(exclude={"uri"}),
        "prompt": [plan.prompt.template, plan.prompt.labels, plan.prompt.words],
        "backbone": plan.backbone,
        "key": [plan.job.key.model_dump(), plan.key],
        "shard_rows": plan.job.shard_rows,
        "keep_text": plan.job.keep_text,
        "policy": plan.job.policy.model_dump(),
        "sample_rows": plan.job.sample_rows,
        "centre": None if centre is None else sha256(centre).hexdigest(),
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
