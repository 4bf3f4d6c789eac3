"""Policies compared on labelled rows that a database has not seen."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import bootstrap

from raee.all_exits import AllExits, Outcome, outcome, read_all
from raee.classify import ABSTAINED, classify
from raee.config import FarSpec, RunnablePolicy
from raee.policies.baselines import (
    BASELINES,
    MAJORITY,
    Against,
    Rated,
    against,
    against_the_best,
    better_baseline,
)
from raee.policies.compared import majority_label
from raee.policies.replay import scores
from raee.policies.table import neighbours_planned_on
from raee.reading import Database

COMPARED_WITH = ("full", *BASELINES)
"""What every policy is compared with, row by row: the model's own head, what people do without
raee."""

_TIMED = {"cpu": 150, "cuda": 2_400, "mps": 600}
"""Rows on which rows/s are measured, at most: they fill some batches of the device."""

_ROUNDS = 2
"""Parts of these rows that all policies classify in turn: what else the machine does falls on all
of them."""


class PolicyFigures(BaseModel):
    """A policy on labelled rows, or the majority."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    macro_f1: float
    matthews: float
    mean_layers: float
    exits: dict[str, int]
    """Rows by exit, the most frequent first."""
    far: int
    """Rows unlike the database's."""
    rows_per_second: float | None
    """Of tokenising, model, readers and the key's search, on `timed_rows` of the rows; None if
    nothing runs."""
    accuracy_interval: tuple[float, float]
    """Of 95 %."""
    against: dict[str, Against]
    """By name, what it is compared with, as far as there is such."""


_RESAMPLES = 2_000
_CONFIDENCE = 0.95


def read_for(
    database: Database,
    policies: Mapping[str, RunnablePolicy],
    texts: Sequence[str],
    on_rows: Callable[[int], None] = lambda rows: None,
    ratio: NDArray[np.float64] | None = None,
) -> AllExits:
    """`raee.all_exits.read_all` with as many neighbours as the policies plan on."""
    asked = max(neighbours_planned_on(policy) for policy in policies.values())
    return read_all(database, texts, asked, on_rows, ratio)


def timed_rows(database: Database, rows: int) -> int:
    """On how many of some rows rows/s are measured; all of a few."""
    return min(rows, _TIMED[database.backbone.device.type])


def compare_on(
    database: Database,
    policies: Mapping[str, RunnablePolicy],
    texts: Sequence[str],
    seen: AllExits,
    right: NDArray[np.int32],
    own: str,
    far: FarSpec | None = None,
    ratio: NDArray[np.float64] | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[str, PolicyFigures]:
    """Figures of every policy on labelled rows, one or more; by the policies' names.

    Accuracy with its interval, macro-F1, Matthews correlation, mean layers, rows by exit, far rows,
    each policy against the majority and the baselines among them: out of what all exits say of the
    rows, which is what a classification answers.  rows/s: of a classification of `timed_rows`,
    drawn evenly over all by what they take.

    seen: the texts as `read_for` reads them with the same ratio.  right: (rows,) places of the
    labels.  own: name of the policy that looks at far rows, as `far` says; the others are measured
    bare.  ratio: as in `raee.classify.classify`; on_rows is told of rows as a policy classifies
    them.  Raises InputError as `classify` does.
    """
    # Who did not ask pays for no look at far rows.
    looks = {name: far if name == own else None for name in policies}
    trial = seen.trial(database.entries, right)
    done = {
        name: outcome(database, policy, seen, trial, looks[name])
        for name, policy in policies.items()
    }
    hits = {name: found.labels == right for name, found in done.items()}
    hits[MAJORITY] = right == majority_label(database.entries)
    seconds = dict.fromkeys(policies, 0.0)
    rounds = _rounds(texts, [*done.values()], timed_rows(database, len(texts)))
    for rows in rounds:
        some = [texts[i] for i in rows]
        for name, policy in policies.items():
            begun = time.monotonic()
            classify(database, policy, some, on_rows, looks[name], ratio)
            seconds[name] += time.monotonic() - begun
    return {
        name: PolicyFigures(
            **scores(found.labels, right, found.layers),
            exits=_exits(database, found),
            far=int(found.far.sum()),
            rows_per_second=sum(map(len, rounds)) / seconds[name],
            accuracy_interval=_interval(hits[name]),
            against={b: against(hits[name], hits[b]) for b in COMPARED_WITH if b in hits},
        )
        for name, found in done.items()
    }


def majority_figures(database: Database, right: NDArray[np.int32]) -> PolicyFigures:
    """Figures of the database's most frequent label for every row: no row leaves at an exit.

    right: (rows,) places of the labels of one or more rows.
    """
    answers = np.full_like(right, majority_label(database.entries))
    return PolicyFigures(
        **scores(answers, right, np.zeros(len(right), np.int64)),
        exits={},
        far=0,
        rows_per_second=None,
        accuracy_interval=_interval(answers == right),
        against={},
    )


def notes(
    own: str, policies: Mapping[str, RunnablePolicy], found: Mapping[str, PolicyFigures]
) -> list[str]:
    """Lines about a policy beside the baselines.

    own: the policy's name; there are none if it is not among the policies.  found: figures of
    these and of the majority.  Costs are layers: rows/s of a few hundred rows are too noisy.
    """
    if own not in policies:
        return []
    rated = {name: Rated(one.accuracy, one.mean_layers) for name, one in found.items()}
    better = better_baseline(own, policies, rated, found[own].against)
    difference = against_the_best(own, found[own].against)
    return [difference] if better is None else [difference, better]


def _rounds(texts: Sequence[str], done: Sequence[Outcome], timed: int) -> list[NDArray[np.int64]]:
    """Positions of the rows that are classified in each round.

    They are drawn evenly over all rows in the order of their work, so that each policy's mean
    layers on few rows are about those on all; rounds are by length, as batches are.
    """
    length = np.array([len(text) for text in texts])
    work = length * sum(1 + found.layers for found in done)
    evenly = ((np.arange(timed) + 0.5) * len(texts) / timed).astype(np.int64)
    drawn = np.argsort(work, kind="stable")[evenly]
    by_length = drawn[np.argsort(length[drawn], kind="stable")]
    return np.array_split(by_length, min(_ROUNDS, timed))


def _exits(database: Database, found: Outcome) -> dict[str, int]:
    exits = database.entries.exits
    names = ["abstain" if i == ABSTAINED else str(exits[i]) for i in found.exits]
    return dict(Counter(names).most_common())


def _interval(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Bootstrap interval of an accuracy (percentiles; Efron and Tibshirani, 1993, chapter 13)."""
    if hits.all() or not hits.any():  # nothing varies
        return float(hits[0]), float(hits[0])
    found = bootstrap(
        (hits,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
