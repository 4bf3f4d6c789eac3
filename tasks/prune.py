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
from raee.index import Index
from raee.index_choice import IndexAccount
from raee.index_training import built_index, check_index_spec
from raee.objectives import half_standard_error
from raee.paired import better_beyond_noise
from raee.pruning import NEIGHBOURS, keep_rows, values
from raee.readers import vote
from raee.replay import Trial, figures, replay
from raee.shift import far_distance
from raee.tuning import NEIGHBOURS as PLANNED_ON
from raee.tuning import halves
from storage.aliases import resolve_version
from storage.checked import FileRecord
from storage.parquet import list_column, part_name, read_table, write_table
from storage.store import Folder
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
from tasks.models import index_spec_of
from tasks.policies import compared, runnable, tuning_of
from tasks.progress import advance, stage
from tasks.report.data import gather
from tasks.report.page import render
from tasks.reporting import parent_of, texts_of

logger = logging.getLogger("raee")

SEED = 0
"""Of the halves that rows are valued and judged on."""

_AT_ONCE = 50_000
"""Rows whose keys are in memory at once, besides the indexes."""

SHARES = tuple(round(0.1 * i, 1) for i in range(9, 0, -1))
"""Shares of the rows that may go, the largest first."""


@dataclass(frozen=True)
class _Pruned:
    """A database without some of its rows."""

    kept: NDArray[np.int64]
    indexes: tuple[Index, ...]
    accounts: tuple[IndexAccount, ...]
    """Of the indexes, for the manifest."""
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
    found = _search(first, first, np.arange(len(entries)), max(NEIGHBOURS, PLANNED_ON))
    # What a row is worth is worked out on one half of the rows and judged on the other.
    valued, judged = halves(len(entries), SEED)
    worth = values(found.first(NEIGHBOURS)[valued], entries.label, valued)
    complete = np.intersect1d(entries.complete, judged)
    whole = Trial(entries, complete, found[complete])
    before = {n: replay(p, whole, parent.costs) for n, p in policies.items()}
    with stage("prune", len(SHARES)):
        for share in SHARES:
            advance(1)
            kept = keep_rows(worth, entries.label, share)
            if len(kept) == len(entries):  # no label has so many rows that one is this share
                break
            if any(_too_few(parent, index, len(kept)) for index in parent.indexes):
                continue
            pruned = _without(parent, kept)
            trial = pruned.trial(complete)
            after = {n: replay(p, trial, parent.costs) for n, p in policies.items()}
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


def _spec(parent: Readings, index: Index, rows: int) -> str:
    """The FAISS factory string of an index of a child with so many rows."""
    return index_spec_of(Job.model_validate(parent.manifest.job), rows, index.width)


def _too_few(parent: Readings, index: Index, rows: int) -> bool:
    """Whether the index that the job asks for cannot be trained on so few rows."""
    try:
        check_index_spec(_spec(parent, index, rows), index.width, rows)
    except InputError:
        return True
    return False


def _without(parent: Readings, kept: NDArray[np.int64]) -> _Pruned:
    entries = parent.entries
    answers, confidences = entries.answers.copy(), entries.confidences.copy()
    indexes, accounts, first = [], [], None
    # A place that no row has: a row that is gone cannot find itself.
    own = np.full(len(entries), -2)
    own[kept] = np.arange(len(kept))
    for index, place in zip(parent.indexes, entries.places("vote"), strict=True):
        smaller, account = _smaller(parent, index, kept)
        found = _search(index, smaller, own, PLANNED_ON)
        found.rows[:] = np.where(found.rows < 0, -1, kept[found.rows])
        said = vote(found.first(PAPER_NEIGHBOURS), entries.label, len(entries.labels))
        answers[:, place], confidences[:, place] = said.argmax(axis=1), said.max(axis=1)
        indexes.append(smaller)
        accounts.append(account)
        first = found if first is None else first
    assert first is not None, "a version has a key"
    changed = replace(entries, answers=answers, confidences=confidences)
    return _Pruned(kept, tuple(indexes), tuple(accounts), changed, first)


def _smaller(parent: Readings, index: Index, kept: NDArray[np.int64]) -> tuple[Index, IndexAccount]:
    """An index of some of another's rows; where that holds codes, of what they stand for."""
    return built_index(
        _spec(parent, index, len(kept)),
        len(kept),
        index.width,
        lambda rows: index.keys_of(kept[rows]),
        (index.keys_of(kept[start : start + _AT_ONCE]) for start in range(0, len(kept), _AT_ONCE)),
    )


def _search(index: Index, among: Index, own: NDArray[np.int64], k: int) -> Neighbours:
    """The k nearest of each of an index's rows among another's.

    own: (rows,) the row of the other that it must not find: itself.
    """
    found = [
        among.search(index.keys(start, start + len(some)), k, exclude=some)
        for start in range(0, len(own), _AT_ONCE)
        for some in [own[start : start + _AT_ONCE]]
    ]
    return Neighbours(
        np.concatenate([part.rows for part in found]),
        np.concatenate([part.distances for part in found]),
        np.arange(len(own)),
    )


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
    paths = [index_path(name) for name in Job.model_validate(manifest.job).key.names]
    for index, path in zip(pruned.indexes, paths, strict=True):
        with folder.create(path) as file:
            index.write(file.write)
        files.append(file.record(rows=len(index)))
    nearest = pruned.neighbours[pruned.kept]
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
            "indexes": {
                path: account.model_dump()
                for path, account in zip(paths, pruned.accounts, strict=True)
            },
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
