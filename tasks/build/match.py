"""The step of a rebuild that matches its rows with its parent's, and mends the probes' sums.

    matched/{token}/source.parquet      by row, the parent's row that it is, -1 if it is none
                   /sums-mean.safetensors   the parent's sums without the rows that have left or
                                            changed their label, and with those it has not counted

The parent knows the texts of the rows that are subtracted or added here: their states are the
parent's, or are read again.  New rows are in the sums of their shards.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raee.readers.fit import StateName
from raee.readers.states import probe_states
from raee.readers.sums import Sums, sums_of
from storage.parquet import write_table
from tasks.build.build import CHECK, MATCH, SOURCE, Build, Matched, open_build
from tasks.build.reuse import Parent, same_rows
from tasks.build.shards import state_column, sums_name
from tasks.entries import read_rows
from tasks.fitted import read_sums, write_arrays
from tasks.steps import Attempt, step

_ROWS_AT_ONCE = 2_000
"""Rows whose states are held at once, at all depths."""


@dataclass(frozen=True)
class _Rows:
    """Rows that are subtracted or added."""

    hashes: NDArray[np.bytes_]
    label: NDArray[np.uint16]

    def sums(self, texts: NDArray[np.bytes_], states: NDArray[np.float32], labels: int) -> Sums:
        """The sums of the rows with some texts.

        texts: (texts,) hashes, ascending; states: (depths, texts, width) theirs.
        """
        rows = np.flatnonzero(np.isin(self.hashes, texts))
        positions = np.searchsorted(texts, self.hashes[rows])
        return sums_of(states[:, positions], self.label[rows], labels)


@step(MATCH, opens=open_build, stage="match", after=[CHECK])
def match_rows(build: Build, attempt: Attempt) -> Matched | None:
    """Match a rebuild's rows with its parent's, and mend the sums; nothing in other builds."""
    parent, swept = build.parent, build.swept
    if parent is None:
        return None
    hashes, label, new = swept.hashes, swept.marks.label, swept.marks.new
    source = same_rows(hashes, parent.hashes)
    write_table(attempt.folder, SOURCE, pa.table({"row": pa.array(source, pa.int64())}))
    matched = source >= 0
    relabelled = np.zeros(len(label), bool)
    relabelled[matched] = parent.label[source[matched]] != label[matched]
    goes = np.ones(len(parent.hashes), bool)
    goes[source[matched & ~relabelled]] = False
    comes = ~new & (~matched | relabelled)
    for state in probe_states(build.backbone):
        sums = read_sums(parent.files, state)
        left = _Rows(parent.hashes[goes], parent.label[goes])
        came = _Rows(hashes[comes], label[comes])
        # A row that has changed its label goes and comes: its text is read once.
        texts = np.unique(np.concatenate([left.hashes, came.hashes]))
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            some = texts[start : start + _ROWS_AT_ONCE]
            states = _states(build, parent, state, some)
            sums = sums - left.sums(some, states, len(sums.rows))
            sums = sums + came.sums(some, states, len(sums.rows))
        write_arrays(attempt.folder, sums_name(state), sums.tensors())
    return Matched(rows=len(source), left=int(goes.sum()), came=int(comes.sum()))


def _states(
    build: Build, parent: Parent, state: StateName, hashes: NDArray[np.bytes_]
) -> NDArray[np.float32]:
    """(depths, rows, width) the states of texts that the parent has."""
    positions = parent.states.find(hashes)
    missing = positions < 0
    # If the parent has no state of a row, the first state is read instead, and replaced below.
    columns = [state_column(state, depth) for depth in range(build.plan.depth + 1)]
    read = parent.states.take(np.maximum(positions, 0), columns)
    found = np.stack([read[column] for column in columns])
    if missing.any():
        order = np.argsort(parent.hashes, kind="stable")
        rows = order[np.searchsorted(parent.hashes, hashes[missing], sorter=order)]
        texts = read_rows(parent.files, ["text"], rows.tolist())["text"].to_pylist()
        nothing = np.zeros(len(texts), np.uint16)
        again = build.sweep(texts, nothing, np.ones(len(texts), bool), None)
        found[:, missing] = again.states[state]
    return found
