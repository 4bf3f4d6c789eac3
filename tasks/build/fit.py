"""The fit of a build's probes, on the sums of all shards and the states of the sampled rows."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect import task

from raee.exits import Answers, fitted_exits
from raee.model.loaded import backbone_of
from raee.readers.discriminant import left_out_scores, scatter_at
from raee.readers.fitting import Judges, States, fit_readers
from raee.readers.probe import fit_shrinkage, left_out_accuracy
from raee.readers.states import StateName, probe_states
from raee.readers.sums import Sums, sums_of
from raee.texts import TextHashes, copies_of
from storage.parquet import list_column, list_values, read_table, write_table
from storage.store import Folder
from tasks.build.match import sums_before
from tasks.build.plan import plan_of
from tasks.build.shards import (
    STATES,
    marks_of,
    read_sums_of,
    shard_account,
    shard_folder,
    state_column,
)
from tasks.fitted import account, write_fits
from tasks.markers import Attempt, done, marker, output
from tasks.retrying import RETRIES

SEED = 0
"""Of the regression's folds, and of the rows that stand for a smaller database."""

_FITTED = "fitted.parquet"

_SMALLEST = 100
"""Rows of the smallest database in the account of accuracy against size."""

_HELD_BYTES = 2**28
"""States that are read together: every read of a shard's file takes its time, however few."""

PROBED = "probes"
"""The step."""


@task(**RETRIES)
def fit_database_probes(work: str) -> None:
    """Fit the probes and write them; their answers on the sampled rows go to the entries later."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, PROBED) is not None:
        return
    attempt = Attempt(folder, PROBED)
    marks = marks_of(work)
    labels, label = len(plan.prompt.labels), marks.label[marks.sampled]
    hashes = marks.hashes[marks.sampled]
    copies = copies_of(hashes, marks.hashes, marks.label, labels)
    states = probe_states(backbone_of(plan.job.backbone))
    sums = {state: _merged_sums(work, state) for state in states}
    state = states[0]
    if len(states) > 1:
        right = {
            s: left_out_accuracy(sums[s], Judges(_states(work, s, sums[s]), label, hashes, copies))
            for s in states
        }
        state = max(states, key=lambda s: right[s])
    read = _states(work, state, sums[state])
    fitted = fit_readers(state, sums[state], Judges(read, label, hashes, copies), SEED)
    found = fitted.answers
    assert found.answers.shape[1] == len(fitted_exits(plan.depth)), "one column a fitted exit"
    columns = {
        "answers": list_column(found.answers),
        "confidences": list_column(found.confidences),
    }
    write_table(attempt.folder, _FITTED, pa.table(columns))
    record = write_fits(attempt.version, fitted.fits, sums)
    said = account(fitted, sums[state], len(label))
    growth = _growth(read(plan.depth), label, hashes, labels)
    done(attempt, [record], len(label), account=said, growth=growth)


@lru_cache(maxsize=1)
def fitted_answers(work: str) -> Answers:
    """The fitted exits of the sampled rows, in their order."""
    fitted = read_table(output(Folder(work), PROBED), _FITTED)
    return Answers(list_values(fitted["answers"]), list_values(fitted["confidences"]))


def _growth(
    states: NDArray[np.float32], label: NDArray[np.uint16], hashes: TextHashes, labels: int
) -> list[tuple[int, float]]:
    """Accuracy of the closed form at full depth, without the text, on ever more of the rows.

    Its shrinkage is chosen anew at each size, as a database of that size would choose it.
    """
    order = np.random.default_rng(SEED).permutation(len(label))
    sizes = np.unique(np.geomspace(min(_SMALLEST, len(label)), len(label), 7).astype(int))
    grown = []
    for size in sizes:
        some = order[:size]
        scatter = scatter_at(sums_of(states[None, some], label[some], labels), 0)
        copies = copies_of(hashes[some], hashes[some], label[some], labels)
        shrinkage = fit_shrinkage(scatter, states[some], label[some], copies)
        scores = left_out_scores(scatter, shrinkage, states[some], copies)
        grown.append((int(size), float((scores.argmax(axis=1) == label[some]).mean())))
    return grown


def sampled_states(work: str, state: StateName, depths: Sequence[int]) -> list[NDArray[np.float32]]:
    """(sampled rows, width) one of their states, by depth; read together."""
    columns = [state_column(state, depth) for depth in depths]
    tables = [read_table(shard_folder(work, n), STATES, columns) for n in plan_of(work).numbers]
    return [np.concatenate([list_values(t[column]) for t in tables]) for column in columns]


def _states(work: str, state: StateName, sums: Sums) -> States:
    """The sampled rows' states by depth, read for as many depths together as may be held."""
    rows, width = marks_of(work).samples[-1], sums.first.shape[-1]
    together = max(1, _HELD_BYTES // int(rows * width * np.float32().itemsize))
    held: dict[int, NDArray[np.float32]] = {}

    def read(depth: int) -> NDArray[np.float32]:
        if depth not in held:
            held.clear()
            depths = range(depth, min(depth + together, sums.depths))
            held.update(zip(depths, sampled_states(work, state, depths), strict=True))
        return held[depth]

    return read


def _merged_sums(work: str, state: StateName) -> Sums:
    """What the parent's rows leave, and the sums of all shards' new rows, in their order."""
    total = sums_before(work, state)
    for number in plan_of(work).numbers:
        if shard_account(work, number)["new"]:
            found = read_sums_of(shard_folder(work, number), state)
            total = found if total is None else total + found
    assert total is not None, "a build without a parent has new rows"
    return total
