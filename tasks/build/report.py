"""The step of a build that writes its version's report."""

import numpy as np

from raee.config import PAPER_NEIGHBOURS
from raee.neighbours.index import Index, new_index
from raee.neighbours.lists import nearest_other_texts
from raee.policies.replay import Trial
from raee.readers.probe import READER as PROBE
from raee.readers.vote import READER as VOTE
from raee.readers.vote import vote
from raee.texts import Texts
from storage.manifest import REPORT as PATH
from tasks.build.build import EVALUATE, FIT, REPORT, SEED, TUNE, Build, open_build
from tasks.fitted import read_far
from tasks.report.writing import report_page
from tasks.steps import Attempt, StepRecord, step

_QUERIES = 2_000
"""Rows that each smaller database votes on: enough to see a curve."""


@step(REPORT, opens=open_build, stage="report", after=[TUNE, EVALUATE])
def write_report(build: Build, attempt: Attempt) -> StepRecord:
    """Write the version's report, one page that needs nothing else."""
    trial, grown = build.trial, build.record(FIT).growth
    votes = _vote_growth(trial, build.indexes[0], [rows for rows, _ in grown])
    page = report_page(
        build.draft(),
        build.readings.files,
        trial,
        build.study(),
        read_far(build.files(TUNE)),
        {PROBE.name: grown, VOTE.name: votes},
        build.parent_manifest,
    )
    with attempt.version.create(PATH) as file:
        file.write(page)
    return StepRecord(rows=len(trial), files=[file.record()])


def _vote_growth(trial: Trial, index: Index, sizes: list[int]) -> list[tuple[int, float]]:
    """(rows, accuracy) of the vote, without the text, in databases of so many of the rows."""
    label, labels, hashes = trial.label, len(trial.entries.labels), trial.texts.hashes
    order = np.random.default_rng(SEED).permutation(len(trial))
    grown = []
    for size in sizes:
        some = order[:size]
        keys = index.keys_of(trial.rows[some])
        smaller = new_index(keys.shape[1])
        smaller.add(keys)
        asked = np.arange(min(size, _QUERIES))
        own = hashes[some[asked]]
        found = nearest_other_texts(
            smaller, keys[asked], PAPER_NEIGHBOURS, own, Texts(hashes[some])
        )
        right = vote(found, label[some], labels).argmax(axis=1) == label[some[asked]]
        grown.append((size, float(right.mean())))
    return grown
