"""The first steps of a build: the centre is read, and every shard is swept.

    work/{build key}/{version}/centre-..    a sentence encoder's centre
                              /shard-00000..  a shard's rows, readings, states and sums
                              /collected..    the readings that a later rebuild takes over

A step that is done is not done again (`tasks.markers`); `tasks.build.shards` says what a shard
holds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa
import safetensors.torch
from numpy.typing import NDArray
from prefect import task

from raee.readers.head import HeadReader, head_reader, read_centre
from raee.sweep import Labelled, Sweep, sweep
from storage.parquet import list_column, part_name, table_of, write_table
from storage.scan import check_all_there, check_rejected, sample_numbers, text_hash
from storage.store import Folder
from storage.versions import CENTRE
from tasks.build.plan import CENTRE_TEXTS, BuildPlan, plan_of
from tasks.build.shards import (
    NEW,
    ROWS,
    STATES,
    TAKEN,
    rows_rejected,
    rows_swept,
    shard_account,
    state_column,
    sums_name,
)
from tasks.build.takeover import Hashes, Parent, load_parent
from tasks.entries import TOKENS, key_column
from tasks.fitted import write_arrays
from tasks.markers import Attempt, done, marker, numbered, output
from tasks.models import backbone_of, retriever_of
from tasks.progress import advance, stage
from tasks.retrying import RETRIES
from tasks.rows import label_numbers, rows_of_shard


@task(**RETRIES)
def read_database_centre(work: str) -> None:
    """Read a sentence encoder's centre over the rows that the plan chose."""
    folder, plan = Folder(work), plan_of(work)
    if not plan.has_centre or folder.exists(CENTRE) or marker(folder, "centre") is not None:
        return
    attempt = Attempt(folder, "centre")
    texts = json.loads(folder.read(CENTRE_TEXTS))
    with stage("read centre", len(texts)):
        centre = read_centre(backbone_of(plan.job.backbone), plan.prompt, texts, advance)
    with attempt.folder.create(CENTRE) as file:
        file.write(safetensors.torch.save({"mean": centre.cpu()}))
    done(attempt, [], 0)


@task(**RETRIES)
def sweep_shard(work: str, number: int) -> int:
    """Sweep a shard; returns its rows."""
    folder, plan = Folder(work), plan_of(work)
    if (before := marker(folder, numbered("shard", number))) is not None:
        return int(before["rows"])
    attempt = Attempt(folder, numbered("shard", number))
    backbone = backbone_of(plan.job.backbone)
    rows = rows_of_shard(plan.job.corpus, plan.shards[number], backbone, plan.prompt.labels)
    shard = _look_up(plan, rows.usable)
    _write(attempt.folder, shard, plan, _read(work, shard))
    written = []
    if len(rows.rejects):
        name = f"rejects/{part_name(number)}"
        written.append(write_table(attempt.version, name, table_of(rows.rejects)))
    new = int(shard.new.sum())
    rejected = rows.rejected()
    return int(done(attempt, written, len(rows), new=new, rejected=rejected)["rows"])


@task(**RETRIES)
def check_swept(work: str) -> tuple[int, int]:
    """Whether all rows of the corpus were read or rejected; rows, and those that were read here.

    The others were taken over.  Raises InputError if rows are missing, or too many are rejected.
    """
    plan, rows, rejected = plan_of(work), rows_swept(work), rows_rejected(work)
    check_all_there(plan.job.corpus.uri, rows, rejected, plan.corpus["rows"])
    check_rejected(plan.job.corpus.uri, rejected, plan.corpus["rows"], plan.job.max_reject_fraction)
    return rows, sum(shard_account(work, n)["new"] for n in plan.numbers)


@dataclass(frozen=True)
class _Shard:
    """A shard's rows, and what the parent knows of them."""

    rows: pl.DataFrame
    """id, text, label."""
    hashes: Hashes
    label: NDArray[np.uint16]
    sampled: NDArray[np.bool_]
    parent: Parent | None
    places: NDArray[np.int64]
    """(rows,) of their readings in the parent's; -1 for rows that it has not."""
    states: NDArray[np.int64]
    """(rows,) of their states in the parent's; -1 where it has none."""

    @property
    def new(self) -> NDArray[np.bool_]:
        """(rows,) True where the parent has not read the row."""
        return self.places < 0

    @property
    def reread(self) -> NDArray[np.bool_]:
        """(rows,) True where it has, but the row has come into the sample since."""
        return ~self.new & self.sampled & (self.states < 0)

    def texts(self, which: NDArray[np.bool_]) -> list[str]:
        """The texts of some rows."""
        return self.rows["text"].filter(pl.Series(which)).to_list()


def _look_up(plan: BuildPlan, rows: pl.DataFrame) -> _Shard:
    labels = plan.prompt.labels
    label = label_numbers(rows["label"], labels)
    sampled = np.ones(len(rows), dtype=bool)
    if plan.sample is not None:
        limits = np.array([plan.sample.get(name, 0) for name in labels], np.uint32)
        sampled = sample_numbers(rows["text"]) <= limits[label]
    hashes = np.array([text_hash(text) for text in rows["text"]], dtype="S32")
    nowhere = np.full(len(rows), -1)
    parent = parent_of(plan)
    return _Shard(
        rows=rows,
        hashes=hashes,
        label=label,
        sampled=sampled,
        parent=parent,
        places=nowhere if parent is None else parent.find(hashes),
        states=nowhere if parent is None else parent.states.find(hashes),
    )


def _read(work: str, shard: _Shard) -> tuple[Sweep, Sweep]:
    """What is read of the new rows, and of those whose states only are missing."""
    advance(int((~shard.new & ~shard.reread).sum()))
    return tuple(
        sweep_rows(work, shard.texts(which), shard.label[which], shard.sampled[which])
        for which in (shard.new, shard.reread)
    )  # type: ignore[return-value]


def sweep_rows(
    work: str, texts: Sequence[str], label: NDArray[np.uint16], keep: NDArray[np.bool_]
) -> Sweep:
    """Sweep some rows of a build.  keep: (rows,) whose states are kept."""
    plan = plan_of(work)
    return sweep(
        backbone_of(plan.job.backbone),
        plan.prompt,
        head_of(work),
        plan.job.key,
        retriever_of(plan.job.key, plan.job.backbone.dtype),
        texts,
        Labelled(label, len(plan.prompt.labels), keep),
        advance,
    )


def _write(folder: Folder, shard: _Shard, plan: BuildPlan, found: tuple[Sweep, Sweep]) -> None:
    """Write a shard's files."""
    swept, again = found
    kept = table_of(shard.rows.select("id", "text"))
    rows = {
        "id": kept["id"],
        "text_hash": _hash_column(shard.hashes),
        "text": kept["text"],
        "label": pa.array(shard.label, pa.uint16()),
        "sampled": pa.array(shard.sampled),
        "new": pa.array(shard.new),
        "fresh": pa.array(shard.sampled & (shard.new | shard.reread)),
    }
    if not plan.job.keep_text:
        del rows["text"]
    write_table(folder, ROWS, pa.table(rows))
    readings: dict[str, NDArray] = {
        "answers": swept.answers,
        "confidences": swept.confidences,
        TOKENS: swept.hashes,
    }
    readings |= {key_column(i): keys for i, keys in enumerate(swept.keys)}
    _write_readings(folder, NEW, shard.hashes[shard.new], readings)
    taken = ~shard.new
    if taken.any():
        assert shard.parent is not None, "only a parent's rows are taken over"
        readings = shard.parent.swept.take(shard.places[taken], list(readings))
    else:
        readings = {column: values[:0] for column, values in readings.items()}
    _write_readings(folder, TAKEN, shard.hashes[taken], readings)
    # A shard whose rows are all taken over adds nothing to its parent's sums.
    for state, sums in swept.sums.items() if shard.new.any() else ():
        write_arrays(folder, sums_name(state), sums.tensors())
    _write_states(folder, shard, swept, again)


def _write_states(folder: Folder, shard: _Shard, swept: Sweep, again: Sweep) -> None:
    sampled = shard.sampled
    new, reread = shard.new[sampled], shard.reread[sampled]
    taken = ~new & ~reread
    columns: dict[str, NDArray] = {}
    for state, by_depth in swept.states.items():
        for depth, vectors in enumerate(by_depth):
            values = np.zeros((len(new), vectors.shape[1]), np.float32)
            values[new], values[reread] = vectors, again.states[state][depth]
            columns[state_column(state, depth)] = values
    if taken.any():
        assert shard.parent is not None, "only a parent's rows are taken over"
        found = shard.parent.states.take(shard.states[sampled][taken], list(columns))
        for column, values in found.items():
            columns[column][taken] = values
    _write_readings(folder, STATES, shard.hashes[sampled], columns)


def _write_readings(
    folder: Folder, name: str, hashes: Hashes, readings: dict[str, NDArray]
) -> None:
    columns: dict[str, pa.Array] = {"text_hash": _hash_column(hashes)}
    columns |= {column: list_column(values) for column, values in readings.items()}
    write_table(folder, name, pa.table(columns))


def _hash_column(hashes: Hashes) -> pa.Array:
    return pa.array(hashes.astype("U32"), pa.string())


def parent_of(plan: BuildPlan) -> Parent | None:
    """The version that a build takes rows over from; None where it takes none."""
    if not plan.takes_over or plan.parent is None:
        return None
    return load_parent(plan.job.store, plan.job.name, plan.parent)


def centre_folder(work: str) -> Folder:
    """Where a build's centre lies: inherited with the plan, or read by the first step."""
    folder = Folder(work)
    return folder if folder.exists(CENTRE) else output(folder, "centre")


@lru_cache(maxsize=1)
def head_of(work: str) -> HeadReader:
    """The head of a build."""
    plan = plan_of(work)
    centre = None
    if plan.has_centre:
        centre = safetensors.torch.load(centre_folder(work).read(CENTRE))["mean"]
    return head_reader(backbone_of(plan.job.backbone), plan.prompt, centre)
