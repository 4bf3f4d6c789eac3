"""The plan of a build: looked over and written down before anything else is done.

    work/{build key}/build.json               written last: the version that is being built
                    /{version}/plan.json      what is built, from which shards
                              /centre-texts.json  what a sentence encoder's centre is read over

The build key names what decides the result, so a build that died is found again by the next one.
Of two that begin at once, one writes `build.json` and both go on with its plan.
"""

import json
import logging
from functools import lru_cache
from hashlib import sha256
from secrets import token_hex
from typing import Any

import numpy as np
from prefect import task
from pydantic import BaseModel, ConfigDict

from raee.config import MOST_LABELS
from raee.exits import Exit, exits_of
from raee.labels import warn_of_single_rows
from raee.model.backbones import Backbone, label_tokens
from raee.model.batches import check_room
from raee.model.loaded import backbone_of, retriever_of
from raee.model.prompts import Prompt, declared_labels, resolve_prompt
from raee.neighbours.keys import PLAIN_TEXT, check_key
from raee.neighbours.training import check_index_spec
from raee.policies.table import check_policy
from storage.apart import check_store_apart
from storage.conditional import require_conditional_writes
from storage.leftovers import CLAIM
from storage.scan import Scan, Shard, scan, text_hash
from storage.store import Folder
from storage.versions import (
    CENTRE,
    FORMAT,
    Manifest,
    database_folder,
    has_version,
    index_path,
    new_version_id,
    read_manifest,
    require_whole,
    version_folder,
    version_ids,
)
from tasks.build.takeover import load_parent, takes_over
from tasks.job import Job
from tasks.markers import STEPS, forget, rows_done
from tasks.models import shard_rows_of
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
    takes_over: bool
    """Whether rows that the parent has are taken over from it."""
    recipe: str
    """Names what decides a version, its centre apart: with the parent's, nothing has changed."""
    prompt: Prompt
    backbone: dict[str, str]
    key: dict[str, str]
    depth: int
    rows: int
    rejected: dict[str, int]
    corpus: dict[str, Any]
    sample: dict[str, int] | None
    """By label the largest of `sample_numbers` of a row in the sample; None if all rows are."""
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
    def numbers(self) -> range:
        """The numbers of the shards."""
        return range(len(self.shards))

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
    published: bool = False
    """Whether an earlier try died after it had published the version."""
    unchanged: bool = False
    """Whether the newest version is what would be built."""


@lru_cache(maxsize=8)
def plan_of(work: str) -> BuildPlan:
    """The plan in a work folder."""
    return BuildPlan.model_validate_json(Folder(work).read("plan.json"))


@task(**RETRIES)
def plan_build(job: Job) -> PlannedBuild:
    """Look the job over, split its corpus into shards, and write the plan down.

    Where the same build died before, its plan is found and goes on; where nothing has changed
    since the newest version, nothing is written.  Raises InputError, with nothing written, where
    the job cannot be done.
    """
    check_store_apart(job.corpus.uri, job.store)
    backbone, prompt, found = _look_over(job)
    retriever = retriever_of(job.key, job.backbone.dtype)
    key = backbone.fingerprint if retriever is None else retriever.fingerprint
    recipe = _recipe(job, prompt, backbone.fingerprint, key, found)
    parent, works = newest(job), database_folder(job.store, job.name) / "work"
    while True:
        centre = _inherited_centre(job, parent, backbone, prompt)
        builds = works / _build_key(job, recipe, found, centre)
        version = _under_way(builds)
        before, parent = parent, newest(job)
        # What was under way may have been published and forgotten just now.
        if version is not None or parent == before:
            break
    if version is None and parent is not None and parent.recipe == recipe:
        ending = _ending(works, parent.id)
        if ending is None:
            logger.info(
                "nothing has changed since version %s: no new version of database %s is made",
                parent.id,
                job.name,
            )
            return PlannedBuild(
                work="",
                version=parent.id,
                rows=parent.rows,
                done=parent.rows,
                shards=0,
                unchanged=True,
            )
        builds, version = ending, parent.id
    if version is None:
        require_conditional_writes(job.store, job.single_writer)
        takes = takes_over(job, parent, prompt, backbone.fingerprint, key)
        new = _share_of_new(job, parent, found) if takes else 1.0
        plan = BuildPlan(
            job=job,
            version=new_version_id(),
            parent=None if parent is None else parent.id,
            takes_over=takes,
            recipe=recipe,
            prompt=prompt,
            backbone=backbone.fingerprint,
            key=key,
            depth=backbone.depth,
            rows=found.rows,
            rejected=dict(found.rejected),
            corpus={"uri": job.corpus.uri, "rows": found.total, "fingerprint": found.fingerprint},
            sample=found.sample(job.sample_rows),
            shards=found.shards(shard_rows_of(job, backbone, found, new)),
        )
        version = _begin(builds, plan, centre, found.centre_texts)
    work = builds / version
    plan = plan_of(work.uri)
    # What dead builds have left is collected by its age: this one is not dead.
    work.write_new(f"going-on-{token_hex(4)}", b"")
    logger.info(
        "corpus %s: %d rows in %d shards, %d rejected; version %s%s",
        job.corpus.uri,
        plan.rows,
        len(plan.shards),
        sum(plan.rejected.values()),
        plan.version,
        f"; rows of version {plan.parent} are taken over" if plan.takes_over else "",
    )
    return PlannedBuild(
        work=work.uri,
        version=plan.version,
        rows=plan.rows,
        done=rows_done(work, "shard", len(plan.shards)),
        shards=len(plan.shards),
        published=has_version(job.store, job.name, plan.version),
    )


def _share_of_new(job: Job, parent: Manifest | None, found: Scan) -> float:
    """About how many of a corpus' texts a parent has not read: of those with the least hashes."""
    assert parent is not None, "what is taken over is a parent's"
    hashes = np.array([text_hash(text) for text in found.centre_texts], "S32")
    known = load_parent(job.store, job.name, parent.id).find(hashes) >= 0
    return float(1 - known.mean())


def _under_way(builds: Folder) -> str | None:
    """The version that a build of this key has begun."""
    try:
        return json.loads(builds.read(CLAIM))["version"]
    except FileNotFoundError:
        return None


def _ending(works: Folder, version: str) -> Folder | None:
    """Where a version was built whose build has not come to its end, though it is published.

    By then its own centre is inherited: a first build is not found by its key again.
    """
    return next((works / key for key in works.names() if _under_way(works / key) == version), None)


def _begin(builds: Folder, plan: BuildPlan, centre: bytes | None, centre_texts: list[str]) -> str:
    """Write a plan down; returns the version that is built, which may be another's."""
    work = builds / plan.version
    if centre is not None:
        work.write_new(CENTRE, centre)
    elif plan.has_centre:
        work.write_new(CENTRE_TEXTS, json.dumps(centre_texts).encode())
    work.write_new("plan.json", plan.model_dump_json().encode())
    try:
        builds.write_new(CLAIM, json.dumps({"version": plan.version}).encode())
    except FileExistsError:
        logger.info("another build of the same corpus has just begun: its plan is taken")
        work.remove()
        return json.loads(builds.read(CLAIM))["version"]
    return plan.version


@task(**RETRIES)
def forget_build(work: str) -> None:
    """Remove a build's work folder; first what the next build would find it by."""
    builds, _, version = work.rpartition("/")
    if _under_way(Folder(builds)) == version:
        Folder(builds).delete(CLAIM)
    forget(Folder(work))
    if not Folder(builds).names():
        Folder(builds).remove()


def _look_over(job: Job) -> tuple[Backbone, Prompt, Scan]:
    declared = declared_labels(job.prompt, job.backbone.family)
    with stage("read corpus", None):
        found = scan(job.corpus, declared, job.max_reject_fraction, advance, MOST_LABELS)
    warn_of_single_rows(found.labels)
    numbers = all(name.isdecimal() for name in found.labels)
    labels = sorted(found.labels, key=lambda name: (len(name) if numbers else 0, name))
    backbone = backbone_of(job.backbone)
    prompt = resolve_prompt(job.prompt, job.backbone.family, labels)
    if backbone.family == "masked-lm":
        label_tokens(backbone.tokenizer, prompt.words)
    check_room(backbone, prompt)
    check_key(job.key, backbone)
    retriever = retriever_of(job.key, job.backbone.dtype)
    if retriever is not None:
        check_room(retriever, PLAIN_TEXT)
    if job.index != "auto":
        width = (backbone if retriever is None else retriever).hidden_size
        check_index_spec(job.index, width, found.rows)
    check_policy(job.policy, exits_of(backbone.depth, job.key.depths))
    return backbone, prompt, found


def is_published(build: PlannedBuild, job: Job) -> bool:
    """Whether the version that was planned is there by now, whoever has published it."""
    return has_version(job.store, job.name, build.version)


def newest(job: Job) -> Manifest | None:
    """The newest version of all rows of a corpus: a pruned one is no parent of a rebuild."""
    for version in reversed(version_ids(job.store, job.name)):
        manifest = read_manifest(job.store, job.name, version)
        if manifest.pruned is None:
            return manifest
    return None


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


_CHANGES_NOTHING = {
    *("name", "store", "credentials", "single_writer", "shard_rows", "max_reject_fraction"),
}
"""Of a job: what a version's data do not depend on."""


def _recipe(
    job: Job, prompt: Prompt, backbone: dict[str, str], key: dict[str, str], found: Scan
) -> str:
    said = job.model_dump(mode="json", exclude=_CHANGES_NOTHING)
    del said["corpus"]["uri"]
    said |= {
        "format": FORMAT,
        "corpus_fingerprint": found.fingerprint,
        "prompt": [prompt.template, prompt.labels, prompt.words],
        "backbone": backbone,
        "key": [said["key"], key],
    }
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _build_key(job: Job, recipe: str, found: Scan, centre: bytes | None) -> str:
    decisive = {
        "steps": STEPS,
        "recipe": recipe,
        "files": [(f.uri, f.stamp) for f in found.files],  # where the plan's shards are read
        "shard_rows": job.shard_rows,
        "centre": None if centre is None else sha256(centre).hexdigest(),
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
