"""The steps of a build that let its rows vote: the indexes, each row's neighbours, the entries.

    indexed/{token}/version/keys/{key}.faiss
    part-00000/{token}/version/entries/part-00000.parquet
                              /neighbours/part-00000.parquet  rows-0, distances-0 ..: by each key
                                                              every row's nearest others

The lists are longer than anybody asks: in a rebuild some of their rows have left, and what comes
nearer has only to be found among the rows that are new.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from prefect import task

from raee.config import PAPER_NEIGHBOURS
from raee.exits import Answers, Neighbours, answers_of, in_order
from raee.neighbours.choice import IndexRecord
from raee.neighbours.index import Index, new_index, open_index
from raee.neighbours.lists import nearest_other_texts, reach, updated
from raee.neighbours.training import built_index
from raee.policies.table import neighbours_planned_on
from raee.policies.tuning import NEIGHBOURS
from raee.texts import Texts
from storage.cache import local_files
from storage.checked import FileRecord
from storage.parquet import part_name, write_table
from storage.store import Folder
from tasks.build.fit import fitted_answers
from tasks.build.match import source_of
from tasks.build.plan import BuildPlan, plan_of
from tasks.build.shards import marks_of, rows_swept, shard_table, shard_values
from tasks.build.sweep import parent_of
from tasks.entries import (
    entries_table,
    key_column,
    lists_path,
    lists_table,
    spread_over,
    write_entries,
)
from tasks.markers import (
    VERSION,
    Attempt,
    account_of,
    done,
    marker,
    numbered,
    output,
    written,
)
from tasks.models import index_spec_of
from tasks.progress import advance
from tasks.retrying import RETRIES

INDEXED = "indexed"


@task(**RETRIES)
def build_index(work: str) -> None:
    """Put the keys of all shards, in order, into the version's indexes."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, INDEXED) is not None:
        return
    attempt = Attempt(folder, INDEXED)
    records, accounts = [], {}
    for place, path in enumerate(plan.index_paths):
        index, account = _indexed(work, place)
        with attempt.version.create(path) as file:
            index.write(file.write)
        records.append(file.record(rows=len(index)))
        accounts[path] = account.model_dump()
    done(attempt, records, rows_swept(work), indexes=accounts)


def _indexed(work: str, place: int) -> tuple[Index, IndexRecord]:
    """The index of a key, and how much of the nearest rows it finds."""
    plan = plan_of(work)
    width, rows = _keys_of(work, place, np.zeros(1, np.int64)).shape[1], rows_swept(work)
    shards = (shard_values(work, n, [key_column(place)])[0] for n in plan.numbers)
    return built_index(
        index_spec_of(plan.job, rows, width),
        rows,
        width,
        partial(_keys_of, work, place),
        shards,
    )


def _keys_of(work: str, place: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(rows, width) a key of some rows, in ascending order."""
    begins = marks_of(work).starts
    found: list[NDArray[np.float32]] = []
    for number in plan_of(work).numbers:
        here = rows[(rows >= begins[number]) & (rows < begins[number + 1])]
        if len(here) or not found:  # an empty selection has the keys' width, too
            (keys,) = shard_values(work, number, [key_column(place)])
            found.append(keys[here - begins[number]])
    return np.concatenate(found)


@task(**RETRIES)
def write_part(work: str, number: int) -> int:
    """Let the neighbours of a shard's rows vote, without the text, and write its entries."""
    folder, plan = Folder(work), plan_of(work)
    step = numbered("part", number)
    if (before := marker(folder, step)) is not None:
        return int(before["rows"])
    attempt = Attempt(folder, step)
    rows, marks = shard_table(work, number), marks_of(work)
    found = [_lists(work, number, place) for place in range(len(plan.index_paths))]
    labels, hashes = marks.label, marks.hashes[marks.rows_of(number)]
    voting = [e for e in plan.exits if e.of.source == "neighbours"]
    at_key = dict(zip(plan.job.key.depths, found, strict=True))
    votes = [
        e.of.among(at_key[e.depth].first(PAPER_NEIGHBOURS), labels, len(plan.prompt.labels))
        for e in voting
    ]
    sampled = rows["sampled"].to_numpy()
    heads = Answers(*shard_values(work, number, ["answers", "confidences"]))
    fitted = spread_over(_fitted(work, number), sampled)
    answers = in_order(plan.exits, {"sweep": heads, "neighbours": answers_of(votes), "fit": fitted})
    table = entries_table(rows, hashes, answers, found[0].distances[:, 0])
    records = [
        write_entries(attempt.version, number, table),
        write_table(attempt.version, lists_path(number), lists_table(found)),
    ]
    done(attempt, records, len(rows))
    advance(len(rows))
    return len(rows)


def entries_so_far(work: str) -> tuple[Folder, list[str], list[str]]:
    """Where a build's entries and lists lie before it is published, and their paths there."""
    folder = Folder(work)
    entries, lists = [], []
    for number in plan_of(work).numbers:
        step = numbered("part", number)
        version = f"{written(step, account_of(work, step))}/{VERSION}"
        entries.append(f"{version}/entries/{part_name(number)}")
        lists.append(f"{version}/{lists_path(number)}")
    return folder, entries, lists


@lru_cache(maxsize=1)
def indexes_of(work: str) -> tuple[Index, ...]:
    """The indexes of a build, one a key."""
    folder = Folder(work)
    records = [FileRecord(**record) for record in account_of(work, INDEXED)["files"]]
    with local_files(output(folder, INDEXED) / VERSION, records) as paths:
        return tuple(open_index(path) for path in paths)


def _lists(work: str, number: int, place: int) -> Neighbours:
    """The nearest rows of other texts, by a key: as many as anybody asks, and spare ones."""
    plan, index = plan_of(work), indexes_of(work)[place]
    need = _needed(plan, place)
    length = need + need // 2
    (keys,) = shard_values(work, number, [key_column(place)])
    marks = marks_of(work)
    rows, texts = marks.rows_of(number), marks.texts
    own, hashes = np.arange(rows.start, rows.stop), marks.hashes[rows]
    before = _lists_before(work, own, keys, place, length) if len(own) else None
    if before is None:
        return nearest_other_texts(index, keys, length, hashes, texts)
    there = np.minimum(need, len(index) - texts.counts(hashes))
    short = (before.rows >= 0).sum(axis=1) < there
    if short.any():
        again = nearest_other_texts(index, keys[short], length, hashes[short], texts)
        before.rows[short], before.distances[short] = again.rows, again.distances
    return before


def _needed(plan: BuildPlan, place: int) -> int:
    """Neighbours by a key that votes, policies and their search ask for."""
    if place:
        return PAPER_NEIGHBOURS
    policy = plan.job.policy
    return max(NEIGHBOURS, 0 if policy.name == "tuned" else neighbours_planned_on(policy))


@dataclass(frozen=True)
class _Changes:
    """What has become of a parent's rows."""

    source: NDArray[np.int64]
    """(rows,) the parent's row that each row is; -1 for one that came."""
    now: NDArray[np.int64]
    """(parent's rows,) the row that each of them is now; -1 for one that left."""
    came: NDArray[np.int64]
    indexes: tuple[Index, ...]
    """Of the rows that came, one a key; none where none came."""
    texts: Texts
    """Of the rows that came."""


@lru_cache(maxsize=1)
def _changes(work: str) -> _Changes | None:
    plan = plan_of(work)
    parent = parent_of(plan)
    if parent is None or not parent.lists or not all(i.exact for i in indexes_of(work)):
        return None
    source = source_of(work)
    now = np.full(len(parent.hashes), -1)
    now[source[source >= 0]] = np.flatnonzero(source >= 0)
    came = np.flatnonzero(source < 0)
    small = []
    for index in indexes_of(work) if len(came) else ():
        found = new_index(index.width)
        found.add(index.keys_of(came))
        small.append(found)
    return _Changes(source, now, came, tuple(small), Texts(marks_of(work).hashes[came]))


def _lists_before(
    work: str, own: NDArray[np.int64], keys: NDArray[np.float32], place: int, length: int
) -> Neighbours | None:
    """The parent's lists of some rows, without rows that left and with those that came."""
    changes, parent = _changes(work), parent_of(plan_of(work))
    if changes is None or parent is None:
        return None
    source = changes.source[own]
    rows, distances = parent.lists_of(np.maximum(source, 0), place)
    rows[source < 0] = -1
    # In a parent no larger than its lists, nobody can tell what they leave out: nothing.
    rows = rows if len(parent.hashes) > rows.shape[1] else np.full_like(rows, -1)
    before = Neighbours(rows, distances)
    if not len(changes.came):
        return updated(before, changes.now, before.first(0), length)
    marks = marks_of(work)
    came = nearest_other_texts(
        changes.indexes[place], keys, length, marks.hashes[own], changes.texts, reach(before)
    )
    there = came.rows >= 0
    came.rows[there] = changes.came[came.rows[there]]
    return updated(before, changes.now, came, length)


def _fitted(work: str, number: int) -> Answers:
    """The fitted exits of a shard's sampled rows."""
    begin, end = marks_of(work).samples[number : number + 2]
    found = fitted_answers(work)
    return Answers(found.answers[begin:end], found.confidences[begin:end])
