"""What a row costs follows from a table: a loop over rows that pays for each part says the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.answers import Neighbours
from raee.config import (
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.exits import Entries, Exit, exits_of
from raee.policies.costs import LAYERS, Costs
from raee.policies.replay import Trial, replay
from raee.policies.table import NO_NEIGHBOURS, POLICIES, Planned

READS = {
    "head": 2.0,
    "vote": 3.0,
    "probe": 0.5,
    "de3": 0.75,
    "logistic": 0.125,
    "words": 0.0625,
    "pool": 0.25,
}
ONCE = {"pool": ["words", "vote"]}
COSTS = Costs(encode=5.0, layer=10.0, reads=READS, retriever=40.0, enter=20.0, once=ONCE)
"""Every sum of its parts is exact."""


def _trial(depth, key_depths, seed, rows=24, k=5):
    """Entries of random answers, and a trial of some of their rows in no order."""
    generator = np.random.default_rng(seed)
    exits = exits_of(depth, key_depths)
    size = (rows, len(exits))
    entries = Entries(
        exits=exits,
        labels=("a", "b", "c"),
        label=generator.integers(0, 3, rows).astype(np.uint16),
        answers=generator.integers(0, 3, size).astype(np.uint16),
        confidences=generator.random(size).astype(np.float32),
        hashes=np.arange(rows, dtype=np.uint64),
    )
    distances = np.sort(generator.random((rows, k)).astype(np.float32), axis=1)
    neighbours = Neighbours(generator.integers(0, rows, (rows, k)), distances)
    some = generator.permutation(rows)[:15]
    return Trial(entries, some, neighbours[some])


def _straight(spec, trial, costs):
    """(exits, seconds) of each row, by a walk up its depths that pays for what it does."""
    entries, policy = trial.entries, POLICIES[spec.name]
    first_vote = next(i for i, e in enumerate(entries.exits) if e.reader == "vote")
    exits, seconds = [], []
    for place, row in enumerate(trial.rows):
        if isinstance(policy, Planned):
            asks = policy.neighbours(spec) > 0
            own = trial.neighbours[place : place + 1] if asks else NO_NEIGHBOURS
            leaves = int(policy.plan(spec, entries, own)[0])
            read, ran = [leaves], entries.exits[leaves].depth
            if asks:
                key = entries.exits[first_vote].depth
                ran = max(ran, key)
                way = [i for i in policy.exits(spec, entries) if entries.exits[i].depth < key]
                read = [*dict.fromkeys([first_vote, *way, leaves])]
        else:
            asked = policy.checkpoints(spec, entries)
            read = []
            for leaves in asked:
                read.append(leaves)
                depth = entries.exits[leaves].depth
                if policy.leave(spec, depth, entries.confidences[[row], leaves])[0]:
                    break
            ran = entries.exits[leaves].depth
        exits.append(leaves)
        seconds.append(costs.encode + ran * costs.layer + _paid(read, entries, costs))
    return exits, seconds


def _paid(read, entries, costs):
    """Seconds of some readings, in order, of which all but the n-grams need a batch.

    A pool needs what it reads at every depth up to its own, once, and others once, unless a row has
    asked them before.
    """
    seconds, pooled, asked = 0.0, set(), []
    for exit in (entries.exits[i] for i in read):
        if exit.reader == "pool":
            if not pooled:
                seconds += sum(costs.reads[n] for n in costs.once["pool"] if n not in asked)
            pooled |= set(range(exit.depth + 1))
        else:
            seconds += costs.reads[exit.reader]
        if exit.reader == "vote":
            seconds += costs.retriever
        asked.append(exit.reader)
    if {*asked} != {"words"}:
        seconds += costs.enter
    return seconds + len(pooled) * costs.reads["pool"]


POLICIES_TRIED = (
    FullPolicy(),
    FixedPolicy(),
    FixedPolicy(exit="pool@2"),
    FixedPolicy(exit="logistic@4"),
    RetrievalPolicy(),
    RaeePolicy(k=3, threshold=0.5),
    KernelPolicy(k=4, cost=0.3),
    KernelPolicy(k=4, cost=0.05, readers=("vote", "pool")),
    CascadePolicy(threshold=0.6),
    CascadePolicy(readers=("head",), threshold=0.7, first=1, last=3),
    FixedPolicy(exit="words@0"),
    CascadePolicy(readers=("pool",), threshold=0.7, first=1),
    CascadePolicy(readers=("words", "pool"), threshold=0.7),
    CascadePolicy(readers=("words", "head"), threshold=0.7),
    KernelPolicy(k=4, cost=0.05, readers=("words", "probe")),
    CascadePolicy(readers=("vote", "probe"), threshold=0.8),
    CascadePolicy(readers=("vote", "pool", "head"), threshold=(0.9, 0.8, 0.6), last=2),
    De3Policy(threshold=0.8),
)


@pytest.mark.parametrize("spec", POLICIES_TRIED, ids=str)
@pytest.mark.parametrize("key_depths", [(0,), (2,), (0, 3), (1, 2, 4)], ids=str)
def test_replay_pays_what_a_walk_of_every_row_pays(spec, key_depths):
    for seed in range(3):
        trial = _trial(4, key_depths, seed)
        done = replay(spec, trial, COSTS)
        exits, seconds = _straight(spec, trial, COSTS)
        assert done.exits.tolist() == exits
        assert done.seconds.tolist() == seconds
        assert done.answers.tolist() == [
            trial.entries.answers[row, exit] for row, exit in zip(trial.rows, exits, strict=True)
        ]


def test_the_search_of_a_plan_is_paid_once_whoever_answers():
    entries = Entries(
        exits=exits_of(2, (1,)),
        labels=("a", "b"),
        label=np.zeros(2, np.uint16),
        answers=np.zeros((2, len(exits_of(2, (1,)))), np.uint16),
        confidences=np.ones((2, len(exits_of(2, (1,)))), np.float32),
        hashes=np.arange(2, dtype=np.uint64),
    )
    trial = Trial(entries, np.arange(2), Neighbours(np.array([[1], [0]]), np.ones((2, 1))))
    vote_wins = KernelPolicy(readers=("vote",))
    probe_wins = KernelPolicy(readers=("probe",), cost=1.0)
    searched = COSTS.encode + COSTS.enter + COSTS.layer + READS["vote"] + COSTS.retriever
    assert replay(vote_wins, trial, COSTS).seconds.tolist() == [searched] * 2
    assert replay(probe_wins, trial, COSTS).seconds.tolist() == [searched + READS["probe"]] * 2
    assert replay(RetrievalPolicy(), trial, COSTS).seconds.tolist() == [searched] * 2


def test_rows_that_leave_on_the_way_to_the_key_pay_for_its_heads_once():
    trial = _trial(2, (2,), seed=0)
    done = replay(RaeePolicy(k=3), trial, COSTS)
    assert set(done.exits.tolist()) <= {0, 1, 2}
    before_key = done.exits < 2
    assert before_key.any()
    assert not before_key.all()
    search = READS["vote"] + COSTS.retriever
    entered = COSTS.encode + COSTS.enter
    all_but_last_head = entered + 2 * COSTS.layer + search + 2 * READS["head"]
    np.testing.assert_array_equal(
        done.seconds, np.where(before_key, all_but_last_head, all_but_last_head + READS["head"])
    )


@settings(max_examples=50)
@given(st.sets(st.integers(0, 6), min_size=1), st.sets(st.integers(0, 6)))
def test_a_pool_pays_for_each_depth_once_and_nobody_pays_for_anothers(pooled, alone):
    exits = exits_of(6, (0,))
    nothing = np.zeros((0, 0))
    entries = Entries(
        exits, ("a",), np.zeros(0, np.uint16), nothing, nothing, np.zeros(0, np.uint64)
    )
    asked = sorted(
        [*(Exit("pool", depth) for depth in pooled), *(Exit("probe", d) for d in alone)],
        key=lambda e: (e.depth, e.reader),
    )
    found = COSTS.asked([exits.index(e) for e in asked], entries)
    for i in range(len(asked)):
        read = [exits.index(e) for e in asked[: i + 1]]
        assert found[i] == _paid(read, entries, COSTS)


def test_without_a_table_a_row_costs_the_layers_that_it_runs():
    trial = _trial(4, (1,), seed=1)
    for spec in POLICIES_TRIED:
        done = replay(spec, trial, LAYERS)
        np.testing.assert_array_equal(done.seconds, done.layers)


def test_a_reader_that_the_table_lacks_is_free():
    costs = Costs(encode=1.0, layer=2.0, reads={"head": 4.0})
    assert costs.read(Exit("probe", 3)) == 0
    assert costs.read(Exit("pool", 3)) == 0
    assert costs.read(Exit("head", 3)) == 4
    assert costs.walked(np.array([0, 3])).tolist() == [1, 7]
