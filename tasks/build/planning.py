"""The plan of a build, which is checked and written before anything else is done.

    work/{build key}/build.json               written last: the version that is being built
                    /{version}/plan.json      `tasks.build.plan`
                              /centre-texts.json  the texts of a sentence encoder's centre

The build key is a digest of what decides the result, so the next build finds one that died.  If two
begin at once, one writes `build.json`, and both go on with its plan.
"""

import json
import logging
from dataclasses import asdict
from hashlib import sha256
from secrets import token_hex
from typing import Any

import numpy as np
import polars as pl
from prefect import task
from pydantic import BaseModel

from raee.config import MOST_LABELS, BackboneSpec
from raee.examples import Candidates
from raee.model.backbones import Outline
from raee.model.loaded import backbone_of
from raee.model.loading import outline_of
from raee.model.precision import Precision, in_precision, precision_of, settled
from raee.model.prompts import Prompt, declared_labels, examples_of
from raee.prepared import prepared
from storage.apart import check_store_apart
from storage.conditional import require_conditional_writes
from storage.database import new_version_id
from storage.leftovers import CLAIM
from storage.manifest import CENTRE, FORMAT, Manifest
from storage.scan import Scan, scan, text_hash
from storage.store import Folder
from tasks.build.build import open_build
from tasks.build.plan import CENTRE_TEXTS, PLAN, BuildPlan
from tasks.build.reuse import load_parent, reads_alike, reuses
from tasks.build.shards import SWEEP
from tasks.job import Job
from tasks.models import shard_rows_of
from tasks.progress import advance, stage
from tasks.readings import prompt_of
from tasks.retrying import RETRIES
from tasks.steps import STEPS, forget

logger = logging.getLogger("raee")


class PlannedBuild(BaseModel):
    """The result of planning: what a flow needs to run the other steps."""

    work: str
    """Address of the work folder; empty if nothing has changed."""
    version: str
    rows: int
    done: int
    """Rows that an earlier try has swept."""
    shards: int
    published: bool = False
    """Whether an earlier try died after it had published the version."""
    unchanged: bool = False
    """Whether the newest version is what would be built."""


@task(**RETRIES)
def plan_build(job: Job, *, by_workers: bool = False) -> PlannedBuild:
    """Check the job, split its corpus into shards, and write the plan.

    by_workers: whether others sweep, so that planning loads no model.  If the same build died
    before, it goes on with the plan that it had.  If nothing has changed
    since the newest version, nothing is written.  Raises InputError, with nothing written, if the
    job cannot be done.
    """
    check_store_apart(job.corpus.uri, job.store)
    parent, works = newest(job), job.database.folder / "work"
    backbone, key, precision, prompt, found = _look_over(job, parent, by_workers)
    recipe = _recipe(job, prompt, backbone.fingerprint, key, found)
    while True:
        centre = _inherited_centre(job, parent, backbone, precision, prompt)
        builds = works / _build_key(job, recipe, found, centre)
        version = _under_way(builds)
        before, parent = parent, newest(job)
        # A build that was under way may have been published and forgotten just now.
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
        takes_over = reuses(job, parent, prompt, backbone.fingerprint, key, precision)
        new = _share_of_new(job, parent, found) if takes_over else 1.0
        plan = BuildPlan(
            job=job,
            version=new_version_id(),
            parent=None if parent is None else parent.id,
            takes_over=takes_over,
            recipe=recipe,
            prompt=prompt,
            backbone=backbone.fingerprint,
            key=key,
            precision=precision,
            depth=backbone.depth,
            rows=found.rows,
            rejected=dict(found.rejected),
            corpus={"uri": job.corpus.uri, "rows": found.total, "fingerprint": found.fingerprint},
            sample=found.sample(job.sample_rows, prompt.examples),
            words_sample=found.sample(max(job.words_rows, job.sample_rows), prompt.examples),
            shards=found.shards(shard_rows_of(job, backbone, found, new)),
        )
        version = _begin(builds, plan, centre, found.centre_texts)
    work = builds / version
    build = open_build(work.uri)
    plan = build.plan
    # Dead builds are collected by the age of their files: a new file shows that this one lives.
    work.write_new(f"going-on-{token_hex(4)}", b"")
    logger.info(
        "corpus %s: %d rows in %d shards, %d rejected; version %s%s",
        job.corpus.uri,
        plan.rows,
        len(plan.shards),
        sum(plan.rejected.values()),
        plan.version,
        f"; readings of version {plan.parent} are reused" if plan.takes_over else "",
    )
    return PlannedBuild(
        work=work.uri,
        version=plan.version,
        rows=plan.rows,
        done=build.rows_done(SWEEP),
        shards=len(plan.shards),
        published=plan.target.exists(),
    )


def _share_of_new(job: Job, parent: Manifest | None, found: Scan) -> float:
    """The share of texts that a parent has not read, estimated on those with the least hashes."""
    assert parent is not None, "only a parent's readings are reused"
    hashes = np.array([text_hash(text) for text in found.centre_texts], "S32")
    known = load_parent(job.database.version(parent.id)).find(hashes) >= 0
    return float(1 - known.mean())


def _under_way(builds: Folder) -> str | None:
    """The version that a build of this key has begun; None if there is none."""
    try:
        return json.loads(builds.read(CLAIM))["version"]
    except FileNotFoundError:
        return None


def _ending(works: Folder, version: str) -> Folder | None:
    """The folder of a build that has published a version and has not come to its end, if any.

    Its key does not find a first build again: the version's own centre is inherited by then.
    """
    return next((works / key for key in works.names() if _under_way(works / key) == version), None)


def _begin(builds: Folder, plan: BuildPlan, centre: bytes | None, centre_texts: list[str]) -> str:
    """Write a plan; returns the version that is built, which may be another build's."""
    work = builds / plan.version
    if centre is not None:
        work.write_new(CENTRE, centre)
    elif plan.has_centre:
        work.write_new(CENTRE_TEXTS, json.dumps(centre_texts).encode())
    work.write_new(PLAN, plan.model_dump_json().encode())
    try:
        builds.write_new(CLAIM, json.dumps({"version": plan.version}).encode())
    except FileExistsError:
        logger.info("another build of the same corpus has just begun: its plan is taken")
        work.remove()
        return json.loads(builds.read(CLAIM))["version"]
    return plan.version


@task(**RETRIES)
def forget_build(work: str) -> None:
    """Remove a build's work folder; first the file by which the next build would find it."""
    builds, _, version = work.rpartition("/")
    if _under_way(Folder(builds)) == version:
        Folder(builds).delete(CLAIM)
    forget(Folder(work))
    if not Folder(builds).names():
        Folder(builds).remove()


def _look_over(
    job: Job, parent: Manifest | None, by_workers: bool
) -> tuple[Outline, dict[str, str], Precision | None, Prompt, Scan]:
    """The backbone, the key's model's fingerprints, the precision, the prompt and the corpus."""
    declared = declared_labels(job.prompt, job.backbone.family)
    examples = examples_of(job.prompt)
    candidates = Candidates(examples, prompt_of(parent) if examples and parent else None)

    def add(rows: pl.DataFrame) -> None:
        candidates.add(rows["text"], rows["label"])

    with stage("read corpus", None):
        found = scan(job.corpus, declared, job.max_reject_fraction, advance, MOST_LABELS, add)
    precision = _precision(job, parent)

    def settle(spec: BackboneSpec) -> BackboneSpec:
        if precision is not None:
            return in_precision(spec, precision.dtype)
        return spec if by_workers else settled(spec)

    opened = outline_of if by_workers else backbone_of
    prompt, backbone, retriever = prepared(
        job.method, found.rows, found.labels, candidates, settle, opened
    )
    key = backbone if retriever is None else retriever
    if precision is None and not by_workers:
        precision = precision_of(job.backbone)
    return backbone, key.fingerprint, precision, prompt, found


def _precision(job: Job, parent: Manifest | None) -> Precision | None:
    """The format that the job names, or by `auto` the one that its parent has found for its model.

    None if it has to be found.
    """
    if job.backbone.dtype != "auto":
        return precision_of(job.backbone)
    if parent is None or parent.precision is None or parent.job["backbone"]["dtype"] != "auto":
        return None
    return Precision(**parent.precision) if _same_model(parent, job) else None


def _same_model(parent: Manifest, job: Job) -> bool:
    before, now = parent.job["backbone"], job.backbone.model_dump(mode="json")
    return all(before[name] == now[name] for name in ("family", "model", "revision"))


def newest(job: Job) -> Manifest | None:
    """The newest version of a job's database that is not pruned; None if there is none.

    A pruned version lacks rows, so it is no parent of a rebuild.  Raises InputError if a manifest
    is damaged.
    """
    for version in reversed(job.database.ids()):
        manifest = job.database.version(version).manifest()
        if manifest.pruned is None:
            return manifest
    return None


def _inherited_centre(
    job: Job,
    parent: Manifest | None,
    backbone: Outline,
    precision: Precision | None,
    prompt: Prompt,
) -> bytes | None:
    """The file of the parent's centre if the parent was read in the same way, else None."""
    if (
        parent is None
        or not reads_alike(parent.backbone, backbone.fingerprint, precision)
        or parent.prompt["template"] != prompt.template
        or CENTRE not in [f.path for f in parent.files]
    ):
        return None
    version = job.database.version(parent.id)
    version.require_whole(parent, [CENTRE])
    return version.folder.read(CENTRE)


_CHANGES_NOTHING = {
    *("name", "store", "credentials", "single_writer", "shard_rows", "max_reject_fraction"),
}
"""Keys of a job on which a version's data do not depend."""


def _recipe(
    job: Job, prompt: Prompt, backbone: dict[str, str], key: dict[str, str], found: Scan
) -> str:
    decisive = job.model_dump(mode="json", exclude=_CHANGES_NOTHING)
    del decisive["corpus"]["uri"]
    decisive |= {
        "format": FORMAT,
        "corpus_fingerprint": found.fingerprint,
        "prompt": [prompt.template, prompt.labels, prompt.words, *_asked_otherwise(prompt)],
        "backbone": [backbone, job.backbone.dtype],
        "key": [decisive["key"], key],
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _asked_otherwise(prompt: Prompt) -> list[Any]:
    """What the recipe says of a chat and of demonstrations; nothing of a prompt without them."""
    if not prompt.chat and not prompt.examples:
        return []
    return [prompt.chat, prompt.examples, [asdict(example) for example in prompt.shown]]


def _build_key(job: Job, recipe: str, found: Scan, centre: bytes | None) -> str:
    decisive = {
        "steps": STEPS,
        "recipe": recipe,
        "files": [(f.uri, f.stamp) for f in found.files],  # where the plan's shards are read
        "shard_rows": job.shard_rows,
        "centre": None if centre is None else sha256(centre).hexdigest(),
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
