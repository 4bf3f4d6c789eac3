"""The steps of a build, each done when its result stands in the work folder.

    work/{build key}/shard-00000.parquet  a shard's rows, head exits and keys
                    /shard-00000.json     written last: the shard is swept
                    /index.json           the version's index is written
                    /part-00000.json      written last: a part's entries and neighbours are written

A version's own files go straight to its folder; it is a version when its manifest stands there.
"""

import json
import time
from functools import lru_cache

import numpy as np
import pyarrow as pa
import safetensors.torch
from numpy.typing import NDArray
from prefect import task

from raee.config import PAPER_NEIGHBOURS
from raee.index import Index, new_index, read_index
from raee.policies import neighbours_planned_on
from raee.readers import HeadReader, head_reader, read_centre, vote
from raee.sweep import sweep
from storage.parquet import list_column, list_values, part_name, read_table, write_table
from storage.scan import read_shard
from storage.store import Folder
from storage.versions import CENTRE
from tasks.build_plan import CENTRE_TEXTS, plan_of
from tasks.entries import rejects_table, swept_table, with_vote
from tasks.markers import done, marker
from tasks.models import backbone_of, retriever_of
from tasks.progress import advance, stage
from tasks.retrying import RETRIES


@task(**RETRIES)
def read_database_centre(work: str) -> None:
    """Read a sentence encoder's centre over the rows that the plan chose."""
    folder, plan = Folder(work), plan_of(work)
    if not plan.has_centre or folder.exists(CENTRE):
        return
    begun = time.monotonic()
    texts = json.loads(folder.read(CENTRE_TEXTS))
    with stage("read centre", len(texts)):
        centre = read_centre(backbone_of(plan.job.backbone), plan.prompt, texts, advance)
    with folder.create(CENTRE) as file:
        file.write(safetensors.torch.save({"mean": centre.cpu()}))
    done(folder, "centre", [], 0, begun)


@task(**RETRIES)
def sweep_shard(work: str, number: int) -> int:
    """Sweep a shard; returns its rows."""
    folder, plan = Folder(work), plan_of(work)
    if (before := marker(folder, f"shard-{number:05d}")) is not None:
        return int(before["rows"])
    begun = time.monotonic()
    job = plan.job
    rows, rejects = read_shard(job.corpus, plan.shards[number], True, plan.prompt.labels)
    swept = sweep(
        backbone_of(job.backbone),
        plan.prompt,
        _head(work),
        job.key,
        retriever_of(job.key, job.backbone.dtype),
        [row.text for row in rows],
        advance,
    )
    table = swept_table(rows, plan.prompt.labels, swept, job.keep_text)
    write_table(folder, f"shard-{number:05d}.parquet", table)
    written = []
    if rejects:
        name = f"rejects/{part_name(number)}"
        written.append(write_table(plan.folder, name, rejects_table(rejects)))
    done(folder, f"shard-{number:05d}", written, len(rows), begun)
    return len(rows)


@task(**RETRIES)
def build_index(work: str) -> None:
    """Put the keys of all shards, in order, into the version's index."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, "index") is not None:
        return
    begun = time.monotonic()
    index: Index | None = None
    for number in range(len(plan.shards)):
        keys = list_values(read_table(folder, f"shard-{number:05d}.parquet", ["key"])["key"])
        index = new_index(keys.shape[1]) if index is None else index
        index.add(keys)
    assert index is not None, "a plan has a shard"
    with plan.folder.create(plan.index_path) as file:
        index.write(file.write)
    done(folder, "index", [file.record(rows=len(index))], len(index), begun)


@task(**RETRIES)
def write_part(work: str, number: int) -> int:
    """Let the neighbours of a shard's rows vote, leave-one-out, and write its entries."""
    folder, plan = Folder(work), plan_of(work)
    if (before := marker(folder, f"part-{number:05d}")) is not None:
        return int(before["rows"])
    begun = time.monotonic()
    swept = read_table(folder, f"shard-{number:05d}.parquet")
    labels, starts = _labels(work)
    own = np.arange(starts[number], starts[number] + len(swept))
    asked = max(PAPER_NEIGHBOURS, neighbours_planned_on(plan.job.policy))
    neighbours = _index(work).search(list_values(swept["key"]), asked, exclude=own)
    votes = vote(neighbours.first(PAPER_NEIGHBOURS), labels, len(plan.prompt.labels))
    entries = with_vote(swept, votes.argmax(axis=1).astype(np.uint16), votes.max(axis=1))
    record = write_table(plan.folder, f"entries/{part_name(number)}", entries)
    found = {
        "rows": list_column(neighbours.rows),
        "distances": list_column(neighbours.distances),
    }
    write_table(folder, f"neighbours-{number:05d}.parquet", pa.table(found))
    done(folder, f"part-{number:05d}", [record], len(swept), begun)
    advance(len(swept))
    return len(swept)


@lru_cache(maxsize=1)
def _head(work: str) -> HeadReader:
    plan = plan_of(work)
    centre = None
    if plan.has_centre:
        centre = safetensors.torch.load(Folder(work).read(CENTRE))["mean"]
    return head_reader(backbone_of(plan.job.backbone), plan.prompt, centre)


@lru_cache(maxsize=1)
def _index(work: str) -> Index:
    plan = plan_of(work)
    with plan.folder.open(plan.index_path) as file:
        return read_index(file.read)


@lru_cache(maxsize=1)
def _labels(work: str) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The labels of all shards' rows, and the place of each shard's first row."""
    folder = Folder(work)
    labels = [
        read_table(folder, f"shard-{n:05d}.parquet", ["label"])["label"].to_numpy()
        for n in range(len(plan_of(work).shards))
    ]
    lengths = np.array([0] + [len(part) for part in labels])
    return np.concatenate(labels), np.cumsum(lengths)
