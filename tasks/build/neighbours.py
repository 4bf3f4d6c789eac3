"""The steps of a build that let its rows vote: the indexes, each row's neighbours, the entries.

    indexed/{token}/version/keys/{key}.faiss
    lists-00000/{token}/version/neighbours/part-00000.parquet  rows-0, distances-0 ..: by each key
                                                               every row's nearest others
    part-00000/{token}/version/entries/part-00000.parquet

The lists are longer than any reader needs, because some of their rows may leave in a rebuild: then
the rows that come nearer are searched for among the new rows alone.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from raee.answers import Answers, Neighbours
from raee.build import answers_of_all
from raee.config import PAPER_NEIGHBOURS
from raee.neighbours.choice import IndexRecord
from raee.neighbours.index import Index, new_index
from raee.neighbours.lists import nearest_other_texts, reach, updated
from raee.neighbours.training import built_index
from raee.policies.tuning import neighbours_needed
from raee.sweep import Labelled
from raee.texts import Texts
from storage.parquet import write_table
from tasks.build.build import CHECK, FIT, INDEX, LISTS, MATCH, VOTE, Build, Indexed, open_build
from tasks.entries import (
    entries_table,
    key_column,
    lists_path,
    lists_table,
    write_entries,
)
from tasks.models import index_spec_of
from tasks.progress import advance
from tasks.steps import Attempt, StepRecord, step


@step(INDEX, opens=open_build, stage="index", after=[CHECK])
def build_index(build: Build, attempt: Attempt) -> Indexed:
    """Put the keys of all shards, in order, into the version's indexes.

    Raises InputError if an index that the job names cannot hold such keys.
    """
    files, records = [], {}
    for position, path in enumerate(build.plan.index_paths):
        index, records[path] = _indexed(build, position)
        with attempt.version.create(path) as file:
            index.write(file.write)
        files.append(file.record(rows=len(index)))
    return Indexed(rows=build.swept.rows, files=files, indexes=records)


def _indexed(build: Build, position: int) -> tuple[Index, IndexRecord]:
    """The index of a key, and its record: how much of the nearest rows it finds."""
    width, rows = _keys_of(build, position, np.zeros(1, np.int64)).shape[1], build.swept.rows
    shards = (build.swept.values(n, [key_column(position)])[0] for n in build.numbers)
    return built_index(
        index_spec_of(build.plan.job, rows, width),
        rows,
        width,
        partial(_keys_of, build, position),
        shards,
    )


def _keys_of(build: Build, position: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(rows, width) a key of some rows, in ascending order."""
    begins = build.swept.marks.starts
    found: list[NDArray[np.float32]] = []
    for number in build.numbers:
        here = rows[(rows >= begins[number]) & (rows < begins[number + 1])]
        if len(here) or not found:  # an empty selection has the keys' width, too
            (keys,) = build.swept.values(number, [key_column(position)])
            found.append(keys[here - begins[number]])
    return np.concatenate(found)


@step(LISTS, opens=open_build, stage="neighbours", after=[INDEX, MATCH], per_shard=True)
def list_neighbours(build: Build, attempt: Attempt, number: int) -> StepRecord:
    """List the neighbours of a shard's rows by each key."""
    found = [_lists(build, number, position) for position in range(len(build.plan.index_paths))]
    rows = len(found[0].rows)
    advance(rows)
    written = write_table(attempt.version, lists_path(number), lists_table(found))
    return StepRecord(rows=rows, files=[written])


@step(VOTE, opens=open_build, stage="vote", after=[LISTS, FIT], per_shard=True)
def write_part(build: Build, attempt: Attempt, number: int) -> StepRecord:
    """Let the neighbours of a shard's rows vote, without the text, and write its entries."""
    plan, rows, marks = build.plan, build.swept.table(number), build.swept.marks
    found = build.listed(number)
    at_key = dict(zip(plan.job.key.depths, found, strict=True))
    heads = Answers(*build.swept.values(number, ["answers", "confidences"]))
    labelled = Labelled(marks.label, len(plan.prompt.labels), marks.sampled)
    sampled, fitted = rows["sampled"].to_numpy(), _fitted(build, number)
    answers = answers_of_all(plan.exits, heads, at_key, labelled, sampled, fitted)
    hashes = marks.hashes[marks.rows_of(number)]
    table = entries_table(rows, hashes, answers, found[0].distances[:, 0])
    advance(len(rows))
    return StepRecord(rows=len(rows), files=[write_entries(attempt.version, number, table)])


def _lists(build: Build, number: int, position: int) -> Neighbours:
    """The nearest rows of other texts, by a key: as many as readers need, and spare ones."""
    index, policy = build.indexes[position], build.plan.job.policy
    need = PAPER_NEIGHBOURS if position else neighbours_needed(policy)
    length = need + need // 2
    (keys,) = build.swept.values(number, [key_column(position)])
    marks = build.swept.marks
    rows, texts = marks.rows_of(number), marks.texts
    own, hashes = np.arange(rows.start, rows.stop), marks.hashes[rows]
    before = _lists_before(build, own, keys, position, length) if len(own) else None
    if before is None:
        return nearest_other_texts(index, keys, length, hashes, texts)
    there = np.minimum(need, len(index) - texts.counts(hashes))
    short = (before.rows >= 0).sum(axis=1) < there
    if short.any():
        again = nearest_other_texts(index, keys[short], length, hashes[short], texts)
        before.rows[short], before.distances[short] = again.rows, again.distances
    return before


@dataclass(frozen=True)
class _Changes:
    """What has become of a parent's rows."""

    source: NDArray[np.int64]
    """(rows,) the parent's row that each row is; -1 for a row that came."""
    now: NDArray[np.int64]
    """(parent's rows,) the row that each of them is now; -1 for a row that left."""
    came: NDArray[np.int64]
    """(rows that came,) positions, ascending."""
    indexes: tuple[Index, ...]
    """Indexes of the rows that came, one a key; none if none came."""
    texts: Texts
    """The texts of the rows that came."""


@lru_cache(maxsize=1)
def _changes(build: Build) -> _Changes | None:
    """What has become of the parent's rows; None if its lists say nothing about the build's."""
    parent = build.parent
    if parent is None or not parent.lists or not all(index.exact for index in build.indexes):
        return None
    source = build.source
    now = np.full(len(parent.hashes), -1)
    now[source[source >= 0]] = np.flatnonzero(source >= 0)
    came = np.flatnonzero(source < 0)
    small = []
    for index in build.indexes if len(came) else ():
        found = new_index(index.width)
        found.add(index.keys_of(came))
        small.append(found)
    return _Changes(source, now, came, tuple(small), Texts(build.swept.marks.hashes[came]))


def _lists_before(
    build: Build, own: NDArray[np.int64], keys: NDArray[np.float32], position: int, length: int
) -> Neighbours | None:
    """The parent's lists of some rows, without rows that left and with those that came."""
    changes, parent = _changes(build), build.parent
    if changes is None or parent is None:
        return None
    source = changes.source[own]
    rows, distances = parent.lists_of(np.maximum(source, 0), position)
    rows[source < 0] = -1
    # Lists that hold a small parent whole leave nothing out, but their farthest row would limit
    # what rows that came may join them: they are made anew.
    rows = rows if len(parent.hashes) > rows.shape[1] else np.full_like(rows, -1)
    before = Neighbours(rows, distances)
    if not len(changes.came):
        return updated(before, changes.now, before.first(0), length)
    came = nearest_other_texts(
        changes.indexes[position],
        keys,
        length,
        build.swept.marks.hashes[own],
        changes.texts,
        reach(before),
    )
    there = came.rows >= 0
    came.rows[there] = changes.came[came.rows[there]]
    return updated(before, changes.now, came, length)


def _fitted(build: Build, number: int) -> Answers:
    """(sampled rows, fitted exits) the answers of the fitted exits for a shard's sampled rows."""
    begin, end = build.swept.marks.samples[number : number + 2]
    found = build.fitted_answers
    return Answers(found.answers[begin:end], found.confidences[begin:end])
