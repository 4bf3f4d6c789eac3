"""Explanation: what a version says of one text, and why the policy leaves where it does.

The command `explain`; no task uses it.
"""

from typing import Any

import numpy as np
from pydantic import BaseModel

from raee.all_exits import AllExits, read_all
from raee.answers import Neighbours
from raee.classify import ABSTAINED, classify
from raee.config import KernelPolicy, PolicySpec, RaeePolicy, RunnablePolicy
from raee.errors import InputError
from raee.policies.compared import runnable
from raee.policies.table import (
    POLICIES,
    Stepwise,
    kernel_exits,
    kernel_scores,
    neighbours_planned_on,
    raee_scores,
)
from raee.reading import Database
from raee.reasons import ExpertSay, NgramSay, experts_on, ngrams_on
from storage.version_files import VersionFiles
from tasks.credentials import use_credentials
from tasks.entries import columns_of, read_rows
from tasks.job import Job
from tasks.readings import check_fits, load_database, load_readings, tuning_of

NEIGHBOURS = 5
"""How many neighbours are shown."""

_NGRAMS = 5
"""How many n-grams are shown that speak for the answer, and against it."""


class NeighbourLine(BaseModel):
    """A row of the database that is near a text."""

    id: str
    distance: float
    """Squared L2, by the first key."""
    label: str
    right_heads: list[int]
    """Depths at which the model's own head is right on it."""
    text: str | None
    """None if the version keeps no texts."""


class ExitLine(BaseModel):
    """The answer of an exit for a text."""

    label: str
    confidence: float
    """From 0 to 1, as policies take it."""
    rate: float
    """How often it is right on the database's own rows."""


class Explanation(BaseModel):
    """What a version says of one text, and why its policy leaves where it does."""

    database: str
    version: str
    policy: dict[str, Any]
    runs: dict[str, Any]
    label: str | None
    """None, as confidence and exit are, if the text is left unlabelled."""
    confidence: float | None
    exit: str | None
    layers: int
    """Layers that the text ran."""
    depth: int
    """Layers of the backbone."""
    far: bool
    """Whether the text is unlike the database's rows."""
    cut: bool
    """Whether the text is truncated."""
    neighbours: list[NeighbourLine]
    exits: dict[str, ExitLine]
    """By exit."""
    why: list[str]
    """The policy's reasons, a line each."""
    ngrams_for: list[NgramSay]
    """The n-grams that speak most for the answer; none if there is none, or the version is older
    than n-grams."""
    ngrams_against: list[NgramSay]
    """The n-grams that speak most against it."""
    experts: list[ExpertSay]
    """The experts of the pool that answered, by weight; none if another reader did."""


def explain_text(job: Job, text: str, version: str | None, policy: PolicySpec) -> Explanation:
    """The neighbours of a text, what each exit says, where the policy leaves, and why.

    version: an id or an alias; by default as `Database.open`.  Raises InputError if the text is
    empty, and as a classification does.
    """
    if not text.strip():
        raise InputError("the text is empty")
    use_credentials(job.credentials)
    chosen = job.database.open(version)
    readings = load_readings(chosen)
    check_fits(job, readings.manifest)
    runs = runnable(policy, tuning_of(readings.manifest), readings.where)
    database = load_database(chosen, job.backbone, job.key)
    entries = database.entries
    seen = read_all(database, [text], max(NEIGHBOURS, neighbours_planned_on(runs)))
    answers, confidences = seen.read.answers[0], seen.read.confidences[0]
    lines = readings.written_lines(runs)
    answer = classify(database, runs, [text], far=job.far, lines=lines)
    exit = int(answer.exits[0])
    answered = exit != ABSTAINED
    ngrams: list[NgramSay] = []
    experts: list[ExpertSay] = []
    if answered:
        label = int(answer.labels[0])
        ngrams = ngrams_on(database, text, label)
        experts = experts_on(database, text, entries.exits[exit], label)
    return Explanation(
        database=job.name,
        version=chosen.id,
        policy=policy.model_dump(),
        runs=runs.model_dump(),
        label=entries.labels[answer.labels[0]] if answered else None,
        confidence=float(answer.confidences[0]) if answered else None,
        exit=str(entries.exits[exit]) if answered else None,
        layers=int(answer.layers[0]),
        depth=database.backbone.depth,
        far=bool(answer.far[0]),
        cut=bool(answer.truncated[0]),
        neighbours=_neighbours(readings.files, database, seen.neighbours),
        exits={
            str(name): ExitLine(
                label=entries.labels[answers[position]],
                confidence=float(confidences[position]),
                rate=float(entries.rates[position]),
            )
            for position, name in enumerate(entries.exits)
        },
        why=_why(database, runs, seen, exit, bool(answer.far[0])),
        ngrams_for=[ngram for ngram in ngrams if ngram.log_odds > 0][:_NGRAMS],
        ngrams_against=[ngram for ngram in ngrams[::-1] if ngram.log_odds < 0][:_NGRAMS],
        experts=experts,
    )


def _neighbours(files: VersionFiles, database: Database, found: Neighbours) -> list[NeighbourLine]:
    entries = database.entries
    positions = [int(i) for i in found.rows[0][:NEIGHBOURS] if i >= 0]
    columns = [c for c in ("id", "text") if c in columns_of(files, files.below("entries/")[0])]
    table = read_rows(files, columns, positions)
    ids = table["id"].to_pylist()
    texts = table["text"].to_pylist() if "text" in columns else [None] * len(ids)
    return [
        NeighbourLine(
            id=id,
            distance=float(found.distances[0][i]),
            label=entries.labels[entries.label[position]],
            right_heads=[
                entries.exits[e].depth for e in entries.heads if entries.right[position, e]
            ],
            text=text,
        )
        for i, (position, id, text) in enumerate(zip(positions, ids, texts, strict=True))
    ]


def _why(
    database: Database, runs: RunnablePolicy, seen: AllExits, exit: int, far: bool
) -> list[str]:
    """The policy's reasons, a line each."""
    entries, policy = database.entries, POLICIES[runs.name]
    if far:
        return ["it is unlike the database's own rows: it is far"]
    if isinstance(policy, Stepwise):
        lines, checkpoints = [], policy.checkpoints(runs, entries)
        for position in checkpoints:
            name, confidence = str(entries.exits[position]), seen.read.confidences[:1, position]
            sure = bool(policy.leave(runs, entries.exits[position].depth, confidence)[0])
            needed = runs.threshold_at(entries.exits[position].depth)  # type: ignore[union-attr]
            if position == exit and not sure:
                lines.append(
                    f"{name} is the last checkpoint: the text leaves ({confidence[0]:.3f})"
                )
            else:
                verdict = "enough, the text leaves" if sure else "not enough, it goes on"
                lines.append(f"{name} is sure to {confidence[0]:.3f} of {needed:.3f}: {verdict}")
            if position == exit:
                break
        return lines
    if isinstance(runs, RaeePolicy | KernelPolicy):
        if isinstance(runs, RaeePolicy):
            positions, scores = entries.heads, raee_scores(runs, entries, seen.neighbours)[0]
        else:
            positions = kernel_exits(runs, entries)
            scores = kernel_scores(runs, entries, seen.neighbours)[0]
        order = np.argsort(-scores, kind="stable")
        best = ", ".join(f"{entries.exits[positions[i]]} {scores[i]:.3f}" for i in order[:5])
        return [f"its neighbours score the exits so: {best}"]
    return [f"every text leaves at {entries.exits[exit]}"]
