"""The step of a build that says which readings a later rebuild may reuse.

A build from nothing writes the readings of all its rows.  A rebuild keeps the files of its parent
whose rows are mostly still used, and writes new ones for its new rows and for the used rows of the
other files.  No more than a file and a shard is held in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.checked import FileRecord
from storage.parquet import read_table, write_table
from storage.store import Folder
from tasks.build.build import CHECK, COLLECT, Build, Collected, open_build
from tasks.build.reuse import STATES, SWEPT, Parent, Parts, hashes_of
from tasks.build.shards import NEW
from tasks.build.shards import STATES as SHARD_STATES
from tasks.steps import Attempt, step

PART_ROWS = 10_000
"""Rows of a file of readings; a file of which no more than half is used is written anew."""

_Read = Callable[[Sequence[str] | None], pa.Table]
"""`read(columns) -> table`, with `text_hash` among them; all columns if None."""


@step(COLLECT, opens=open_build, stage="collect", after=[CHECK])
def collect_readings(build: Build, attempt: Attempt) -> Collected:
    """List the files that hold the readings of a build's rows, and write those that are missing."""
    marks, swept, parent = build.swept.marks, build.swept, build.parent
    kept: list[FileRecord] = []
    readings: list[_Read] = []
    states: list[_Read] = []
    if parent is not None:
        kept, readings, states = _of_parent(build, parent)
    for number in build.numbers:
        if swept.left(number).new:
            readings.append(partial(read_table, swept.folder(number), NEW))
        if marks.fresh[marks.rows_of(number)].any():
            states.append(partial(_fresh_states, build, number))
    version = build.plan.version
    new = [
        *_write_parts(attempt.folder, f"{version}-{{:05d}}.parquet", readings),
        *_write_parts(attempt.folder, f"{version}-{{:05d}}{STATES}", states),
    ]
    return Collected(rows=swept.rows, kept=kept, new=new)


def put_readings_in_place(build: Build) -> list[FileRecord]:
    """Copy the readings that a build wrote to the database.

    Returns the records of all files that its version names, those of its parent included.  Raises
    FileNotFoundError if the build has not collected them.
    """
    left = build.record(COLLECT)
    target = build.plan.job.database.folder
    build.output(COLLECT).copy([f.path for f in left.new], target)
    return sorted([*left.kept, *left.new], key=lambda f: f.path)


def _of_parent(build: Build, parent: Parent) -> tuple[list[FileRecord], list[_Read], list[_Read]]:
    """The parent's files that are kept, and the used rows of the others: readings and states."""
    hashes = np.unique(build.swept.hashes)
    keep = _in_use(parent.swept, hashes)
    # A file of states is kept if the readings beside it are.
    keep += [_states_of(path) for path in keep]
    wanted = pa.array(hashes.astype("U32"), pa.string())

    def left_of(parts: Parts) -> list[_Read]:
        return [partial(_used, parts.folder, p, wanted) for p in parts.paths if p not in keep]

    kept = [f for f in parent.manifest.swept if f.path in keep]
    return kept, left_of(parent.swept), left_of(parent.states)


def _in_use(parts: Parts, hashes: NDArray[np.bytes_]) -> list[str]:
    """The files of which most rows are used, small files left out.  hashes: ascending."""
    positions = parts.find(hashes)
    used = np.bincount(parts.part_of(positions[positions >= 0]), minlength=len(parts.paths))
    rows = np.diff(parts.starts)
    return [parts.paths[n] for n in np.flatnonzero(used > np.maximum(rows, PART_ROWS) // 2)]


def _used(folder: Folder, path: str, hashes: pa.Array, columns: Sequence[str] | None) -> pa.Table:
    table = read_table(folder, path, columns)
    return table.filter(pc.is_in(table["text_hash"], hashes))


def _states_of(path: str) -> str:
    return path.removesuffix(".parquet") + STATES


def _fresh_states(build: Build, number: int, columns: Sequence[str] | None) -> pa.Table:
    """The states that a shard's sweep read in this build."""
    states = read_table(build.swept.folder(number), SHARD_STATES, columns)
    marks = build.swept.marks
    rows = marks.rows_of(number)
    return states.filter(pa.array(marks.fresh[rows][marks.sampled[rows]]))


def _write_parts(folder: Folder, name: str, reads: Sequence[_Read]) -> list[FileRecord]:
    """Write the rows of some tables, one of each text, to files of PART_ROWS.

    name: a file's, with a replacement field for its number.
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
