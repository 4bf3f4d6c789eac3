"""The step of a build that says which readings a later rebuild may take over.

A build from nothing leaves each shard's own.  A rebuild keeps those of its parent of which most
rows are still used, and writes new ones for its new rows and for what is left of the others.
"""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prefect import task

from storage.parquet import read_table, write_table
from storage.store import FileRecord, Folder
from storage.versions import database_folder
from tasks.build import parent_of
from tasks.build_plan import BuildPlan, plan_of
from tasks.markers import Attempt, done, marker, numbered, output, said
from tasks.retrying import RETRIES
from tasks.shards import NEW, shard_folder, shard_table
from tasks.shards import STATES as SHARD_STATES
from tasks.takeover import STATES, SWEPT, Parent, Parts, hashes_of

PART_ROWS = 10_000
"""Rows of a file of readings; one with less than half of it in use is written anew."""

_STEP = "collected"


@task(**RETRIES)
def collect_readings(work: str) -> None:
    """Say which files hold the readings of a build's rows; a rebuild writes those of its new."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, _STEP) is not None:
        return
    attempt, parent = Attempt(folder, _STEP), parent_of(plan)
    kept: list[FileRecord] = []
    written: list[FileRecord] = []
    if parent is not None:
        kept, written = _merge(work, plan, parent, attempt.folder)
    done(attempt, [], plan.rows, kept=[asdict(f) for f in kept], new=[asdict(f) for f in written])


def put_readings_in_place(work: str) -> list[FileRecord]:
    """Copy the readings that a build read to the database; returns all that its version names."""
    folder, plan = Folder(work), plan_of(work)
    database = database_folder(plan.job.store, plan.job.name)
    account = said(folder, _STEP)
    kept, new = ([FileRecord(**record) for record in account[name]] for name in ("kept", "new"))
    output(folder, _STEP).copy([f.path for f in new], database)
    if not plan.takes_over:
        for number in plan.numbers:
            names = {NEW: _name(plan, number), SHARD_STATES: _name(plan, number, STATES)}
            shard_folder(work, number).copy(list(names), database, list(names.values()))
            for record in said(folder, numbered("shard", number))["readings"]:
                new.append(FileRecord(**record | {"path": names[record["path"]]}))
    return sorted([*kept, *new], key=lambda f: f.path)


def _name(plan: BuildPlan, number: int, ending: str = ".parquet") -> str:
    return f"{SWEPT}/{plan.version}-{number:05d}{ending}"


def _merge(
    work: str, plan: BuildPlan, parent: Parent, folder: Folder
) -> tuple[list[FileRecord], list[FileRecord]]:
    """The parent's files that are kept, and what was written."""
    hashes = np.unique(np.concatenate([_hashes(work, n) for n in plan.numbers]))
    keep, left_of = _kept(parent.swept, hashes)
    stays = set(keep) | {_states_of(path) for path in keep}
    kept = [f for f in parent.manifest.swept if f.path in stays]
    _, left_of_states = _kept(parent.states, hashes, [_states_of(path) for path in keep])
    new = [read_table(shard_folder(work, n), NEW) for n in plan.numbers]
    fresh = [_fresh_states(work, n) for n in plan.numbers]
    readings = _each_once(pa.concat_tables([*left_of, *new]))
    states = _each_once(pa.concat_tables([*left_of_states, *fresh]))
    written = []
    for number, start in enumerate(range(0, len(readings), PART_ROWS)):
        part = readings.slice(start, PART_ROWS)
        written.append(write_table(folder, _name(plan, number), part))
    for number, start in enumerate(range(0, len(states), PART_ROWS)):
        part = states.slice(start, PART_ROWS)
        written.append(write_table(folder, _name(plan, number, STATES), part))
    return kept, written


def _kept(
    parts: Parts, hashes: NDArray[np.bytes_], keep: list[str] | None = None
) -> tuple[list[str], list[pa.Table]]:
    """The files that stay, and of the others what is used."""
    places = np.unique(parts.find(hashes))
    used = np.bincount(parts.part_of(places[places >= 0]), minlength=len(parts.paths))
    stays, left = [], []
    wanted = pa.array(hashes.astype("U32"), pa.string())
    for number, path in enumerate(parts.paths):
        whole = parts.starts[number + 1] - parts.starts[number]
        if path in keep if keep is not None else used[number] > max(whole, PART_ROWS) // 2:
            stays.append(path)
            continue
        table = read_table(parts.folder, path)
        left.append(table.filter(pc.is_in(table["text_hash"], wanted)))
    return stays, left


def _states_of(path: str) -> str:
    return path.removesuffix(".parquet") + STATES


def _hashes(work: str, number: int) -> NDArray[np.bytes_]:
    return hashes_of(shard_table(work, number, ["text_hash"]))


def _fresh_states(work: str, number: int) -> pa.Table:
    """The states that a shard's sweep read, not took over."""
    rows = shard_table(work, number, ["sampled", "fresh"])
    states = read_table(shard_folder(work, number), SHARD_STATES)
    return states.filter(rows["fresh"].filter(rows["sampled"]))


def _each_once(table: pa.Table) -> pa.Table:
    """One row of each text."""
    _, first = np.unique(hashes_of(table), return_index=True)
    return table.take(pa.array(np.sort(first)))
