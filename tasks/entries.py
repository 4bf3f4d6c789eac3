"""Entries as Parquet: what stands in which column, and back into arrays."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raee.exits import Entries, Exit
from raee.sweep import Sweep
from storage.parquet import list_column, list_values, read_table
from storage.scan import Reject, Row, text_hash
from storage.store import Folder


def swept_table(
    rows: Sequence[Row], labels: Sequence[str], swept: Sweep, keep_text: bool
) -> pa.Table:
    """A shard's rows with their head exits and keys, on the way to entries."""
    columns = {
        "id": pa.array([r.id for r in rows], pa.string()),
        "text_hash": pa.array([text_hash(r.text) for r in rows], pa.string()),
        "text": pa.array([r.text for r in rows], pa.string()),
        "label": pa.array([labels.index(str(r.label)) for r in rows], pa.uint16()),
        "answers": list_column(swept.answers),
        "confidences": list_column(swept.confidences),
        "key": list_column(swept.keys),
    }
    if not keep_text:
        del columns["text"]
    return pa.table(columns)


def with_vote(
    swept: pa.Table, answers: NDArray[np.uint16], confidences: NDArray[np.float32]
) -> pa.Table:
    """A shard's entries: its head exits, and the vote's answers (rows,) after them."""
    return pa.table(
        {
            name: swept[name]
            for name in ("id", "text_hash", "text", "label")
            if name in swept.column_names
        }
        | {
            "answers": list_column(np.column_stack([list_values(swept["answers"]), answers])),
            "confidences": list_column(
                np.column_stack([list_values(swept["confidences"]), confidences])
            ),
        }
    )


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
