"""Policies: at which exit a row answers.  Formulas and nothing else.

There are two kinds with one interface.  A planned policy says every row's exit from its
neighbours, before the row goes deeper than its key.  A stepwise one is asked at each checkpoint
whether the row leaves there.  Both see only what entries store, so they are replayed on a database
exactly as they run on a corpus.  A new policy is its settings (`raee.config`), one function, and
one line in POLICIES.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours, neighbour_weights
from raee.config import (
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    PolicySpec,
    RaeePolicy,
    ReaderName,
    RetrievalPolicy,
    RunnablePolicy,
    TunedPolicy,
    Walkway,
)
from raee.errors import InputError, cut, listed
from raee.exits import Entries, Exit
from raee.readers.table import READERS, reader

Plan = NDArray[np.int64]
"""(queries,) position of each query's exit among the entries' exits."""

NO_NEIGHBOURS = Neighbours(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
"""What a policy that asks no neighbours is given: the plan of one query holds for all."""


def full(spec: FullPolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The head at full depth."""
    return np.full(len(neighbours.rows), entries.full)


def fixed(spec: FixedPolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The same exit for every row; without a name, the database's best.

    Raises InputError if the database has no exit of that name.
    """
    best = entries.best(entries.answering)
    position = best if spec.exit is None else entries.position_of(spec.exit)
    return np.full(len(neighbours.rows), position)


def retrieval(spec: RetrievalPolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The neighbours' vote; without a name, the database's best.

    Raises InputError if the database has no vote of that name.
    """
    votes = entries.votes
    position = entries.best(votes) if spec.exit is None else entries.position_of(spec.exit)
    if position not in votes:
        raise InputError(f"policy.exit {cut(repr(spec.exit))} is no vote")
    return np.full(len(neighbours.rows), position)


def raee(spec: RaeePolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The paper's rule: the head with the highest score; ties go to the lower depth.

    A row without any score goes to full depth.
    """
    scores = raee_scores(spec, entries, neighbours)
    position = np.where((scores > 0).any(axis=1), scores.argmax(axis=1), scores.shape[1] - 1)
    return np.asarray(entries.heads)[position]


def raee_scores(spec: RaeePolicy, entries: Entries, neighbours: Neighbours) -> NDArray[np.float64]:
    """The paper's scores (arXiv 2405.15198, section 3.3 and algorithm 1), (queries, heads).

    A neighbour's head exit counts if it is right with at least the threshold's confidence; if none
    is, the `top` right ones with the highest confidence count (of equal ones the shallower).
    score[l] = sum_i w_i s_i[l] over the neighbours whose exit l counts.
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
    # A neighbour adds nothing if it is missing or none of its heads is right.
    return np.einsum(
        "qk,qkl->ql", neighbour_weights(nearest), np.where(counts, confidence, 0).astype(np.float64)
    )


def kernel(spec: KernelPolicy, entries: Entries, neighbours: Neighbours) -> Plan:
    """The exit with the best chance to be right less its cost; ties go to the lower depth."""
    scores = kernel_scores(spec, entries, neighbours)
    return np.asarray(kernel_exits(spec, entries))[scores.argmax(axis=1)]


def kernel_scores(
    spec: KernelPolicy, entries: Entries, neighbours: Neighbours
) -> NDArray[np.float64]:
    """Smoothed P(right | neighbours) less the cost, (queries, `kernel_exits`).

    Neighbour i at squared distance d_i weighs w_i = exp(-d_i / (bandwidth mean d)).
    P[e] = (sum_i w_i right_i[e] + smoothing rate[e]) / (sum_i w_i + smoothing), with rate[e] the
    share of the database's rows on which e is right, a query that is one of them left out; score[e]
    = P[e] - cost depth[e] / depths.  Neighbours whose exits were not all read do not count.
    Raises InputError if the database has no exit of the policy's readers.
    """
    positions = kernel_exits(spec, entries)
    nearest = neighbours.first(spec.k)
    rows = np.maximum(nearest.rows, 0)
    read = np.zeros(len(entries), dtype=bool)
    read[entries.complete] = True
    there = (nearest.rows >= 0) & read[rows]
    distances = np.where(there, nearest.distances, 0).astype(np.float64)
    scale = spec.bandwidth * distances.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    weights = np.exp(-distances / np.maximum(scale, 1e-12)[:, None]) * there
    rightness = np.einsum(
        "qk,qke->qe", weights, entries.right[:, positions][rows].astype(np.float64)
    )
    own = neighbours.own
    rates = entries.rates[None] if own is None else entries.rates_without(own)
    chance = (rightness + spec.smoothing * rates[:, positions]) / (
        weights.sum(axis=1, keepdims=True) + spec.smoothing
    )
    share = entries.depths[positions] / max(entries.exits[entries.full].depth, 1)
    return chance - spec.cost * share


def kernel_exits(spec: KernelPolicy, entries: Entries) -> list[int]:
    """Positions of the exits that `kernel` chooses among: its readers', from the key's depth on.

    Raises InputError if there is none.
    """
    positions = [
        i
        for i, e in enumerate(entries.exits)
        if e.reader in spec.readers and e.depth >= entries.key_depth
    ]
    if not positions:
        raise InputError(f"the database has no exit of the readers {listed(spec.readers)}")
    return sorted(positions, key=lambda i: entries.exits[i].depth)


def cascade(spec: Walkway, depth: int, confidence: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Leave if the reader is confident enough.  confidence: (rows,)."""
    return confidence >= spec.threshold_at(depth)


def checkpoints(spec: Walkway, entries: Entries, readers: Sequence[ReaderName]) -> list[int]:
    """Positions of the exits that are asked: the readers' from the first depth to the last.

    Those before the walk are asked first: a row that leaves there is in no batch.  Raises InputError
    if a depth is deeper than the backbone, or there is no such exit.
    """
    deepest = entries.exits[entries.full].depth
    last = deepest if spec.last is None else spec.last
    for name, depth in (("first", spec.first), ("last", last)):
        if depth > deepest:
            raise InputError(
                f"policy.{name} {depth} is deeper than the backbone ({deepest} layers)"
            )
    positions = [
        i
        for i, e in enumerate(entries.exits)
        if e.reader in readers and spec.first <= e.depth <= last
    ]
    if not positions:
        raise InputError(
            f"the database has no exit of the readers {listed(readers)} from depth "
            f"{spec.first} to {last}"
        )
    order = [readers.index(entries.exits[i].reader) for i in positions]
    steps = np.where(entries.before_walk, -1, entries.depths)[positions]
    return [positions[i] for i in np.lexsort((np.array(order), steps))]


@dataclass(frozen=True)
class Planned:
    """A policy that says every row's exit at once."""

    plan: Callable[[Any, Entries, Neighbours], Plan]
    neighbours: Callable[[Any], int] = lambda spec: 0
    """How many neighbours the plan asks for."""
    exits: Callable[[Any, Entries], list[int]] = lambda spec, entries: []
    """Positions of the exits among which a plan on neighbours chooses."""


@dataclass(frozen=True)
class Stepwise:
    """A policy that is asked at each checkpoint whether the row leaves there."""

    leave: Callable[[Any, int, NDArray[np.float32]], NDArray[np.bool_]]
    """`leave(spec, depth, confidence) -> (rows,) bool`."""
    checkpoints: Callable[[Any, Entries], list[int]]
    """Positions of the exits that are asked, in order; at the last one every row leaves."""


def _cascade_checkpoints(spec: CascadePolicy, entries: Entries) -> list[int]:
    return checkpoints(spec, entries, spec.readers)


def _de3_checkpoints(spec: De3Policy, entries: Entries) -> list[int]:
    return checkpoints(spec, entries, (spec.name,))  # the reader of this rule has its name


def _all_heads(spec: RaeePolicy, entries: Entries) -> list[int]:
    return entries.heads


def _k(spec: RaeePolicy | KernelPolicy) -> int:
    return spec.k


POLICIES: dict[str, Planned | Stepwise] = {
    "full": Planned(full),
    "fixed": Planned(fixed),
    "retrieval": Planned(retrieval),
    "raee": Planned(raee, _k, _all_heads),
    "kernel": Planned(kernel, _k, kernel_exits),
    "cascade": Stepwise(cascade, _cascade_checkpoints),
    "de3": Stepwise(cascade, _de3_checkpoints),
}


def neighbours_planned_on(spec: RunnablePolicy) -> int:
    """How many neighbours a policy asks for before it can say where its rows leave; often 0."""
    policy = POLICIES[spec.name]
    return policy.neighbours(spec) if isinstance(policy, Planned) else 0


def exits_used(spec: RunnablePolicy, entries: Entries) -> list[int]:
    """Positions of the exits that a policy may read.

    Raises InputError if the database lacks an exit that the policy names, or has another reader in
    place of one that it names.
    """
    _check_readers(spec, entries)
    policy = POLICIES[spec.name]
    if isinstance(policy, Stepwise):
        return policy.checkpoints(spec, entries)
    if policy.neighbours(spec):
        return policy.exits(spec, entries)
    return [int(policy.plan(spec, entries, NO_NEIGHBOURS)[0])]


def _check_readers(spec: RunnablePolicy, entries: Entries) -> None:
    """Raises InputError if the database has another reader in place of one that a policy names."""
    named: Sequence[str] = ()
    if isinstance(spec, KernelPolicy | CascadePolicy):
        named = spec.readers
    elif isinstance(spec, FixedPolicy | RetrievalPolicy) and spec.exit is not None:
        named = [spec.exit.partition("@")[0]]
    there = {e.reader for e in entries.exits}
    for name in named:
        successor = reader(name).successor if name in READERS else None
        if name not in there and successor in there:
            raise InputError(
                f"policy names the reader {name!r}, which the database has not: {successor!r} has "
                "taken its place; name that instead"
            )


def check_policy(spec: PolicySpec, exits: tuple[Exit, ...]) -> None:
    """Raises InputError where a policy names an exit that there is not."""
    if isinstance(spec, TunedPolicy):
        return
    lists = np.zeros((0, len(exits)))
    no_rows = Entries(
        exits,
        (),
        np.zeros(0, np.uint16),
        lists.astype(np.uint16),
        lists.astype(np.float32),
        np.zeros(0, np.uint64),
    )
    exits_used(spec, no_rows)


def layers_of(
    spec: RunnablePolicy, entries: Entries, exits: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(rows,) backbone layers that rows run to answer at some exits.

    exits: (rows,) positions.  A row whose plan asked its neighbours has run the key's layers, too.
    """
    depths = entries.depths[exits]
    return np.maximum(depths, entries.key_depth) if neighbours_planned_on(spec) else depths
