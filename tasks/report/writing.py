"""The step of a build that writes its version's report."""

from datetime import UTC, datetime

import numpy as np
from prefect import task

from raee.config import PAPER_NEIGHBOURS, FarSpec
from raee.neighbours.index import Index, new_index
from raee.neighbours.lists import nearest_other_texts
from raee.policies.compared import report_runs
from raee.policies.costs import Costs
from raee.policies.replay import Trial
from raee.readers.probe import READER as PROBE
from raee.readers.vote import READER as VOTE
from raee.readers.vote import vote
from raee.texts import Texts
from storage.store import Folder
from storage.versions import REPORT, Manifest, read_manifest
from tasks.build.fit import PROBED, SEED
from tasks.build.neighbours import entries_so_far, indexes_of
from tasks.build.plan import plan_of
from tasks.build.publish import found_costs, study_of_build, trial_of_build
from tasks.entries import read_rows
from tasks.fitted import read_far
from tasks.markers import VERSION, Attempt, account_of, done, marker, output
from tasks.report.data import Parent, gather
from tasks.report.data import Texts as LookUp
from tasks.report.page import render
from tasks.retrying import RETRIES

_QUERIES = 2_000
"""Rows that vote on databases of a smaller size: enough to see a curve."""


@task(**RETRIES)
def write_report(work: str) -> None:
    """Write the version's report, one page that needs nothing else."""
    folder, plan = Folder(work), plan_of(work)
    if marker(folder, "reported") is not None:
        return
    attempt = Attempt(folder, "reported")
    trial = trial_of_build(work)
    names = [str(e) for e in plan.exits]
    costs, found = Costs(**found_costs(work)["seconds"]), study_of_build(work)
    runs = report_runs(plan.job.policy, found, trial, costs, names, plan.where)
    entries, parts, _ = entries_so_far(work)
    grown = [(int(rows), float(accuracy)) for rows, accuracy in account_of(work, PROBED)["growth"]]
    page = render(
        gather(
            name=plan.job.name,
            version=plan.version,
            created_at=datetime.now(UTC),
            trial=trial,
            tuning=found.tuning,
            runs=runs,
            costs=costs,
            far=read_far(output(folder, "tuned") / VERSION),
            far_level=1 - (plan.job.far or FarSpec()).quantile,
            growth={
                PROBE.name: grown,
                VOTE.name: _vote_growth(trial, indexes_of(work)[0], [rows for rows, _ in grown]),
            },
            texts=texts_of(entries, parts) if plan.job.keep_text else None,
            parent=None
            if plan.parent is None
            else parent_of(read_manifest(plan.job.store, plan.job.name, plan.parent)),
            copies=account_of(work, "tuned")["copies"],
        )
    )
    with attempt.version.create(REPORT) as file:
        file.write(page.encode())
    done(attempt, [file.record()], len(trial))


def texts_of(folder: Folder, parts: list[str]) -> LookUp:
    """Looks up the texts of a version's entries."""

    def texts(places: list[int]) -> list[str]:
        return read_rows(folder, parts, ["text"], places)["text"].to_pylist()

    return texts


def parent_of(manifest: Manifest) -> Parent | None:
    """A version as its child's report has it; None where it was not tuned."""
    figures = manifest.metrics.get("tuned")
    if figures is None:
        return None
    return Parent(manifest.id, manifest.rows, figures["accuracy"], figures["mean_layers"])


def _vote_growth(trial: Trial, index: Index, sizes: list[int]) -> list[tuple[int, float]]:
    """Accuracy of the vote, without the text, in databases of so many of the rows."""
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
