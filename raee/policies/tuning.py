"""Tuning: finds the policies that answer a database's rows best for the least.

Policies are tried on all rows by replay, each row without its text; no other text is seen.  Tuning
keeps the Pareto front, accuracy against modelled seconds, from which an objective picks
(`raee.policies.objectives`), and for each pick the cross-fitted figures (`raee.policies.choosing`),
which are what unseen texts get.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

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
)
from raee.exits import Entries
from raee.policies.choosing import FOLDS, Rule, cheapest_with, cross_fitted, try_all, worth
from raee.policies.costs import Costs
from raee.policies.objectives import (
    Figures,
    KeyWorth,
    Point,
    Promise,
    Step,
    Tuning,
    half_standard_error,
    rule_of,
)
from raee.policies.replay import Replayed, Trial
from raee.policies.table import POLICIES, exits_used, neighbours_planned_on
from raee.readers.de3 import READER as DE3
from raee.readers.head import READER as HEAD
from raee.readers.pool import READER as POOL
from raee.readers.probe import READER as PROBE
from raee.readers.probes import READER as PROBES
from raee.readers.vote import READER as VOTE
from raee.readers.words import READER as WORDS
from raee.statistics.paired import better_beyond_noise, paired

NEIGHBOURS = 32
"""Neighbours of each row that a search needs at most."""

_WIDE = ((0, 1 / 2), (0, 2 / 3), (0, 5 / 6), (0, 1), (1 / 3, 1), (1 / 6, 1 / 2))
_FEW = ((0, 2 / 3), (0, 1))
"""First and last depths of cascades, as shares of the layers."""

_CASCADES: dict[tuple[ReaderName, ...], tuple[tuple[float, float], ...]] = {
    (PROBE.name,): _WIDE,
    (POOL.name,): _FEW,
    (WORDS.name, POOL.name): _FEW,
    (PROBES.name,): _WIDE,
    (VOTE.name, PROBES.name): _WIDE,
}
"""By readers that are asked together, the stretches of depths at which they are.

Databases have pools or, if they are older, averages of probes.
"""

_BEYOND_A_GUESS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.96, 0.98, 0.99)
"""Confidences that are enough, as shares of the way from a guess to certainty: with two labels from
0.55, with five from 0.28.  A few hundred policies find what thousands find, and their figures on
the rows that picked them are less too high (BENCHMARKS.md, what a price buys)."""

_PROMISED = tuple(1 - 2.0 ** (-i / 2) for i in range(24, 0, -1))
"""Thresholds of the policies that a promise is tried for, from the surest down."""

_BEST_AT_ALL = ("fixed", "retrieval")
"""Policies whose name means the most accurate of their kind, whatever it costs."""

TUNED, FULL_DEPTH = "tuned", "best at full depth"


@dataclass(frozen=True)
class Study:
    """A tuning, with what its picks did row by row."""

    tuning: Tuning
    picked: Point
    """What the objective picks; if no policy reaches its target, what comes nearest."""
    done: dict[str, Replayed]
    """By policy name, with `tuned` and the best at full depth: what the picks did, cross-fitted."""


def candidates(entries: Entries) -> Iterator[RunnablePolicy]:
    """The policies that are tried on a database with such entries."""
    yield FullPolicy()
    answering = [entries.exits[i] for i in entries.answering]
    yield from (FixedPolicy(exit=str(e)) for e in answering)
    yield from (RetrievalPolicy(exit=str(entries.exits[i])) for i in entries.votes)
    for threshold, top in product((0.5, 0.9), (1, 3)):
        yield RaeePolicy(threshold=threshold, top=top)
    readers: tuple[ReaderName, ...] = (HEAD.name, VOTE.name, PROBE.name)
    for k, bandwidth, cost in product((12, 32), (0.5, 2.0), (0.05, 0.2)):
        yield KernelPolicy(k=k, bandwidth=bandwidth, cost=cost, readers=readers)
    deepest = entries.exits[entries.full].depth
    guess = 1 / len(entries.labels)
    # A single label leaves nothing to be surer of.
    thresholds = [round(guess + beyond * (1 - guess), 3) for beyond in _BEYOND_A_GUESS if guess < 1]
    if entries.positions(DE3.name):
        yield from (De3Policy(threshold=threshold) for threshold in thresholds)
    there = {e.reader for e in entries.exits}
    for names, shares in _CASCADES.items():
        at = {entries.exits[i].depth for name in names for i in entries.positions(name)}
        stretches = {(round(first * deepest), round(last * deepest)) for first, last in shares}
        for first, last in sorted(stretches) if {*names} <= there else ():
            if any(first <= depth <= last for depth in at):
                for threshold in thresholds:
                    yield CascadePolicy(readers=names, first=first, last=last, threshold=threshold)
    yield from (CascadePolicy(readers=(HEAD.name,), threshold=t) for t in thresholds)


def may_be_picked(policy: RunnablePolicy, entries: Entries) -> bool:
    """Whether `tuned` may mean a policy: pools, n-grams and single exits at full depth.

    Nothing that was tried beside pools is right more often, and the fewer there are to choose from,
    the less a choice owes to luck (BENCHMARKS.md, what a price buys).  In a database without pools
    all may be picked.
    """
    if not entries.positions(POOL.name):
        return True
    if isinstance(policy, FixedPolicy):
        exit = entries.exits[entries.position_of(str(policy.exit))]
        return exit.reader in (WORDS.name, POOL.name) or exit.depth == max(entries.depths)
    return isinstance(policy, CascadePolicy) and POOL.name in policy.readers


def neighbours_needed(spec: PolicySpec) -> int:
    """Neighbours by the first key that a database lists for each of its rows.

    The votes, its own policy and the search over policies ask for no more.
    """
    return max(NEIGHBOURS, 0 if isinstance(spec, TunedPolicy) else neighbours_planned_on(spec))


def study(
    trial: Trial, costs: Costs, objective: TunedPolicy, seed: int = 0, barred: str | None = None
) -> Study:
    """Try policies on a trial's rows, and pick for an objective and by kind.

    seed: of the folds.  barred: why nothing can be promised on these rows.  A target that no policy
    reaches is met as nearly as can be; `Tuning.pick` refuses it.
    """
    entries = trial.entries
    texts = trial.texts
    fold = texts.folds(min(FOLDS, len(texts)), seed) if len(texts) else np.zeros(0, np.int64)
    tried = try_all(candidates(entries), trial, costs)
    position = {policy: i for i, policy in enumerate(tried.policies)}
    at_full = [position[FixedPolicy(exit=str(entries.exits[i]))] for i in entries.at_full_depth]
    full = at_full[worth(0, 1)(tried[at_full].means())]
    full_seconds = float(tried.means().seconds[full])
    done: dict[str, Replayed] = {}

    def point(some: Sequence[int], rule: Rule, name: str | None = None) -> Point:
        """What a rule picks among some of the policies."""
        among = tried if len(some) == len(tried.policies) else tried[some]
        picked = cross_fitted(among, rule, fold)
        if name is not None:
            done[name] = picked
        chosen = rule(among.means())
        return Point(
            policy=among.policies[chosen],
            fitted=_figures(among.done(chosen), trial),
            cross_fitted=_figures(picked, trial),
        )

    everything = range(len(tried.policies))
    pickable = [i for i in everything if may_be_picked(tried.policies[i], entries)]
    means = tried[pickable].means()
    full_depth = point(at_full, worth(0, 1), FULL_DEPTH)
    priced = worth(objective.price, full_seconds)
    families = {}
    for name in POLICIES:
        own = [i for i in everything if tried.policies[i].name == name]
        if own:
            families[name] = point(own, worth(0, 1) if name in _BEST_AT_ALL else priced, name)
    promise = _promise(trial, costs, barred)
    if objective.risk is None:
        best = point(pickable, rule_of(objective, full_seconds, pickable.index(full)), TUNED)
    else:
        held = promise.certified(objective.risk)
        best = Point(policy=held.policy, fitted=held.figures, cross_fitted=held.figures)
        done[TUNED] = try_all([held.policy], trial, costs).done(0)
    points = []
    for i in front(means.accuracy, means.seconds):
        here = point(pickable, cheapest_with(float(means.accuracy[i])))
        points.append(best if here.policy == best.policy else here)
    default = point(pickable, priced)
    uses = {i: _uses(tried.policies[i], entries, costs) for i in pickable}
    keys = {
        str(entries.exits[vote]): _key_worth(
            default,
            point([i for i in pickable if vote not in uses[i]], priced),
            len(texts),
        )
        for vote in entries.votes
    }
    tuning = Tuning(
        seed=seed,
        tried=len(tried.policies),
        rows=len(trial),
        texts=len(texts),
        full_depth=full_depth,
        front=points,
        families=families,
        keys=keys,
        promise=promise,
    )
    return Study(tuning, best, done)


def front(accuracy: NDArray[np.float64], seconds: NDArray[np.float64]) -> list[int]:
    """Positions of the policies that no cheaper one beats, cheapest first.

    accuracy, seconds: (policies,).
    """
    found, best = [], -1.0
    for i in np.lexsort((-accuracy, seconds)):
        if accuracy[i] > best:
            found.append(int(i))
            best = accuracy[i]
    return found


def promise_baseline(trial: Trial) -> int:
    """Position of the exit at full depth that a promise is against.

    It is fixed before the tests: the pool, the average of the probes if there is none, or the head;
    unless another one is right more often beyond noise.  Such a choice can only count more losses.
    """
    entries, once = trial.entries, trial.texts.first_rows
    at_full = entries.at_full_depth
    by_reader = {entries.exits[i].reader: i for i in at_full}
    chosen = by_reader.get(POOL.name, by_reader.get(PROBES.name, entries.full))
    right = entries.right[trial.rows[once]]
    level = 0.05 / max(len(at_full) - 1, 1)
    better = [i for i in at_full if better_beyond_noise(right[:, i], right[:, chosen], level)]
    return entries.best(better) if better else chosen


def _promise(trial: Trial, costs: Costs, barred: str | None) -> Promise:
    """The baseline's own cascades, from the surest threshold down, on all texts."""
    entries, once = trial.entries, trial.texts.first_rows
    baseline = entries.exits[promise_baseline(trial)]
    policies: list[RunnablePolicy] = [FixedPolicy(exit=str(baseline))]
    if len(entries.positions(baseline.reader)) > 1:
        policies += [
            CascadePolicy(readers=(baseline.reader,), threshold=threshold)
            for threshold in _PROMISED
            if threshold > 1 / len(entries.labels)
        ]
    tried = try_all(policies, trial, costs)
    full = tried.right[0, once]
    steps = []
    for i, policy in enumerate(policies):
        found = paired(tried.right[i, once], full)
        figures = _figures(tried.done(i), trial)
        steps.append(Step(policy=policy, figures=figures, lost=found.losses, gained=found.wins))
    return Promise(baseline=steps[0], steps=steps[1:], texts=len(once), barred=barred)


def _key_worth(best: Point, without: Point, texts: int) -> KeyWorth:
    ours, other = best.cross_fitted, without.cross_fitted
    return KeyWorth(
        accuracy_without=other.accuracy,
        seconds_without=other.seconds_per_row,
        worth_keeping=(
            other.accuracy < ours.accuracy - half_standard_error(ours.accuracy, texts)
            or other.seconds_per_row > 1.02 * ours.seconds_per_row
        ),
    )


def _figures(done: Replayed, trial: Trial) -> Figures:
    return Figures(
        accuracy=float((done.answers == trial.label).mean()),
        mean_layers=float(done.layers.mean()),
        seconds_per_row=float(done.seconds.mean()),
    )


def _uses(policy: RunnablePolicy, entries: Entries, costs: Costs) -> set[int]:
    """Positions of the exits that a policy may read, and of the votes whose neighbours it asks."""
    asked = entries.votes[:1] if neighbours_planned_on(policy) else []
    used = exits_used(policy, entries)
    within = {name for i in used for name in costs.once.get(entries.exits[i].reader, [])}
    return {*used, *asked, *(entries.votes if VOTE.name in within else [])}
