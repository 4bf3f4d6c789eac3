"""The fit of a build's readers, on the sums of all shards and the states of the sampled rows."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.build import fit_on_best, rows_of_fit, votes_of
from raee.config import PAPER_NEIGHBOURS
from raee.exits import fitted_exits
from raee.readers.discriminant import left_out_scores, scatter_at
from raee.readers.fit import Judges, StateName, Unfitted
from raee.readers.probe import fit_shrinkage
from raee.readers.states import probe_states
from raee.readers.sums import Sums, sums_of
from raee.sweep import Labelled
from raee.texts import TextHashes, copies_of
from storage.parquet import list_column, write_table
from tasks.build.build import CHECK, FIT, FITTED, LISTS, MATCH, SEED, Build, Fitted, open_build
from tasks.fitted import fit_record, write_fits
from tasks.progress import advance, stage
from tasks.steps import Attempt, step

_SMALLEST = 100
"""Rows of the smallest database in the figures of accuracy by size."""

_HELD_BYTES = 2**28
"""Bytes of states that are read together: each read of a shard's file takes time, however small."""


@step(FIT, opens=open_build, stage="fit", after=[CHECK, MATCH, LISTS])
def fit_database_probes(build: Build, attempt: Attempt) -> Fitted:
    """Fit the readers and write them; their answers on the sampled rows go to the entries later."""
    plan, marks = build.plan, build.swept.marks
    labels, label = len(plan.prompt.labels), marks.label[marks.sampled]
    hashes = marks.hashes[marks.sampled]
    copies = copies_of(hashes, marks.hashes, marks.label, labels)
    states = probe_states(build.backbone)
    sums = {state: _merged_sums(build, state) for state in states}
    held = _HELD_BYTES // len(states)
    read = {state: _States(build, state, sums[state], held) for state in states}
    heads = read[states[0]].begin_with_heads()
    judges = {state: Judges(read[state], label, hashes, copies) for state in states}
    labelled = Labelled(marks.label, labels, marks.sampled)
    votes = votes_of(plan.job.key, _listed(build), labelled)
    unfitted = Unfitted(heads, votes)
    before = {} if build.parent is None else build.parent.fits.parameters
    with stage("fit", rows_of_fit(len(states), len(label)) + len(label)):
        fitted = fit_on_best(sums, judges, build.swept.words(), unfitted, before, advance)
        at_depth = judges[fitted.fits.state].states(plan.depth)
        growth = _growth(at_depth, label, hashes, labels)
    found, state = fitted.answers, fitted.fits.state
    assert found.answers.shape[1] == len(fitted_exits(plan.depth)), "one column a fitted exit"
    columns = {
        "answers": list_column(found.answers),
        "confidences": list_column(found.confidences),
    }
    write_table(attempt.folder, FITTED, pa.table(columns))
    return Fitted(
        rows=len(label),
        files=write_fits(attempt.version, fitted.fits, sums),
        account=fit_record(fitted, sums[state], len(label)),
        growth=growth,
    )


def _listed(build: Build) -> list[Neighbours]:
    """By key, the neighbours that vote of all rows."""
    shards = [
        # Copies, since a view would hold all of a shard's lists.
        [
            (found.rows[:, :PAPER_NEIGHBOURS].copy(), found.distances[:, :PAPER_NEIGHBOURS].copy())
            for found in listed
        ]
        for listed in map(build.listed, build.numbers)
    ]
    return [
        Neighbours(*(np.concatenate(parts) for parts in zip(*of_key, strict=True)))
        for of_key in zip(*shards, strict=True)
    ]


def _growth(
    states: NDArray[np.float32], label: NDArray[np.uint16], hashes: TextHashes, labels: int
) -> list[tuple[int, float]]:
    """Accuracy of the closed form at full depth, without the text, on ever more of the rows.

    Its shrinkage is chosen anew at each size, as a database of that size would choose it.  The
    stage is told of all rows.
    """
    order = np.random.default_rng(SEED).permutation(len(label))
    sizes = np.unique(np.geomspace(min(_SMALLEST, len(label)), len(label), 7).astype(int))
    grown = []
    for before, size in pairwise([0, *sizes]):
        some = order[:size]
        scatter = scatter_at(sums_of(states[None, some], label[some], labels), 0)
        copies = copies_of(hashes[some], hashes[some], label[some], labels)
        shrinkage = fit_shrinkage(scatter, states[some], label[some], copies)
        scores = left_out_scores(scatter, shrinkage, states[some], copies)
        grown.append((int(size), float((scores.argmax(axis=1) == label[some]).mean())))
        advance(int(size - before))
    return grown


class _States:
    """The sampled rows' states by depth, read for as many depths together as may be held."""

    def __init__(self, build: Build, state: StateName, sums: Sums, held_bytes: int) -> None:
        self._swept, self._state, self._depths = build.swept, state, sums.depths
        rows, width = build.swept.marks.samples[-1], sums.first.shape[-1]
        self._together = max(1, held_bytes // int(rows * width * np.float32().itemsize))
        self._held: dict[int, NDArray[np.float32]] = {}

    def begin_with_heads(self) -> NDArray[np.float32]:
        """(depths, rows, labels) the head's distributions, read with the first depths' states."""
        depths = self._from(0)
        states, heads = self._swept.states_and_heads(self._state, depths, self._depths)
        self._held = dict(zip(depths, states, strict=True))
        return heads

    def __call__(self, depth: int) -> NDArray[np.float32]:
        """(rows, width)."""
        if depth not in self._held:
            depths = self._from(depth)
            if depth + 1 < self._depths:  # full depth is asked for in between
                self._held.clear()
            self._held.update(zip(depths, self._swept.states(self._state, depths), strict=True))
        return self._held[depth]

    def _from(self, depth: int) -> range:
        return range(depth, min(depth + self._together, self._depths))


def _merged_sums(build: Build, state: StateName) -> Sums:
    """The parent's mended sums, and those of all shards' new rows, added in the shards' order."""
    total = build.sums_before(state)
    for number in build.numbers:
        if build.swept.left(number).new:
            found = build.swept.sums(number, state)
            total = found if total is None else total + found
    assert total is not None, "a build without a parent has new rows"
    return total
