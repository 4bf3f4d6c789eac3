"""What a rebuild reuses of its parent: the readings of texts that were read before.

Used by `plan_build`, `sweep_shard`, `match_rows`, `collect_readings` and `write_part`.

    {database}/swept/{version}-00000.parquet         text_hash, answers, confidences, tokens,
                                                     token_ids, key-0 ..
                    /{version}-00000-states.parquet  text_hash, mean-00 .., head-00 ..: states and
                                                     heads of sampled rows

A version's manifest lists the files that hold its rows.  Versions share them, and a version is read
without them.  Readings are found by the text's hash alone, so a version with another prompt,
backbone, key or centre is not reused.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raee.errors import clauses
from raee.exits import parse_exits
from raee.model.precision import Precision
from raee.model.prompts import Prompt
from raee.readers.fitting import Fits
from storage.database import Version, verify
from storage.manifest import FIRST_BY_TEXT, PROBES, WORDS, Manifest
from storage.parquet import list_values, read_table
from storage.store import Folder
from storage.version_files import VersionFiles
from tasks.fitted import read_fits
from tasks.job import Job
from tasks.readings import files_of, prompt_of

logger = logging.getLogger("raee")

SWEPT = "swept"

STATES = "-states.parquet"
"""How the name of a file of states ends."""

Hashes = NDArray[np.bytes_]
"""(rows,) text hashes."""

_TABLES_HELD = 4
"""Tables of a parent held in memory: the next shard's rows begin where one shard's rows end."""


def reuses(
    job: Job,
    parent: Manifest | None,
    prompt: Prompt,
    backbone: dict[str, str],
    key: dict[str, str],
    precision: Precision | None,
) -> bool:
    """Whether a build can reuse its parent's readings; logs why not if that is a surprise.

    backbone, key: fingerprints of the build's models.  precision: their number format; None if
    it has yet to be found.  Raises InputError if a file of the parent cannot be read.
    """
    if parent is None or not parent.swept:
        return False
    if parent.format < FIRST_BY_TEXT:
        logger.warning(
            "nothing of version %s is reused: it is of format %d, which does not say which texts "
            "are equal; all rows are read anew, this once",
            parent.id,
            parent.format,
        )
        return False
    if "words" not in (parent.probes or {}):
        logger.warning(
            "nothing of version %s is reused: it does not keep the token ids that n-grams are made "
            "of; all rows are read anew, this once",
            parent.id,
        )
        return False
    built = Job.model_validate(parent.job)
    if (built.key, prompt_of(parent)) != (job.key, prompt):
        return False
    if not reads_alike(parent.backbone, backbone, precision):
        before = {part: value for part, value in parent.backbone.items() if part != "dtype"}
        if before == backbone and parent.precision is None and job.backbone.dtype == "auto":
            logger.warning(
                "nothing of version %s is reused: it was read in %s by a raee that did not look "
                "for the fastest number format; all rows are read anew, this once",
                parent.id,
                parent.backbone["dtype"],
            )
        return False
    if not reads_alike(parent.key, key, precision):
        return False
    why_not = None
    # What leaves is taken out of the probes' sums, for which its states are needed, or its text.
    probes = parent.probes or {}
    if not built.keep_text and parent.rows > probes["sampled_rows"]:
        why_not = "it keeps neither the texts nor the states of all its rows"
    faults = job.database.version(parent.id).manifest_faults()
    faults += verify(job.database.folder, parent.swept)
    if faults:
        why_not = clauses(faults)
    if why_not is not None:
        logger.warning("nothing of version %s is reused: %s", parent.id, why_not)
    return why_not is None


def reads_alike(before: dict[str, str], model: dict[str, str], precision: Precision | None) -> bool:
    """Whether a model reads as another did.

    before: the other's fingerprints and its number format.  model: fingerprints.
    """
    return precision is not None and before == model | {"dtype": precision.dtype}


class Parts:
    """Parquet files of readings, found by text hash."""

    def __init__(self, folder: Folder, paths: Sequence[str]) -> None:
        self.folder = folder
        self.paths = list(paths)
        found = [hashes_of(read_table(folder, path, ["text_hash"])) for path in paths]
        self.starts = np.cumsum([0, *(len(f) for f in found)])
        self.hashes = np.concatenate([np.zeros(0, "S32"), *found])
        self._order = np.argsort(self.hashes, kind="stable")

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """(rows,) positions of texts' readings in all files together; -1 if there are none."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        position = np.searchsorted(self.hashes, hashes, sorter=self._order)
        there = self._order[np.minimum(position, len(self._order) - 1)]
        return np.where(self.hashes[there] == hashes, there, -1)

    def part_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """(rows,) the number of the file in which each position is."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def take(self, positions: NDArray[np.int64], columns: Sequence[str]) -> dict[str, NDArray]:
        """By column, (rows, width) the values at some positions, one or more.

        Raises InputError if a file lacks a column.
        """
        return take(self.folder, self.paths, self.starts, positions, columns)


def take(
    folder: Folder,
    paths: Sequence[str],
    starts: NDArray[np.int64],
    positions: NDArray[np.int64],
    columns: Sequence[str],
) -> dict[str, NDArray]:
    """By column, (rows, width) the values at some positions, one or more, in consecutive tables.

    starts: (tables + 1,) the position at which each table begins, and the number of all rows.
    Raises InputError if a table lacks a column.
    """
    part = np.searchsorted(starts, positions, side="right") - 1
    result: dict[str, NDArray] = {}
    for number in np.unique(part):
        here = part == number
        found = _columns(folder.uri, paths[number], tuple(columns))
        for column, values in found.items():
            if column not in result:
                result[column] = np.zeros((len(positions), *values.shape[1:]), values.dtype)
            result[column][here] = values[positions[here] - starts[number]]
    assert result, "there is a position to read"
    return result


@dataclass(frozen=True)
class Parent:
    """The version whose readings are reused."""

    manifest: Manifest
    files: VersionFiles
    label: NDArray[np.uint16]
    """(rows,) indexes of the labels of its entries, in their order."""
    hashes: Hashes
    """(rows,) text hashes of its entries, in their order."""
    swept: Parts
    """The readings of its rows, and perhaps of rows that have left."""
    states: Parts
    """The states of its sampled rows, and perhaps of others."""
    starts: NDArray[np.int64]
    """(parts + 1,) the row at which each part begins, and the number of all rows."""

    @property
    def lists(self) -> list[str]:
        """Paths of its lists of neighbours, one a part of its entries; none in an old version."""
        return self.files.below("neighbours/")

    def lists_of(
        self, rows: NDArray[np.int64], key: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, length) the nearest others of some of its rows, and their distances."""
        columns = [f"rows-{key}", f"distances-{key}"]
        folder = self.files.folder_of(self.lists[0])
        found = take(folder, self.lists, self.starts, rows, columns)
        return found[columns[0]], found[columns[1]]

    @cached_property
    def fits(self) -> Fits:
        """Its fitted readers, near which the searches of a rebuild's fits begin."""
        assert self.manifest.probes is not None, "what is reused has been fitted"
        return read_fits(self.files, parse_exits(self.manifest.exits), self.manifest.probes)

    @cached_property
    def _live(self) -> NDArray[np.bool_]:
        """(positions in `swept`,) False if no entry has the text any more."""
        return np.isin(self.swept.hashes, self.hashes)

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """(rows,) positions in `swept` of the readings of texts; -1 if no entry has the text."""
        position = self.swept.find(hashes)
        # A file may hold rows that have left since: the version's sums are without them.
        return np.where((position >= 0) & self._live[position], position, -1)


@lru_cache(maxsize=1)
def load_parent(version: Version) -> Parent:
    """A version whose readings are reused.

    Raises InputError if there is no such version, or a file is not what its manifest says.
    """
    manifest = version.manifest()
    files, database = files_of(version, manifest), version.database.folder
    parts, swept = files.below("entries/"), sorted(f.path for f in manifest.swept)
    version.require_whole(manifest, [*parts, *files.below("neighbours/"), PROBES, WORDS])
    tables = [files.table(path, ["text_hash", "label"]) for path in parts]
    return Parent(
        manifest=manifest,
        files=files,
        label=np.concatenate([table["label"].to_numpy() for table in tables]),
        hashes=np.concatenate([hashes_of(table) for table in tables]),
        starts=np.cumsum([0, *map(len, tables)]),
        swept=Parts(database, [p for p in swept if not p.endswith(STATES)]),
        states=Parts(database, [p for p in swept if p.endswith(STATES)]),
    )


def hashes_of(table: pa.Table) -> Hashes:
    """(rows,) the text hashes of a table."""
    return table["text_hash"].to_numpy().astype("S32")


def same_rows(hashes: Hashes, parent: Hashes) -> NDArray[np.int64]:
    """(rows,) the parent's row that each row is; -1 if it is none.

    The n-th row of a text is the parent's n-th row of that text.
    """
    order, parent_order = (np.argsort(h, kind="stable") for h in (hashes, parent))
    own, theirs = hashes[order], parent[parent_order]
    which = np.arange(len(own)) - np.searchsorted(own, own)
    position = np.searchsorted(theirs, own) + which
    within = np.minimum(position, len(theirs) - 1)
    matched = (position < len(theirs)) & (theirs[within] == own)
    result = np.full(len(hashes), -1)
    result[order[matched]] = parent_order[within[matched]]
    return result


@lru_cache(maxsize=_TABLES_HELD)
def _columns(folder: str, path: str, columns: tuple[str, ...]) -> dict[str, NDArray]:
    table = read_table(Folder(folder), path, columns)
    return {column: list_values(table[column]) for column in columns}
