"""The fit of a build's probes, on the sums of all shards and the states of the sampled rows."""

import time
from functools import partial

import numpy as np
import pyarrow as pa
import safetensors.numpy
from numpy.typing import NDArray
from prefect import task

from raee.discriminant import left_out_scores, scatter_at
from raee.exits import fitted_exits
from raee.probes import LeftOut, StateName, edr, fit_probes, left_out_accuracy
from raee.readers import probe_states
from raee.sums import Sums, sums_from, sums_of
from storage.parquet import list_column, list_values, read_table, write_table
from storage.store import Folder
from tasks.build import FITTED, state_column, sums_name
from tasks.build_plan import plan_of
from tasks.entries import Answers, answers_of
from tasks.fitted import account, write_probes
from tasks.markers import done, marker
from tasks.models import backbone_of
from tasks.retrying import RETRIES

SEED = 0
"""Of the regression's folds, and of the rows that stand for a smaller database."""

_SMALLEST = 100
"""Rows of the smallest database in the account of accuracy against size."""


@task(**RETRIES)
def fit_database_probes(work: str) -> None:
    """Fit the probes and write them; their answers on the sampled rows go to the entries later."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, "probes") is not None:
        return
    begun = time.monotonic()
    label = _sampled_labels(work)
    states = probe_states(backbone_of(plan.job.backbone))
    sums = {state: _merged_sums(work, state) for state in states}
    state = states[0]
    if len(states) > 1:
        right = {s: left_out_accuracy(sums[s], partial(_states, work, s), label) for s in states}
        state = max(states, key=lambda s: right[s])
    read = partial(_states, work, state)
    fitted = fit_probes(state, sums[state], read, label, SEED)
    found = _answers(fitted.left_out)
    assert found.answers.shape[1] == len(fitted_exits(plan.depth)), "one column a fitted exit"
    columns = {
        "answers": list_column(found.answers),
        "confidences": list_column(found.confidences),
    }
    write_table(folder, FITTED, pa.table(columns))
    record = write_probes(plan.folder, fitted, sums[state])
    said = account(fitted, sums[state], len(label), SEED)
    growth = _growth(read(plan.depth), label, len(plan.prompt.labels), fitted.shrinkages[-1])
    done(folder, "probes", [record], len(label), begun, account=said, growth=growth)


def _answers(left_out: LeftOut) -> Answers:
    """The fitted exits of the sampled rows, in the order of `fitted_exits`."""
    probes = np.exp(left_out.log_probabilities)
    found = answers_of([*probes, *np.exp(left_out.averages), *probes, np.exp(left_out.regression)])
    depths = len(probes)
    for depth, (distributions, distances) in enumerate(
        zip(probes, left_out.prototype_distances, strict=True)
    ):
        found.confidences[:, 2 * depths + depth] = 1 - edr(distributions, distances)
    return found


def _growth(
    states: NDArray[np.float32], label: NDArray[np.uint16], labels: int, shrinkage: float
) -> list[tuple[int, float]]:
    """Accuracy of the closed form at full depth, without the row, on ever more of the rows."""
    order = np.random.default_rng(SEED).permutation(len(label))
    sizes = np.unique(np.geomspace(min(_SMALLEST, len(label)), len(label), 7).astype(int))
    grown = []
    for size in sizes:
        some = order[:size]
        scatter = scatter_at(sums_of(states[None, some], label[some], labels), 0)
        scores = left_out_scores(scatter, shrinkage, states[some], label[some])
        grown.append((int(size), float((scores.argmax(axis=1) == label[some]).mean())))
    return grown


def _states(work: str, state: StateName, depth: int) -> NDArray[np.float32]:
    folder, column = Folder(work), state_column(state, depth)
    tables = [
        read_table(folder, f"states-{n:05d}.parquet", [column])
        for n in range(len(plan_of(work).shards))
    ]
    return np.concatenate([list_values(t[column]) for t in tables])


def _merged_sums(work: str, state: StateName) -> Sums:
    """The sums of all shards, added in their order."""
    folder, total = Folder(work), None
    for number in range(len(plan_of(work).shards)):
        found = sums_from(safetensors.numpy.load(folder.read(sums_name(state, number))))
        total = found if total is None else total + found
    assert total is not None, "a plan has a shard"
    return total


def _sampled_labels(work: str) -> NDArray[np.uint16]:
    folder = Folder(work)
    tables = [
        read_table(folder, f"shard-{n:05d}.parquet", ["label", "sampled"])
        for n in range(len(plan_of(work).shards))
    ]
    return np.concatenate([t["label"].to_numpy()[t["sampled"].to_numpy()] for t in tables])
