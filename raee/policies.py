"""Policies: at which exit a row answers.  Formulas and nothing else.

There are two kinds with one interface.  A planned policy says every row's exit from its
neighbours, before the row goes deeper than its key.  A stepwise one is asked at each checkpoint
whether the row leaves there.  Both see only what entries store, so they are replayed on a database
exactly as they run on a corpus.  A new policy is its settings (`raee.config`), one function, and
one line in POLICIES.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.config import (
    CascadePolicy,
    FixedPolicy,
    FullPolicy,
    PolicySpec,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.errors import InputError
from raee.exits import Entries, Neighbours, neighbour_weights

Plan = NDArray[np.int64]
"""(queries,) place of each query's exit."""

NO_NEIGHBOURS = Neighbours(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
"""What a policy that asks no neighbours is given: the plan of one query holds for all."""


def full(spec: FullPolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The head at full depth."""
    return np.full(len(neighbours.rows), entries.full)


def fixed(spec: FixedPolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The same exit for every row; without a name, the database's best head exit."""
    place = best_head(entries) if spec.exit is None else entries.place_of(spec.exit)
    return np.full(len(neighbours.rows), place)


def retrieval(spec: RetrievalPolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The neighbours' vote."""
    return np.full(len(neighbours.rows), entries.vote)


def raee(spec: RaeePolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The paper's rule (arXiv 2405.15198, section 3.3 and algorithm 1; DESIGN.md section 2).

    Of each neighbour those head exits count that are right with at least the threshold's
    confidence; where there is none, the `top` right ones with the highest (of equal ones the
    shallower).  score[l] = sum_i w_i s_i[l] over the neighbours whose exit l counts.  The query
    leaves at the highest score; ties go to the lower depth; no score at all means full depth.
    """
    heads = entries.heads
    nearest = neighbours.first(spec.k)
    rows = np.maximum(nearest.rows, 0)
    confidence = entries.confidences[:, heads][rows]  # (queries, k, heads)
    right = entries.right[:, heads][rows]
    sure = right & (confidence >= spec.threshold)
    ranked = np.argsort(-np.where(right, confidence, -np.inf), axis=2, kind="stable")
    rank = np.argsort(ranked, axis=2, kind="stable")
    counts = np.where(sure.any(axis=2, keepdims=True), sure, right & (rank < spec.top))
    # A neighbour that is missing, or none of whose heads is right, adds nothing.
    scores = np.einsum(
        "qk,qkl->ql", neighbour_weights(nearest), np.where(counts, confidence, 0).astype(np.float64)
    )
    place = np.where((scores > 0).any(axis=1), scores.argmax(axis=1), len(heads) - 1)
    return np.asarray(heads)[place]


def cascade(spec: CascadePolicy, confidence: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Leave where the reader is confident enough.  confidence: (rows,)."""
    return confidence >= spec.threshold


def heads_from(spec: CascadePolicy, entries: Entries) -> list[int]:
    """A cascade's checkpoints: the heads from its first depth on."""
    places = [i for i in entries.heads if entries.exits[i].depth >= spec.first]
    if not places:
        raise InputError(
            f"policy.first {spec.first} is deeper than the backbone "
            f"({entries.exits[entries.full].depth} layers)"
        )
    return places


def best_head(entries: Entries) -> int:
    """The head exit that is right most often on the database's rows; of equals the shallowest."""
    return max(entries.heads, key=lambda i: (entries.right[:, i].sum(), -entries.exits[i].depth))


@dataclass(frozen=True)
class Planned:
    """A policy that says every row's exit at once."""

    plan: Callable[[Any, Entries, Neighbours], Plan]
    neighbours: Callable[[Any], int] = lambda spec: 0
    """How many neighbours the plan asks."""


@dataclass(frozen=True)
class Stepwise:
    """A policy that is asked at each checkpoint whether the row leaves there."""

    leave: Callable[[Any, NDArray[np.float32]], NDArray[np.bool_]]
    checkpoints: Callable[[Any, Entries], list[int]]
    """Places of the exits that are asked, shallowest first; at the last one every row leaves."""


POLICIES: dict[str, Planned | Stepwise] = {
    "full": Planned(full),
    "fixed": Planned(fixed),
    "retrieval": Planned(retrieval),
    "raee": Planned(raee, neighbours=lambda spec: spec.k),
    "cascade": Stepwise(cascade, heads_from),
}


def neighbours_planned_on(spec: PolicySpec) -> int:
    """How many neighbours a policy asks before it can say where its rows leave; often 0."""
    policy = POLICIES[spec.name]
    return policy.neighbours(spec) if isinstance(policy, Planned) else 0


def layers_of(
    spec: PolicySpec, entries: Entries, exits: NDArray[np.int64], key_depth: int
) -> NDArray[np.int64]:
    """Backbone layers that rows run which answer at some exits, (rows,).

    A row whose plan asked its neighbours has run the layers of the key, too.
    """
    depths = np.array([e.depth for e in entries.exits])[exits]
    return np.maximum(depths, key_depth) if neighbours_planned_on(spec) else depths
