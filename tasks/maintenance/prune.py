"""Pruning: a child version without the rows whose removal costs nothing.

The command `prune`; no task uses it.
"""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from raee.answers import Answers, Neighbours, answers_of
from raee.config import (
    PAPER_NEIGHBOURS,
    RetrievalPolicy,
    RiskSpec,
    RunnablePolicy,
)
from raee.errors import InputError
from raee.exits import Entries
from raee.neighbours.choice import IndexRecord
from raee.neighbours.index import Index
from raee.neighbours.lists import nearest_other_texts
from raee.neighbours.pruning import NEIGHBOURS, keep_rows, values
from raee.neighbours.training import built_index, check_index_spec
from raee.policies.compared import judged, metrics_of, objective_of, runnable
from raee.policies.objectives import loss_p_value
from raee.policies.replay import Trial, figures, replay
from raee.policies.tuning import NEIGHBOURS as PLANNED_ON
from raee.policies.tuning import study
from raee.readers.pool import weigh_votes
from raee.readers.vote import vote
from raee.statistics.calibration import calibrated
from raee.statistics.paired import paired
from raee.texts import Texts
from storage.checked import FileRecord
from storage.database import Database, Version, new_version_id
from storage.manifest import CENTRE, FAR, FORMAT, PROBES, REPORT, WORDS, Manifest
from storage.parquet import list_column, list_values
from tasks.build.build import SEED as TUNING_SEED
from tasks.entries import write_entries
from tasks.fitted import read_far, write_arrays
from tasks.job import Job
from tasks.models import index_spec_of
from tasks.progress import advance, stage
from tasks.readings import Readings, index_paths, load_readings, tuning_of
from tasks.report.writing import report_page

logger = logging.getLogger("raee")

SEED = 0
"""The seed of the halves that rows are valued and judged on."""

_AT_ONCE = 50_000
"""Rows whose keys are in memory at once, besides the indexes."""

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Shares of the rows that may go."""

ALLOWED = RiskSpec(max_loss=0.02, confidence=0.95)
"""What pruning may cost on new texts."""


class Pruning(BaseModel):
    """The cost of a version's pruning; all but the first two are set only if some rows can go."""

    model_config = ConfigDict(frozen=True)

    of: str
    """The version's id."""
    rows_before: int
    share: float | None = None
    """The share of the rows that went."""
    rows_after: int | None = None
    before: dict[str, dict[str, Any]] = {}
    """Figures of the compared policies, by name."""
    after: dict[str, dict[str, Any]] = {}

    def as_json(self) -> dict[str, Any]:
        """The manifest's record of it."""
        return self.model_dump(exclude_unset=True)


@dataclass(frozen=True)
class _Pruned:
    """A database without some of its rows."""

    kept: NDArray[np.int64]
    """(kept rows,) positions, ascending."""
    indexes: tuple[Index, ...]
    records: tuple[IndexRecord, ...]
    """The manifest's records of the indexes."""
    entries: Entries
    """The entries of all rows, with the votes of the kept ones, calibrated."""
    votes: Answers
    """(rows, keys) the same votes as they were cast."""
    neighbours: Neighbours
    """The neighbours of all rows among the kept ones."""

    def trial(self, rows: NDArray[np.int64]) -> Trial:
        """Some rows as the pruned database answers them.  rows: positions among all rows."""
        return Trial(self.entries, rows, self.neighbours[rows])


def prune_version(version: Version) -> tuple[str | None, Pruning]:
    """Publish a child of a version without the rows that replay does not miss.

    The largest share of rows goes for which it is shown, with ALLOWED's confidence, that neither
    the neighbours' vote nor the version's own policy loses more without them than ALLOWED says;
    labels keep their balance.  Each half of the texts judges an order that the other half has made,
    from the smallest share on, up to the first that cannot be shown (fixed-sequence testing, as for
    a promise).  Returns the child's id (None if nothing can go) and the measured before and after.
    Raises InputError if there is no such version, or it cannot be pruned.
    """
    parent = load_readings(version)
    if parent.manifest.format < FORMAT:
        raise InputError(
            f"{parent.where} is of format {parent.manifest.format}, from an earlier raee; build it "
            "anew to prune it"
        )
    if parent.manifest.pruned is not None:
        raise InputError(f"{parent.where} is pruned already; prune {parent.manifest.parent} anew")
    if weigh_votes((parent.manifest.probes or {}).get("pool", [])):
        raise InputError(
            f"{parent.where} cannot be pruned: its pools weigh the neighbours' votes, and nothing "
            "that is stored says what they would answer with other votes"
        )
    policies = _policies(parent)
    entries, first = parent.entries, parent.indexes[0]
    found = _search(first, first, entries, max(NEIGHBOURS, PLANNED_ON))
    half = entries.texts.folds(2, SEED)

    def worth(queries: NDArray[np.int64]) -> NDArray[np.float64]:
        return values(found.first(NEIGHBOURS)[queries], entries.label, queries)

    by_half = [worth(np.flatnonzero(half != n)) for n in (0, 1)]
    judges = [np.intersect1d(entries.complete, np.flatnonzero(half == n)) for n in (0, 1)]
    rows = np.concatenate(judges)
    whole = Trial(entries, rows, found[rows])
    before = {n: replay(p, whole, parent.costs) for n, p in policies.items()}
    last = None
    with stage("prune", len(whole) * len(SHARES)):
        for share in SHARES:
            advance(len(whole))
            halves = [keep_rows(of_half, entries.label, share) for of_half in by_half]
            too_few = any(_too_few(parent, i, len(kept)) for i in parent.indexes for kept in halves)
            if too_few or len(halves[0]) == len(entries):
                continue
            tried = [
                _without(parent, kept).trial(own) for kept, own in zip(halves, judges, strict=True)
            ]
            after = {
                n: np.concatenate([replay(p, t, parent.costs).answers for t in tried])
                for n, p in policies.items()
            }
            if not all(_is_shown(whole, before[n].answers, after[n]) for n in policies):
                break
            last = share
    if last is None:
        return None, Pruning(of=parent.manifest.id, rows_before=len(entries))
    pruned = _without(parent, keep_rows(worth(np.arange(len(entries))), entries.label, last))
    trial = pruned.trial(rows)
    pruning = Pruning(
        of=parent.manifest.id,
        rows_before=len(entries),
        share=last,
        rows_after=len(pruned.kept),
        before={n: figures(r, whole) for n, r in before.items()},
        after={n: figures(replay(p, trial, parent.costs), trial) for n, p in policies.items()},
    )
    return _publish(version.database, parent, pruned, pruning), pruning


def _is_shown(trial: Trial, before: NDArray[np.uint16], after: NDArray[np.uint16]) -> bool:
    """Whether answers have lost no more than ALLOWED, beyond doubt.  Rows of a text count once."""
    once, label = trial.texts.first_rows, trial.label
    found = paired((after == label)[once], (before == label)[once])
    return loss_p_value(found.losses, found.wins, len(once), ALLOWED) <= 1 - ALLOWED.confidence


def _policies(readings: Readings) -> dict[str, RunnablePolicy]:
    """The vote, which depends on the rows, and the version's own policy."""
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
    votes = []
    indexes, records, first = [], [], None
    for index in parent.indexes:
        smaller, record = _smaller(parent, index, kept)
        found = _search(index, smaller, entries, PLANNED_ON, kept)
        found.rows[:] = np.where(found.rows < 0, -1, kept[found.rows])
        votes.append(vote(found.first(PAPER_NEIGHBOURS), entries.label, len(entries.labels)))
        indexes.append(smaller)
        records.append(record)
        first = found if first is None else first
    assert first is not None, "a version has a key"
    cast = answers_of(votes)
    answers, confidences = entries.answers.copy(), entries.confidences.copy()
    columns = entries.votes
    answers[:, columns], confidences[:, columns] = cast.answers, cast.confidences
    factors = parent.manifest.temperatures or {}
    of_votes = {n: f for n, f in factors.items() if entries.position_of(n) in columns}
    changed = replace(entries, answers=answers, confidences=confidences)
    tempered = calibrated(changed, of_votes)
    return _Pruned(kept, tuple(indexes), tuple(records), tempered, cast, first)


def _smaller(parent: Readings, index: Index, kept: NDArray[np.int64]) -> tuple[Index, IndexRecord]:
    """An index of some rows of another, of their decoded keys if that one holds codes."""
    return built_index(
        _spec(parent, index, len(kept)),
        len(kept),
        index.width,
        lambda rows: index.keys_of(kept[rows]),
        (index.keys_of(kept[start : start + _AT_ONCE]) for start in range(0, len(kept), _AT_ONCE)),
    )


def _search(
    index: Index,
    among: Index,
    entries: Entries,
    k: int,
    kept: NDArray[np.int64] | slice = slice(None),
) -> Neighbours:
    """For each row of an index, the k nearest rows of another, which holds the kept rows' keys."""
    texts = Texts(entries.hashes[kept])
    found = []
    for start in range(0, len(entries), _AT_ONCE):
        hashes = entries.hashes[start : start + _AT_ONCE]
        keys = index.keys(start, start + len(hashes))
        found.append(nearest_other_texts(among, keys, k, hashes, texts))
    return Neighbours(
        np.concatenate([part.rows for part in found]),
        np.concatenate([part.distances for part in found]),
        np.arange(len(entries)),
    )


def _publish(database: Database, parent: Readings, pruned: _Pruned, pruning: Pruning) -> str:
    manifest = parent.manifest
    child = database.version(new_version_id())
    folder = child.folder
    copied = [
        f
        for f in manifest.files
        if f.path in (CENTRE, PROBES, WORDS) or f.path.startswith("rejects/")
    ]
    database.version(manifest.id).require_whole(manifest, [FAR, *(f.path for f in copied)])
    files: list[FileRecord] = []
    for record in copied:
        with folder.create(record.path) as file:
            file.write(parent.files.read(record.path))
        files.append(file.record(rows=record.rows))
    paths = index_paths(manifest)
    for index, path in zip(pruned.indexes, paths, strict=True):
        with folder.create(path) as file:
            index.write(file.write)
        files.append(file.record(rows=len(index)))
    nearest = pruned.neighbours[pruned.kept]
    begun = 0
    for number, path in enumerate(parent.parts):
        table = parent.files.table(path)
        here = (pruned.kept >= begun) & (pruned.kept < begun + len(table))
        rows = pruned.kept[here]
        columns = {n: table[n].take(pa.array(rows - begun)) for n in table.column_names}
        for name, cast in (
            ("answers", pruned.votes.answers),
            ("confidences", pruned.votes.confidences),
        ):
            values = list_values(table[name])[rows - begun]
            values[:, parent.entries.votes] = cast[rows]
            columns[name] = list_column(values)
        columns["nearest_distance"] = pa.array(nearest.distances[here, 0], pa.float32())
        files.append(write_entries(folder, number, pa.table(columns)))
        begun += len(table)
    job, costs = Job.model_validate(manifest.job), parent.costs
    trial = pruned.trial(parent.entries.complete)
    found = study(trial, costs, objective_of(job.policy), TUNING_SEED, manifest.barred)
    far = read_far(parent.files).among(trial.neighbours.distances[:, 0])
    files.append(write_arrays(folder, FAR, far.tensors()))
    named = manifest.model_copy(update={"id": child.id})
    page = report_page(named, parent.files, trial, found, far, {}, parent=manifest)
    with folder.create(REPORT) as file:
        file.write(page)
    files.append(file.record())
    runs = judged(job.policy, found, trial, costs, manifest.exits, parent.where)
    pruned_manifest = manifest.model_copy(
        update={
            "id": child.id,
            "parent": manifest.id,
            "created_at": datetime.now(UTC),
            "rows": len(pruned.kept),
            "files": sorted(files, key=lambda f: f.path),
            "metrics": metrics_of(runs, trial),
            "tuning": found.tuning.model_dump(mode="json"),
            "indexes": {
                path: record.model_dump()
                for path, record in zip(paths, pruned.records, strict=True)
            },
            "pruned": pruning.as_json(),
        }
    )
    child.publish(Manifest.model_validate(pruned_manifest.model_dump()))
    return child.id
