"""The steps of a build, each done when its result stands in the work folder.

    work/{build key}/shard-00000.parquet    a shard's rows, head exits and keys
                    /states-00000.parquet   the states of its sampled rows
                    /sums-mean-00000.safetensors   sums of the states of all its rows
                    /shard-00000.json       written last: the shard is swept
                    /fitted.parquet         the fitted exits of all sampled rows
                    /probes.json            written last: the version's probes are written
                    /index.json             the version's indexes are written
                    /neighbours-00000.parquet  a part's rows among each other
                    /part-00000.json        written last: a part's entries are written

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
from raee.probes import StateName
from raee.readers import HeadReader, head_reader, read_centre, vote
from raee.sweep import Labelled, Sweep, sweep
from raee.tuning import NEIGHBOURS
from storage.parquet import list_column, list_values, part_name, read_table, write_table
from storage.scan import read_shard, sample_number
from storage.store import Folder
from storage.versions import CENTRE
from tasks.build_plan import CENTRE_TEXTS, plan_of
from tasks.entries import (
    Answers,
    answers_of,
    entries_table,
    key_column,
    rejects_table,
    spread_over,
    swept_table,
)
from tasks.fitted import write_arrays
from tasks.markers import done, marker
from tasks.models import backbone_of, retriever_of
from tasks.progress import advance, stage
from tasks.retrying import RETRIES

FITTED = "fitted.parquet"


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
    job, labels = plan.job, plan.prompt.labels
    rows, rejects = read_shard(job.corpus, plan.shards[number], True, labels)
    label = np.array([labels.index(str(row.label)) for row in rows], dtype=np.uint16)
    sample = np.ones(len(rows), dtype=bool)
    if plan.sample is not None:
        limits = plan.sample
        sample[:] = [sample_number(row.text) <= limits[str(row.label)] for row in rows]
    swept = sweep(
        backbone_of(job.backbone),
        plan.prompt,
        head_of(work),
        job.key,
        retriever_of(job.key, job.backbone.dtype),
        [row.text for row in rows],
        Labelled(label, len(labels), sample),
        advance,
    )
    table = swept_table(rows, label, swept, job.keep_text).append_column("sampled", [sample])
    write_table(folder, f"shard-{number:05d}.parquet", table)
    _write_states(folder, number, swept)
    written = []
    if rejects:
        name = f"rejects/{part_name(number)}"
        written.append(write_table(plan.folder, name, rejects_table(rejects)))
    done(folder, f"shard-{number:05d}", written, len(rows), begun)
    return len(rows)


def state_column(state: StateName, depth: int) -> str:
    """The column of a shard's states that holds one of them at a depth."""
    return f"{state}-{depth:02d}"


def sums_name(state: StateName, number: int) -> str:
    """The file of a shard's sums of a state."""
    return f"sums-{state}-{number:05d}.safetensors"


def _write_states(folder: Folder, number: int, swept: Sweep) -> None:
    columns = {
        state_column(state, depth): list_column(vectors)
        for state, by_depth in swept.states.items()
        for depth, vectors in enumerate(by_depth)
    }
    write_table(folder, f"states-{number:05d}.parquet", pa.table(columns))
    for state, sums in swept.sums.items():
        write_arrays(folder, sums_name(state, number), sums.tensors())


@task(**RETRIES)
def build_index(work: str) -> None:
    """Put the keys of all shards, in order, into the version's indexes."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, "index") is not None:
        return
    begun = time.monotonic()
    records, rows = [], 0
    for place, path in enumerate(plan.index_paths):
        index: Index | None = None
        for number in range(len(plan.shards)):
            column = key_column(place)
            table = read_table(folder, f"shard-{number:05d}.parquet", [column])
            keys = list_values(table[column])
            index = new_index(keys.shape[1]) if index is None else index
            index.add(keys)
        assert index is not None, "a plan has a shard"
        with plan.folder.create(path) as file:
            index.write(file.write)
        rows = len(index)
        records.append(file.record(rows=rows))
    done(folder, "index", records, rows, begun)


@task(**RETRIES)
def write_part(work: str, number: int) -> int:
    """Let the neighbours of a shard's rows vote, without the row, and write its entries."""
    folder, plan = Folder(work), plan_of(work)
    if (before := marker(folder, f"part-{number:05d}")) is not None:
        return int(before["rows"])
    begun = time.monotonic()
    swept = read_table(folder, f"shard-{number:05d}.parquet")
    labels, starts, samples = _rows(work)
    own = np.arange(starts[number], starts[number] + len(swept))
    policy = plan.job.policy
    asked = 0 if policy.name == "tuned" else neighbours_planned_on(policy)
    found = [
        index.search(
            list_values(swept[key_column(place)]),
            max(NEIGHBOURS, asked) if place == 0 else PAPER_NEIGHBOURS,
            exclude=own,
        )
        for place, index in enumerate(indexes_of(work))
    ]
    votes = [vote(f.first(PAPER_NEIGHBOURS), labels, len(plan.prompt.labels)) for f in found]
    sampled = swept["sampled"].to_numpy()
    first = int(samples[: own[0]].sum()) if len(own) else 0
    fitted = read_table(folder, FITTED).slice(first, int(sampled.sum()))
    probed = Answers(list_values(fitted["answers"]), list_values(fitted["confidences"]))
    nearest = found[0].distances[:, 0]
    table = entries_table(swept, [answers_of(votes), spread_over(probed, sampled)], nearest)
    record = write_table(plan.folder, f"entries/{part_name(number)}", table)
    neighbours = {
        "rows": list_column(found[0].rows),
        "distances": list_column(found[0].distances),
    }
    write_table(folder, f"neighbours-{number:05d}.parquet", pa.table(neighbours))
    done(folder, f"part-{number:05d}", [record], len(swept), begun)
    advance(len(swept))
    return len(swept)


@lru_cache(maxsize=1)
def head_of(work: str) -> HeadReader:
    """The head of a build."""
    plan = plan_of(work)
    centre = None
    if plan.has_centre:
        centre = safetensors.torch.load(Folder(work).read(CENTRE))["mean"]
    return head_reader(backbone_of(plan.job.backbone), plan.prompt, centre)


@lru_cache(maxsize=1)
def indexes_of(work: str) -> tuple[Index, ...]:
    """The indexes of a build, one a key."""
    plan = plan_of(work)
    found = []
    for path in plan.index_paths:
        with plan.folder.open(path) as file:
            found.append(read_index(file.read))
    return tuple(found)


@lru_cache(maxsize=1)
def _rows(work: str) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.bool_]]:
    """Of all shards' rows: their labels, where each shard begins, and which are in the sample."""
    folder = Folder(work)
    tables = [
        read_table(folder, f"shard-{n:05d}.parquet", ["label", "sampled"])
        for n in range(len(plan_of(work).shards))
    ]
    lengths = np.array([0] + [len(t) for t in tables])
    return (
        np.concatenate([t["label"].to_numpy() for t in tables]),
        np.cumsum(lengths),
        np.concatenate([t["sampled"].to_numpy() for t in tables]),
    )
