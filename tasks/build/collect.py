"""The step of a build that says which readings a later rebuild may take over.

A build from nothing writes those of all its rows.  A rebuild keeps those files of its parent of
which most rows are still used, and writes new ones for its new rows and for what is left of the
others.  No more than a file and a shard is held in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prefect import task

from storage.checked import FileRecord
from storage.parquet import read_table, write_table
from storage.store import Folder
from tasks.build.plan import BuildPlan, plan_of
from tasks.build.shards import NEW, all_hashes, marks_of, rows_swept, shard_account, shard_folder
from tasks.build.shards import STATES as SHARD_STATES
from tasks.build.sweep import parent_of
from tasks.build.takeover import STATES, SWEPT, Parent, Parts, hashes_of
from tasks.markers import Attempt, account_of, done, marker, output
from tasks.retrying import RETRIES

PART_ROWS = 10_000
"""Rows of a file of readings; one with less than half of it in use is written anew."""

_STEP = "collected"

_Read = Callable[[Sequence[str] | None], pa.Table]
"""`read(columns) -> table`, with `text_hash`; None: all columns."""


@task(**RETRIES)
def collect_readings(work: str) -> None:
    """Say which files hold the readings of a build's rows, and write those that there are not."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, _STEP) is not None:
        return
    attempt, parent, marks = Attempt(folder, _STEP), parent_of(plan), marks_of(work)
    kept: list[FileRecord] = []
    readings: list[_Read] = []
    states: list[_Read] = []
    if parent is not None:
        kept, readings, states = _of_parent(work, plan, parent)
    for number in plan.numbers:
        if shard_account(work, number)["new"]:
            readings.append(partial(read_table, shard_folder(work, number), NEW))
        if marks.fresh[marks.rows_of(number)].any():
            states.append(partial(_fresh_states, work, number))
    written = [
        *_write_parts(attempt.folder, f"{plan.version}-{{:05d}}.parquet", readings),
        *_write_parts(attempt.folder, f"{plan.version}-{{:05d}}{STATES}", states),
    ]
    rows = rows_swept(work)
    done(attempt, [], rows, kept=[asdict(f) for f in kept], new=[asdict(f) for f in written])


def put_readings_in_place(work: str) -> list[FileRecord]:
    """Copy the readings that a build wrote to the database; returns all that its version names."""
    folder, plan = Folder(work), plan_of(work)
    account = account_of(work, _STEP)
    kept, new = ([FileRecord(**record) for record in account[name]] for name in ("kept", "new"))
    output(folder, _STEP).copy([f.path for f in new], plan.job.database.folder)
    return sorted([*kept, *new], key=lambda f: f.path)


def _of_parent(
    work: str, plan: BuildPlan, parent: Parent
) -> tuple[list[FileRecord], list[_Read], list[_Read]]:
    """The parent's files that are kept, and what is used of the others: readings and states."""
    hashes = np.unique(all_hashes(work))
    keep = _in_use(parent.swept, hashes)
    # States are kept with the readings beside which they lie.
    keep += [_states_of(path) for path in keep]
    wanted = pa.array(hashes.astype("U32"), pa.string())

    def left_of(parts: Parts) -> list[_Read]:
        return [partial(_used, parts.folder, p, wanted) for p in parts.paths if p not in keep]

    kept = [f for f in parent.manifest.swept if f.path in keep]
    return kept, left_of(parent.swept), left_of(parent.states)


def _in_use(parts: Parts, hashes: NDArray[np.bytes_]) -> list[str]:
    """The files of which most is used, small ones apart.  hashes: ascending."""
    places = parts.find(hashes)
    used = np.bincount(parts.part_of(places[places >= 0]), minlength=len(parts.paths))
    rows = np.diff(parts.starts)
    return [parts.paths[n] for n in np.flatnonzero(used > np.maximum(rows, PART_ROWS) // 2)]


def _used(folder: Folder, path: str, hashes: pa.Array, columns: Sequence[str] | None) -> pa.Table:
    table = read_table(folder, path, columns)
    return table.filter(pc.is_in(table["text_hash"], hashes))


def _states_of(path: str) -> str:
    return path.removesuffix(".parquet") + STATES


def _fresh_states(work: str, number: int, columns: Sequence[str] | None) -> pa.Table:
    """The states that a shard's sweep read, not took over."""
    states, marks = read_table(shard_folder(work, number), SHARD_STATES, columns), marks_of(work)
    rows = marks.rows_of(number)
    return states.filter(pa.array(marks.fresh[rows][marks.sampled[rows]]))


def _write_parts(folder: Folder, name: str, reads: Sequence[_Read]) -> list[FileRecord]:
    """Write the rows of some tables, one of each text, to files of PART_ROWS.

    name: of a file, with a place for its number.
    """
    if not reads:
        return []
    hashes = [hashes_of(read(["text_hash"])) for read in reads]
    once = np.zeros(sum(len(h) for h in hashes), bool)
    once[np.unique(np.concatenate(hashes), return_index=True)[1]] = True
    of_table = np.split(once, np.cumsum([len(h) for h in hashes])[:-1])
    tables = (read(None).filter(pa.array(some)) for read, some in zip(reads, of_table, strict=True))
    return [
        write_table(folder, f"{SWEPT}/{name.format(number)}", part)
        for number, part in enumerate(_in_parts(tables))
    ]


def _in_parts(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of some tables, PART_ROWS at a time."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        while rows >= PART_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, PART_ROWS)
            waiting = [whole.slice(PART_ROWS)]
            rows -= PART_ROWS
    if rows:
        yield pa.concat_tables(waiting)
