"""Pruning: a child version without the rows whose removal costs nothing."""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raee.config import (
    PAPER_NEIGHBOURS,
    FarSpec,
    RetrievalPolicy,
    RunnablePolicy,
    TunedPolicy,
)
from raee.errors import InputError
from raee.exits import Entries, Neighbours
from raee.index import Index, new_index
from raee.objectives import half_standard_error
from raee.paired import better_beyond_noise
from raee.pruning import NEIGHBOURS, keep_rows, values
from raee.readers import vote
from raee.replay import Trial, figures, replay
from raee.shift import far_distance
from raee.tuning import NEIGHBOURS as PLANNED_ON
from raee.tuning import halves
from storage.aliases import resolve_version
from storage.parquet import list_column, part_name, read_table, write_table
from storage.store import FileRecord, Folder
from storage.versions import (
    CENTRE,
    PROBES,
    REPORT,
    Manifest,
    index_path,
    new_version_id,
    publish,
    require_whole,
    version_folder,
)
from tasks.database import Readings, load_readings
from tasks.job import Job
from tasks.policies import compared, runnable, tuning_of
from tasks.progress import advance, stage
from tasks.report.data import gather
from tasks.report.page import render
from tasks.reporting import parent_of, texts_of

logger = logging.getLogger("raee")

SEED = 0
"""Of the halves that rows are valued and judged on."""

SHARES = tuple(round(0.1 * i, 1) for i in range(9, 0, -1))
"""Shares of the rows that may go, the largest first."""


@dataclass(frozen=True)
class _Pruned:
    """A database without some of its rows."""

    kept: NDArray[np.int64]
    indexes: tuple[Index, ...]
    entries: Entries
    """All rows', with the votes that the kept ones cast."""
    neighbours: Neighbours
    """All rows' among the kept ones."""

    def trial(self, rows: NDArray[np.int64]) -> Trial:
        """Some of all rows, as the pruned database answers them."""
        return Trial(self.entries, rows, self.neighbours[rows])


def prune_version(store: str, name: str, version: str | None) -> tuple[str | None, dict[str, Any]]:
    """Publish a child of a version without the rows that replay does not miss.

    The most rows go without which neither the neighbours' vote nor the version's own policy is
    worse on the rows kept for judging, each without itself; labels keep their balance.  Returns
    the child's id (None where nothing can go) and the measured before and after.
    Raises InputError where there is no such version.
    """
    parent = load_readings(store, name, resolve_version(store, name, version))
    if parent.manifest.tuning is None:
        raise InputError(f"{parent.where} was built without tuning; build it anew to prune it")
    if parent.manifest.pruned is not None:
        raise InputError(f"{parent.where} is pruned already; prune {parent.manifest.parent} anew")
    policies = _policies(parent)
    entries, first = parent.entries, parent.indexes[0]
    rows = np.arange(len(entries))
    found = first.search(first.keys_of(rows), max(NEIGHBOURS, PLANNED_ON), exclude=rows)
    # What a row is worth is worked out on one half of the rows and judged on the other.
    valued, judged = halves(len(entries), SEED)
    worth = values(found.first(NEIGHBOURS)[valued], entries.label, valued)
    complete = np.intersect1d(entries.complete, judged)
    whole = Trial(entries, complete, found[complete])
    before = {n: replay(p, whole, parent.costs) for n, p in policies.items()}
    with stage("prune", len(SHARES)):
        for share in SHARES:
            kept = keep_rows(worth, entries.label, share)
            if len(kept) == len(entries):  # no label has so many rows that one is this share
                break
            pruned = _without(parent, kept)
            trial = pruned.trial(complete)
            after = {n: replay(p, trial, parent.costs) for n, p in policies.items()}
            advance(1)
            label = whole.label
            if any(_costs(before[n].answers == label, after[n].answers == label) for n in policies):
                continue
            account = {
                "of": parent.manifest.id,
                "share": share,
                "rows_before": len(entries),
                "rows_after": len(pruned.kept),
                "before": {n: figures(r, whole) for n, r in before.items()},
                "after": {n: figures(r, trial) for n, r in after.items()},
            }
            return _publish(store, parent, pruned, account), account
    return None, {"of": parent.manifest.id, "rows_before": len(entries)}


def _costs(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
    """Whether a policy is worse than it was: beyond noise, or by half a standard error.

    The second is what a small database is held to, in which nothing is beyond noise.
    """
    loss = float(before.mean() - after.mean())
    return better_beyond_noise(before, after) or loss > half_standard_error(
        float(before.mean()), len(before)
    )


def _policies(readings: Readings) -> dict[str, RunnablePolicy]:
    """The vote, which lives by the rows, and the version's own policy."""
    job = Job.model_validate(readings.manifest.job)
    own = runnable(job.policy, tuning_of(readings.manifest), readings.where)
    return {"retrieval": RetrievalPolicy(), job.policy.name: own}


def _without(parent: Readings, kept: NDArray[np.int64]) -> _Pruned:
    entries = parent.entries
    answers, confidences = entries.answers.copy(), entries.confidences.copy()
    indexes, first = [], None
    for index, place in zip(parent.indexes, entries.places("vote"), strict=True):
        smaller = new_index(index.keys(0, 1).shape[1])
        smaller.add(index.keys_of(kept))
        found = _search(index, smaller, kept, len(entries))
        said = vote(found.first(PAPER_NEIGHBOURS), entries.label, len(entries.labels))
        answers[:, place], confidences[:, place] = said.argmax(axis=1), said.max(axis=1)
        indexes.append(smaller)
        first = found if first is None else first
    assert first is not None, "a version has a key"
    changed = replace(entries, answers=answers, confidences=confidences)
    return _Pruned(kept, tuple(indexes), changed, first)


def _search(index: Index, smaller: Index, kept: NDArray[np.int64], rows: int) -> Neighbours:
    """The neighbours of all rows among the kept ones, each without itself, by their old places."""
    # A place that no row has: a row that is gone cannot find itself.
    own = np.full(rows, -2)
    own[kept] = np.arange(len(kept))
    found = smaller.search(index.keys(0, rows), PLANNED_ON, exclude=own)
    places = np.where(found.rows < 0, -1, kept[found.rows])
    return Neighbours(places, found.distances, np.arange(rows))


def _publish(store: str, parent: Readings, pruned: _Pruned, account: dict[str, Any]) -> str:
    manifest = parent.manifest
    version = new_version_id()
    folder = version_folder(store, manifest.name, version)
    copied = [
        f for f in manifest.files if f.path in (CENTRE, PROBES) or f.path.startswith("rejects/")
    ]
    require_whole(parent.folder, manifest, [f.path for f in copied])
    files: list[FileRecord] = []
    for record in copied:
        with folder.create(record.path) as file:
            file.write(parent.folder.read(record.path))
        files.append(file.record(rows=record.rows))
    names = Job.model_validate(manifest.job).key.names
    for index, name in zip(pruned.indexes, names, strict=True):
        with folder.create(index_path(name)) as file:
            index.write(file.write)
        files.append(file.record(rows=len(index)))
    nearest = pruned.indexes[0].search(
        parent.indexes[0].keys_of(pruned.kept), 1, exclude=np.arange(len(pruned.kept))
    )
    begun = 0
    for number, path in enumerate(parent.parts):
        table = read_table(parent.folder, path)
        here = (pruned.kept >= begun) & (pruned.kept < begun + len(table))
        rows = pruned.kept[here]
        columns = {n: table[n].take(pa.array(rows - begun)) for n in table.column_names}
        columns["answers"] = list_column(pruned.entries.answers[rows])
        columns["confidences"] = list_column(pruned.entries.confidences[rows])
        columns["nearest_distance"] = pa.array(nearest.distances[here, 0], pa.float32())
        files.append(write_table(folder, f"entries/{part_name(number)}", pa.table(columns)))
        begun += len(table)
    files.append(_write_report(parent, pruned, folder, version, nearest.distances[:, 0]))
    child = manifest.model_copy(
        update={
            "id": version,
            "parent": manifest.id,
            "created_at": datetime.now(UTC),
            "rows": len(pruned.kept),
            "files": sorted(files, key=lambda f: f.path),
            "metrics": manifest.metrics | account["after"],
            "pruned": account,
        }
    )
    publish(folder, Manifest.model_validate(child.model_dump()))
    return version


def _write_report(
    parent: Readings,
    pruned: _Pruned,
    folder: Folder,
    version: str,
    nearest: NDArray[np.float32],
) -> FileRecord:
    """The child's report: on all of the parent's rows, as the kept ones answer them."""
    manifest = parent.manifest
    job, tuning = Job.model_validate(manifest.job), tuning_of(manifest)
    assert tuning is not None, "a version without tuning is not pruned"
    page = render(
        gather(
            name=manifest.name,
            version=version,
            created_at=datetime.now(UTC),
            trial=pruned.trial(parent.entries.complete),
            tuning=tuning,
            policies={
                "tuned": tuning.pick(TunedPolicy()).policy,
                **compared(job.policy, tuning, manifest.exits, parent.where),
            },
            costs=parent.costs,
            nearest=nearest,
            far_distance=far_distance(nearest, (job.far or FarSpec()).quantile),
            growth={},
            texts=texts_of(parent.folder, parent.parts) if job.keep_text else None,
            parent=parent_of(manifest),
        )
    )
    with folder.create(REPORT) as file:
        file.write(page.encode())
    return file.record()
