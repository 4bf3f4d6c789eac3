"""The first step of a build: a sentence encoder's centre is read, and its rows with it.

    centre-part-00000../{token}/rows.parquet   text_hash, tokens, token_ids, key-0 .., mean-00 ..:
                                               of as many rows as a shard has
    centre/{token}/rows.parquet                the same of all of them
                  /centre.safetensors          `mean`, (depths, hidden)

No row is read twice: the sweep of a shard takes what was read here of its texts.  Their heads are
read from their states, since a head needs the centre.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
from numpy.typing import NDArray

from raee.readers.fit import StateName
from raee.readers.head import SentenceHead, pooled_state
from raee.readers.states import probe_states
from raee.readers.sums import sums_of
from raee.sweep import Sweep, with_head
from storage.manifest import CENTRE
from storage.parquet import list_column, list_values, read_table, write_table
from storage.scan import text_hash
from tasks.build.build import CENTRE_PART, CENTRE_ROWS, READ_CENTRE, Build, open_build
from tasks.build.plan import CENTRE_TEXTS
from tasks.build.shards import state_column
from tasks.entries import TOKEN_IDS, TOKENS, key_column
from tasks.progress import advance, stage
from tasks.steps import Attempt, StepRecord, step


@step(READ_CENTRE, opens=open_build, stage="centre")
def read_database_centre(build: Build, attempt: Attempt) -> StepRecord | None:
    """Read the rows that the plan chose, and their centre, if none is inherited.

    They are read in parts, of which a try that died leaves those that it has done.
    """
    if not build.plan.has_centre or build.folder.exists(CENTRE):
        return None
    texts = json.loads(build.folder.read(CENTRE_TEXTS))
    size = sum(span.rows for span in build.plan.shards[0])
    columns = _columns(build, pooled_state(build.backbone))
    parts, total = list[pa.Table](), np.zeros((len(columns), build.backbone.pooled_size))
    with stage("read centre", len(texts)):
        for number, start in enumerate(range(0, len(texts), size)):
            part = _read_part(build, number, texts[start : start + size])
            parts.append(part)
            total += [list_values(part[column]).sum(axis=0, dtype=np.float64) for column in columns]
    mean = torch.from_numpy(total / len(texts)).float()
    with attempt.folder.create(CENTRE) as file:
        file.write(safetensors.torch.save({"mean": mean}))
    # One file, which a process that sweeps reads once.
    write_table(attempt.folder, CENTRE_ROWS, pa.concat_tables(parts))
    return StepRecord(rows=0)


def _read_part(build: Build, number: int, texts: Sequence[str]) -> pa.Table:
    """What is read of some texts, but for their heads; a try that died may have read it."""
    left = build.found(CENTRE_PART, number)
    if left is not None:
        advance(len(texts))
        return read_table(build.written(CENTRE_PART, number, left), CENTRE_ROWS)
    attempt = Attempt(build.folder, CENTRE_PART.at(number))
    nothing, all_kept = np.zeros(len(texts), np.uint16), np.ones(len(texts), bool)
    swept = build.sweep(texts, nothing, all_kept, None)
    read: dict[str, NDArray] = {TOKENS: swept.hashes, TOKEN_IDS: swept.token_ids}
    read |= {key_column(i): keys for i, keys in enumerate(swept.keys)}
    for state, by_depth in swept.states.items():
        read |= zip(_columns(build, state), by_depth, strict=True)
    columns = {column: list_column(values) for column, values in read.items()}
    table = pa.table({"text_hash": [text_hash(text) for text in texts], **columns})
    write_table(attempt.folder, CENTRE_ROWS, table)
    attempt.keep(StepRecord(rows=len(texts)))
    return table


def swept_with_centre(
    build: Build,
    positions: NDArray[np.int64],
    label: NDArray[np.uint16],
    sampled: NDArray[np.bool_],
) -> Sweep:
    """What was read of rows of the centre, one or more, and their heads.

    positions: (rows,) of their texts in `build.centre_rows`.  label: (rows,).  sampled: (rows,)
    True if the row's states are kept.
    """
    rows, head = build.centre_rows, build.head
    assert rows is not None, "a row of the centre has been found there"
    assert isinstance(head, SentenceHead), "no other model has a centre"
    by_state = {state: _columns(build, state) for state in probe_states(build.backbone)}
    keys = [key_column(number) for number in range(len(build.plan.job.key.names))]
    of_states = [column for own in by_state.values() for column in own]
    found = rows.take(positions, [TOKENS, TOKEN_IDS, *keys, *of_states])
    states = {state: np.stack([found[c] for c in own]) for state, own in by_state.items()}
    labels = len(build.plan.prompt.labels)
    bare = Sweep(
        answers=np.zeros((len(positions), 0), np.uint16),
        confidences=np.zeros((len(positions), 0), np.float32),
        keys=tuple(found[key] for key in keys),
        hashes=found[TOKENS],
        token_ids=found[TOKEN_IDS],
        sums={state: sums_of(own, label, labels) for state, own in states.items()},
        states=states,
    )
    return with_head(bare, head, sampled)


def _columns(build: Build, state: StateName) -> list[str]:
    """The columns of a state, by depth."""
    return [state_column(state, depth) for depth in range(build.plan.depth + 1)]
