"""Policies compared on labelled rows that a database has not seen."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import bootstrap

from raee.classify import ABSTAINED, Predictions, classify
from raee.config import FarSpec, RunnablePolicy
from raee.policies.replay import scores
from raee.reading import Database
from raee.statistics.paired import paired

_SIDE_BY_SIDE = 500
"""Rows that all policies classify in turn: what else the machine does falls on all of them."""


class Against(BaseModel):
    """A policy against another on the same rows."""

    model_config = ConfigDict(frozen=True)

    wins: int
    """Rows on which only it is right."""
    losses: int
    """Rows on which only the other is."""
    p_value: float
    """McNemar's, exact and two-sided."""


class PolicyFigures(BaseModel):
    """A policy on labelled rows."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    macro_f1: float
    matthews: float
    mean_layers: float
    exits: dict[str, int]
    """Rows by exit, the most frequent first."""
    far: int
    """Rows unlike the database's."""
    rows_per_second: float
    accuracy_interval: tuple[float, float]
    """Of 95 %."""
    against_logistic: Against | None = None
    """Against logistic regression at full depth; None if the database has none."""


_RESAMPLES = 2_000
_CONFIDENCE = 0.95


def compare_on(
    database: Database,
    policies: Mapping[str, RunnablePolicy],
    texts: Sequence[str],
    right: NDArray[np.int32],
    own: str,
    far: FarSpec | None = None,
    ratio: NDArray[np.float64] | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[str, PolicyFigures]:
    """Classify labelled rows, one or more, with every policy; figures by the policies' names.

    Accuracy with its interval, macro-F1, Matthews correlation, mean layers, rows/s, rows by exit,
    far rows; against logistic regression, if that is among them.  right: (rows,) places of the
    labels.  own: name of the policy that looks at far rows, as `far` says.  ratio, on_rows: as in
    `raee.classify.classify`.  Raises InputError as that does.
    """
    runs: dict[str, list[Predictions]] = {name: [] for name in policies}
    seconds = dict.fromkeys(policies, 0.0)
    for start in range(0, len(texts), _SIDE_BY_SIDE):
        some = texts[start : start + _SIDE_BY_SIDE]
        for name, policy in policies.items():
            # The others are measured bare: who did not ask pays for no look at far rows.
            looks = far if name == own else None
            begun = time.monotonic()
            runs[name].append(classify(database, policy, some, on_rows, looks, ratio))
            seconds[name] += time.monotonic() - begun
    hits = {name: _all(found, "labels") == right for name, found in runs.items()}
    results = {}
    for name, found in runs.items():
        figures = _figures(database, found, right)
        if "logistic" in hits:
            figures["against_logistic"] = _against(hits[name], hits["logistic"])
        results[name] = PolicyFigures(
            **figures,
            rows_per_second=len(texts) / seconds[name],
            accuracy_interval=_interval(hits[name]),
        )
    return results


def _figures(
    database: Database, found: list[Predictions], right: NDArray[np.int32]
) -> dict[str, Any]:
    places, exits = _all(found, "exits"), database.entries.exits
    names = ["abstain" if i == ABSTAINED else str(exits[i]) for i in places]
    return {
        **scores(_all(found, "labels"), right, _all(found, "layers")),
        "exits": dict(Counter(names).most_common()),
        "far": int(_all(found, "far").sum()),
    }


def _all(found: list[Predictions], field: str) -> NDArray[Any]:
    return np.concatenate([getattr(predictions, field) for predictions in found])


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


def _against(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Against:
    found = paired(ours, theirs)
    return Against(wins=found.wins, losses=found.losses, p_value=found.p_value())
