"""Entries as Parquet: what stands in which column, and back into arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raee.exits import Entries, Exit, Neighbours
from raee.replay import Trial
from storage.parquet import list_column, list_values, part_name, read_table
from storage.scan import Reject
from storage.store import Folder

_KEPT = ("id", "text_hash", "text", "label")

_UNREAD = np.float32(np.nan)


def key_column(number: int) -> str:
    """The column of readings that holds a key."""
    return f"key-{number}"


@dataclass(frozen=True)
class Answers:
    """What some exits say of some rows."""

    answers: NDArray[np.uint16]
    """(rows, exits)."""
    confidences: NDArray[np.float32]
    """(rows, exits)."""


def answers_of(distributions: Sequence[NDArray[np.floating]]) -> Answers:
    """The answers of exits with distributions (rows, labels), and their probabilities."""
    return Answers(
        np.stack([d.argmax(axis=1) for d in distributions], axis=1).astype(np.uint16),
        np.stack([d.max(axis=1) for d in distributions], axis=1).astype(np.float32),
    )


def spread_over(found: Answers, sampled: NDArray[np.bool_]) -> Answers:
    """The answers of sampled rows among all rows; NaN is the confidence of an exit not read."""
    size = (len(sampled), found.answers.shape[1])
    answers, confidences = np.zeros(size, np.uint16), np.full(size, _UNREAD)
    answers[sampled], confidences[sampled] = found.answers, found.confidences
    return Answers(answers, confidences)


def entries_table(
    rows: pa.Table, answers: Sequence[Answers], nearest: NDArray[np.float32]
) -> pa.Table:
    """A shard's entries: its rows, and what all exits say of them.

    nearest: (rows,) squared L2 distance to the nearest neighbour.
    """
    return pa.table(
        {name: rows[name] for name in _KEPT if name in rows.column_names}
        | {
            "answers": list_column(np.column_stack([a.answers for a in answers])),
            "confidences": list_column(np.column_stack([a.confidences for a in answers])),
            "nearest_distance": pa.array(nearest, pa.float32()),
        }
    )


def lists_path(number: int) -> str:
    """The path in a version of a part's lists of neighbours."""
    return f"neighbours/{part_name(number)}"


def lists_table(found: Sequence[Neighbours]) -> pa.Table:
    """The neighbours of a shard's rows, by each key: columns rows-0, distances-0, rows-1 .."""
    columns = {}
    for place, neighbours in enumerate(found):
        columns[f"rows-{place}"] = list_column(neighbours.rows)
        columns[f"distances-{place}"] = list_column(neighbours.distances)
    return pa.table(columns)


def listed_trial(
    entries: Entries, folder: Folder, paths: Sequence[str], rows: NDArray[np.int64]
) -> Trial:
    """Some of a version's rows, each with its neighbours by the first key as they are listed."""
    tables = [read_table(folder, path, ["rows-0", "distances-0"]) for path in paths]
    neighbours = Neighbours(
        np.concatenate([list_values(t["rows-0"]) for t in tables]),
        np.concatenate([list_values(t["distances-0"]) for t in tables]),
        np.arange(len(entries)),
    )
    return Trial(entries, rows, neighbours[rows])


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Rows that cannot be used, and why."""
    return pa.table(
        {
            "id": pa.array([r.id for r in rejects], pa.string()),
            "source_file": pa.array([r.file for r in rejects], pa.string()),
            "row": pa.array([r.row for r in rejects], pa.int64()),
            "reason": pa.array([r.reason for r in rejects], pa.string()),
        }
    )


def read_entries(
    folder: Folder, paths: Sequence[str], exits: tuple[Exit, ...], labels: Sequence[str]
) -> Entries:
    """The parts of a version as one set of arrays; ids and texts stay on disk."""

    def column(name: str) -> Iterator[pa.ChunkedArray]:
        for path in paths:
            yield read_table(folder, path, [name])[name]

    return Entries(
        exits=exits,
        labels=tuple(labels),
        label=np.concatenate([c.to_numpy() for c in column("label")]),
        answers=np.concatenate([list_values(c) for c in column("answers")]),
        confidences=np.concatenate([list_values(c) for c in column("confidences")]),
    )


def columns_of(folder: Folder, path: str) -> list[str]:
    """The names of a table's columns."""
    with folder.open(path) as file:
        return list(pq.read_schema(file).names)


def read_nearest(folder: Folder, paths: Sequence[str]) -> NDArray[np.float32] | None:
    """(rows,) of each entry the squared L2 distance to its nearest neighbour.

    None in a version that was written without.
    """
    found = []
    for path in paths:
        if "nearest_distance" not in columns_of(folder, path):
            return None
        found.append(read_table(folder, path, ["nearest_distance"])["nearest_distance"].to_numpy())
    return np.concatenate(found)


def read_rows(
    folder: Folder, paths: Sequence[str], columns: Sequence[str], places: Sequence[int]
) -> pa.Table:
    """Some columns of some entries, by their places in the database, in the order asked."""
    found, before = [], 0
    for path in paths:
        table = read_table(folder, path, columns)
        within = [i for i in places if before <= i < before + len(table)]
        here = pa.array(within, pa.int64())  # of a type even where it is empty
        found.append(table.take(pc.subtract(here, before)).append_column("place", here))
        before += len(table)
    table = pa.concat_tables(found)
    order = pc.index_in(pa.array(places, pa.int64()), table["place"])
    return table.take(order).drop_columns("place")
