"""Tuning: of many policies those that answer a database's rows best for the least.

Policies are searched on one half of the rows and checked on the other, by replay; no other text
is seen.  What is kept is the Pareto front, accuracy against modelled seconds, from which an
objective picks (`raee.objectives`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from raee.config import (
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    RaeePolicy,
    ReaderName,
    RetrievalPolicy,
    RunnablePolicy,
    TunedPolicy,
)
from raee.costs import Costs
from raee.exits import Entries
from raee.objectives import Figures, KeyWorth, Point, Tuning, half_standard_error, pick
from raee.policies import POLICIES, exits_used, neighbours_planned_on
from raee.replay import Trial, replay

T = TypeVar("T")

NEIGHBOURS = 32
"""Neighbours of each row that a search needs at most."""

_CASCADES: tuple[tuple[ReaderName, ...], ...] = (
    ("probe",),
    ("probes",),
    ("head",),
    ("vote",),
    ("vote", "probe"),
)
_THRESHOLDS = tuple(1 - 2.0 ** (-i / 2) for i in range(1, 20))
"""Confidences that are enough: .29 to .999, denser where readers are sure."""

_CHECKPOINTS = 8
"""First and last depths tried, of a deep model evenly spread."""

_REFINED = 8
"""Cascades on the front whose thresholds are searched depth by depth."""

_FRONT = 40
"""Points of the front that are kept, evenly spread."""


@dataclass(frozen=True)
class Tried:
    """What policies did with some rows."""

    policies: list[RunnablePolicy]
    right: NDArray[np.bool_]
    """(policies, rows)."""
    seconds: NDArray[np.float64]
    """(policies,) mean of a row."""
    layers: NDArray[np.float64]
    """(policies,) mean of a row."""

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(policies,)."""
        return self.right.mean(axis=1)

    def __getitem__(self, some: Sequence[int]) -> "Tried":
        return Tried(
            [self.policies[i] for i in some],
            self.right[some],
            self.seconds[some],
            self.layers[some],
        )


def halves(rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves of so many rows, in no order: to search on, and to check on."""
    if rows < 2:  # nothing can be kept for checking
        return np.arange(rows), np.arange(rows)
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[: rows // 2]), np.sort(order[rows // 2 :])


def try_all(policies: Iterable[RunnablePolicy], trial: Trial, costs: Costs) -> Tried:
    """Replay policies on a trial."""
    kept = list(policies)
    right = np.zeros((len(kept), len(trial)), dtype=bool)
    seconds, layers = np.zeros(len(kept)), np.zeros(len(kept))
    label = trial.label
    for i, policy in enumerate(kept):
        done = replay(policy, trial, costs)
        right[i] = done.answers == label
        seconds[i], layers[i] = done.seconds.mean(), done.layers.mean()
    return Tried(kept, right, seconds, layers)


def candidates(entries: Entries) -> Iterator[RunnablePolicy]:
    """The policies that a search tries first."""
    yield FullPolicy()
    answering = [e for e in entries.exits if e.reader != "de3"]
    yield from (FixedPolicy(exit=str(e)) for e in answering)
    yield from (RetrievalPolicy(exit=str(entries.exits[i])) for i in entries.places("vote"))
    for k, threshold, top in product((4, 12, 32), (0.5, 0.7, 0.9), (1, 3)):
        yield RaeePolicy(k=k, threshold=threshold, top=top)
    readers: tuple[ReaderName, ...] = ("head", "vote", "probe")
    for k, bandwidth, cost in product((12, 32), (0.5, 2.0), (0.02, 0.05, 0.1, 0.2, 0.4)):
        yield KernelPolicy(k=k, bandwidth=bandwidth, cost=cost, readers=readers)
    depths = _spread(entries.exits[entries.full].depth)
    ways = [(first, last) for first in depths for last in depths if first <= last]
    if entries.places("de3"):
        for (first, last), threshold in product(ways, _THRESHOLDS):
            yield De3Policy(first=first, last=last, threshold=threshold)
    for names in _CASCADES:
        at = {entries.exits[i].depth for name in names for i in entries.places(name)}
        for first, last in ways:
            if not any(first <= depth <= last for depth in at):
                continue
            for threshold in _THRESHOLDS:
                yield CascadePolicy(readers=names, first=first, last=last, threshold=threshold)


def tune(trial: Trial, costs: Costs, seed: int = 0) -> Tuning:
    """Search policies on one half of a trial's rows and check the best on the other.

    The figures of a point are those of the half it is named after; `checked` ones are honest where
    few points were checked, and an objective looks at nothing else.
    """
    here, there = (trial[half] for half in halves(len(trial), seed))
    entries = trial.entries
    tried = try_all(candidates(entries), here, costs)
    refined = [
        better
        for policy in _spread_over([tried.policies[i] for i in front(tried)], _REFINED)
        if isinstance(policy, CascadePolicy)
        for better in _by_depth(policy, entries)
    ]
    tried = _together(tried, try_all(refined, here, costs))
    baseline = FixedPolicy(exit=str(entries.exits[entries.best_at_full_depth]))
    full = try_all([baseline], there, costs)
    full_depth = _point(try_all([baseline], here, costs), full, 0, full.right[0])

    def points(places: Sequence[int]) -> list[Point]:
        found = tried[_spread_over(places, _FRONT)]
        checked = try_all(found.policies, there, costs)
        return [_point(found, checked, i, full.right[0]) for i in range(len(found.policies))]

    def chosen(found: list[Point]) -> Point:
        return pick(found, full_depth, len(there), TunedPolicy())

    whole = points(front(tried))
    families = {}
    for name in POLICIES:
        own = [i for i, p in enumerate(tried.policies) if p.name == name]
        if own:
            families[name] = chosen(points([own[i] for i in front(tried[own])]))
    best = chosen(whole)
    keys = {}
    for vote in entries.places("vote"):
        others = [i for i, p in enumerate(tried.policies) if vote not in _uses(p, entries)]
        without = chosen(points([others[i] for i in front(tried[others])]))
        keys[str(entries.exits[vote])] = KeyWorth(
            accuracy_without=without.checked.accuracy,
            seconds_without=without.checked.seconds_per_row,
            worth_keeping=(
                without.checked.accuracy
                < best.checked.accuracy - half_standard_error(best.checked.accuracy, len(there))
                or without.checked.seconds_per_row > 1.02 * best.checked.seconds_per_row
            ),
        )
    return Tuning(
        seed=seed,
        tried=len(tried.policies),
        searched_rows=len(here),
        checked_rows=len(there),
        full_depth=full_depth,
        front=whole,
        families=families,
        keys=keys,
    )


def front(tried: Tried) -> list[int]:
    """Places of the policies that no cheaper one beats, cheapest first."""
    accuracy = tried.accuracy
    found, best = [], -1.0
    for i in np.lexsort((-accuracy, tried.seconds)):
        if accuracy[i] > best:
            found.append(int(i))
            best = accuracy[i]
    return found


def _point(searched: Tried, checked: Tried, i: int, full: NDArray[np.bool_]) -> Point:
    return Point(
        policy=searched.policies[i],
        searched=_figures(searched, i),
        checked=_figures(checked, i),
        lost=int((full & ~checked.right[i]).sum()),
        gained=int((checked.right[i] & ~full).sum()),
    )


def _figures(tried: Tried, i: int) -> Figures:
    return Figures(
        accuracy=float(tried.accuracy[i]),
        mean_layers=float(tried.layers[i]),
        seconds_per_row=float(tried.seconds[i]),
    )


def _together(some: Tried, more: Tried) -> Tried:
    return Tried(
        some.policies + more.policies,
        np.concatenate([some.right, more.right]),
        np.concatenate([some.seconds, more.seconds]),
        np.concatenate([some.layers, more.layers]),
    )


def _by_depth(policy: CascadePolicy, entries: Entries) -> Iterator[CascadePolicy]:
    """A cascade with another threshold at one of its depths."""
    last = entries.exits[entries.full].depth if policy.last is None else policy.last
    now = [policy.threshold_at(depth) for depth in range(policy.first, last + 1)]
    for i, threshold in product(range(len(now) - 1), _THRESHOLDS[::3]):
        changed = (*now[:i], threshold, *now[i + 1 :])
        yield policy.model_copy(update={"last": last, "threshold": changed})


def _uses(policy: RunnablePolicy, entries: Entries) -> set[int]:
    """Places of the exits that a policy may read, and of the vote whose neighbours it asks."""
    asked = entries.places("vote")[:1] if neighbours_planned_on(policy) else []
    return {*exits_used(policy, entries), *asked}


def _spread(deepest: int) -> list[int]:
    """Depths from 0 to the deepest; of a deep model some, evenly spread."""
    spread = np.linspace(0, deepest, min(deepest + 1, _CHECKPOINTS))
    return spread.round().astype(int).tolist()


def _spread_over(items: Sequence[T], most: int) -> list[T]:
    """At most so many of some items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]
