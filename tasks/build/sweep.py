"""The sweep of a build: every shard's rows are read.

    work/{build key}/{version}/shard-00000..  a shard's rows, readings, states and sums

`tasks.build.shards` says what a shard holds.
"""

import logging
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from raee.model.batches import Encoded, encode
from raee.sweep import Sweep, joined
from storage.checked_rows import by_reason
from storage.parquet import list_column, part_name, table_of, write_table
from storage.scan import check_all_there, check_rejected, sample_numbers, text_hash
from storage.store import Folder
from tasks.build.build import CHECK, READ_CENTRE, Build, open_build
from tasks.build.centre import swept_with_centre
from tasks.build.reuse import Hashes, Parent
from tasks.build.shards import (
    NEW,
    ROWS,
    STATES,
    SWEEP,
    TAKEN,
    Swept,
    head_column,
    state_column,
    sums_name,
)
from tasks.entries import TOKEN_IDS, TOKENS, key_column
from tasks.fitted import write_arrays
from tasks.progress import advance
from tasks.rows import label_numbers, rows_of_shard
from tasks.shard_steps import Walked, shard_step
from tasks.steps import Attempt, StepRecord, step

logger = logging.getLogger("raee")


@dataclass(frozen=True)
class _Shard:
    """A shard's rows, and what the parent knows of them."""

    rows: pl.DataFrame
    """id, text, label."""
    rejects: pl.DataFrame
    """Columns id, source_file, row, reason."""
    shown: int
    """Rows that are left out, since the prompt shows their texts."""
    hashes: Hashes
    label: NDArray[np.uint16]
    sampled: NDArray[np.bool_]
    worded: NDArray[np.bool_]
    parent: Parent | None
    readings: NDArray[np.int64]
    """(rows,) positions of their readings in the parent's; -1 if it has not read the row."""
    states: NDArray[np.int64]
    """(rows,) positions of their states in the parent's; -1 if it has none of the row."""
    of_centre: NDArray[np.int64]
    """(rows,) positions in what was read of the centre's rows; -1 if the row is none of them."""
    unread: NDArray[np.bool_]
    """(rows,) True if neither the parent nor the centre has read the row."""
    encoded: Encoded
    """The unread rows."""

    @property
    def new(self) -> NDArray[np.bool_]:
        """(rows,) True if the parent has not read the row."""
        return self.readings < 0

    @property
    def reread(self) -> NDArray[np.bool_]:
        """(rows,) True if the parent has read the row, which has come into the sample since."""
        return ~self.new & self.sampled & (self.states < 0)

    def texts(self, which: NDArray[np.bool_]) -> list[str]:
        """The texts of some rows."""
        return self.rows["text"].filter(pl.Series(which)).to_list()


def _look_up(build: Build, number: int) -> _Shard:
    """A shard's rows, with what the parent knows of them, tokenized if nothing has read them.

    Raises InputError as `rows_of_shard` does.
    """
    plan, parent = build.plan, build.parent
    labels = plan.prompt.labels
    found = rows_of_shard(plan.job.corpus, plan.shards[number], build.backbone, labels)
    left = found.without_shown(plan.prompt)
    rows = left.usable
    label = label_numbers(rows["label"], labels)
    numbers = sample_numbers(rows["text"])

    def drawn(sample: dict[str, int] | None) -> NDArray[np.bool_]:
        if sample is None:
            return np.ones(len(rows), dtype=bool)
        limits = np.array([sample.get(name, 0) for name in labels], np.uint32)
        return numbers <= limits[label]

    hashes = np.array([text_hash(text) for text in rows["text"]], dtype="S32")
    nowhere, centre = np.full(len(rows), -1), build.centre_rows
    readings = nowhere if parent is None else parent.find(hashes)
    of_centre = nowhere if centre is None else centre.find(hashes)
    unread = (readings < 0) & (of_centre < 0)
    texts = rows["text"].filter(pl.Series(unread)).to_list()
    return _Shard(
        rows=rows,
        rejects=left.rejects,
        shown=len(found) - len(left),
        hashes=hashes,
        label=label,
        sampled=drawn(plan.sample),
        worded=drawn(plan.words_sample),
        parent=parent,
        readings=readings,
        states=nowhere if parent is None else parent.states.find(hashes),
        of_centre=of_centre,
        unread=unread,
        encoded=encode(build.backbone, plan.prompt, texts),
    )


def _read(build: Build, shard: _Shard) -> tuple[_Shard, Sweep, Sweep]:
    """A shard, and the sweeps of its new rows and of those that lack only their states."""
    label, sampled, new = shard.label, shard.sampled, shard.new
    advance(shard.shown + int((~shard.unread & ~shard.reread).sum()))
    swept, again = (
        build.sweep(shard.texts(which), label[which], sampled[which], build.head, encoded)
        for which, encoded in ((shard.unread, shard.encoded), (shard.reread, None))
    )
    of_centre = new & ~shard.unread
    if of_centre.any():
        positions = shard.of_centre[of_centre]
        read = swept_with_centre(build, positions, label[of_centre], sampled[of_centre])
        swept = joined(read, swept, of_centre[new], sampled[new])
    return shard, swept, again


@shard_step(SWEEP, opens=open_build, stage="sweep", after=[READ_CENTRE], begin=_look_up, walk=_read)
def sweep_shard(
    build: Build, attempt: Attempt, number: int, walked: Walked[tuple[_Shard, Sweep, Sweep]]
) -> Swept:
    """Write a shard: what the parent knows of its rows, and what was read of the others.

    Its stages raise InputError as `rows_of_shard` and the sweep do.
    """
    shard, swept, again = walked.found
    _write(attempt.folder, shard, build, swept, again)
    files = []
    if len(shard.rejects):
        name = f"rejects/{part_name(number)}"
        files.append(write_table(attempt.version, name, table_of(shard.rejects)))
    return Swept(
        rows=len(shard.rows),
        files=files,
        new=int(shard.new.sum()),
        rejected=by_reason(shard.rejects),
        shown=shard.shown,
    )


@step(CHECK, opens=open_build, stage="sweep", after=[SWEEP])
def check_swept(build: Build, attempt: Attempt) -> StepRecord:
    """Check that all rows of the corpus were read or rejected, and not too many rejected.

    Raises InputError if they were not.
    """
    corpus, swept, expected = build.plan.job.corpus, build.swept, build.plan.corpus["rows"]
    check_all_there(corpus.uri, swept.rows + swept.shown, swept.rejected, expected)
    check_rejected(corpus.uri, swept.rejected, expected, build.plan.job.max_reject_fraction)
    logger.info("%d rows are new, %d known", swept.new, swept.rows - swept.new)
    if swept.shown:
        logger.info("%d rows are left out: the prompt shows their texts as examples", swept.shown)
    return StepRecord(rows=swept.rows)


def _write(folder: Folder, shard: _Shard, build: Build, swept: Sweep, again: Sweep) -> None:
    """Write a shard's files."""
    kept = table_of(shard.rows.select("id", "text"))
    rows = {
        "id": kept["id"],
        "text_hash": _hash_column(shard.hashes),
        "text": kept["text"],
        "label": pa.array(shard.label, pa.uint16()),
        "sampled": pa.array(shard.sampled),
        "worded": pa.array(shard.worded),
        "new": pa.array(shard.new),
        "fresh": pa.array(shard.sampled & (shard.new | shard.reread)),
    }
    if not build.plan.job.keep_text:
        del rows["text"]
    write_table(folder, ROWS, pa.table(rows))
    readings: dict[str, NDArray] = {
        "answers": swept.answers,
        "confidences": swept.confidences,
        TOKENS: swept.hashes,
        TOKEN_IDS: swept.token_ids,
    }
    readings |= {key_column(i): keys for i, keys in enumerate(swept.keys)}
    _write_readings(folder, NEW, shard.hashes[shard.new], readings)
    taken = ~shard.new
    if taken.any():
        assert shard.parent is not None, "only a parent's readings are reused"
        readings = shard.parent.swept.take(shard.readings[taken], list(readings))
    else:
        readings = {column: values[:0] for column, values in readings.items()}
    _write_readings(folder, TAKEN, shard.hashes[taken], readings)
    # A shard whose readings are all reused adds nothing to its parent's sums.
    for state, sums in swept.sums.items() if shard.new.any() else ():
        write_arrays(folder, sums_name(state), sums.tensors())
    _write_states(folder, shard, swept, again)


def _write_states(folder: Folder, shard: _Shard, swept: Sweep, again: Sweep) -> None:
    sampled = shard.sampled
    new, reread = shard.new[sampled], shard.reread[sampled]
    taken = ~new & ~reread
    columns: dict[str, NDArray] = {}

    def add(column: str, of_new: NDArray[np.float32], of_reread: NDArray[np.float32]) -> None:
        columns[column] = np.zeros((len(new), of_new.shape[1]), np.float32)
        columns[column][new], columns[column][reread] = of_new, of_reread

    for state, by_depth in swept.states.items():
        for depth, vectors in enumerate(by_depth):
            add(state_column(state, depth), vectors, again.states[state][depth])
    for depth, distributions in enumerate(swept.heads):
        add(head_column(depth), distributions, again.heads[depth])
    if taken.any():
        assert shard.parent is not None, "only a parent's readings are reused"
        found = shard.parent.states.take(shard.states[sampled][taken], list(columns))
        for column, values in found.items():
            columns[column][taken] = values
    _write_readings(folder, STATES, shard.hashes[sampled], columns)


def _write_readings(
    folder: Folder, name: str, hashes: Hashes, readings: dict[str, NDArray]
) -> None:
    columns: dict[str, pa.Array] = {"text_hash": _hash_column(hashes)}
    columns |= {column: list_column(values) for column, values in readings.items()}
    write_table(folder, name, pa.table(columns))


def _hash_column(hashes: Hashes) -> pa.Array:
    return pa.array(hashes.astype("U32"), pa.string())
