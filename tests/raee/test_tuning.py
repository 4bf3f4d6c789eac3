"""Tuning finds what is best for the least, and its figures are those of rows it did not search."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.config import CascadePolicy, FixedPolicy, RiskSpec, TunedPolicy
from raee.costs import LAYERS, Costs
from raee.exits import Entries, Exit, Neighbours, exits_of, swept_exits
from raee.objectives import Figures, Point, Tuning
from raee.policies import POLICIES
from raee.replay import Trial, replay
from raee.tuning import Tried, front, halves, try_all, tune

COSTS = Costs(
    encode=1.0,
    layer=10.0,
    reads={"head": 2.0, "vote": 1.0, "probe": 0.1, "probes": 0.1, "de3": 0.2, "logistic": 0.1},
)


def _trial(exits, rows=400, seed=0):
    """Rows of three labels, some harder than others, and exits that mostly know when they guess.

    Deeper exits are right more often: on 60 % of the rows at depth 0, 5 % more a layer.
    """
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, rows).astype(np.uint16)
    size = (rows, len(exits))
    hardness = generator.random((rows, 1)) + 0.1 * generator.normal(size=size)
    margin = np.array([0.6 + 0.05 * e.depth for e in exits]) - hardness
    felt = margin + 0.1 * generator.normal(size=size)
    nearest = generator.integers(0, rows, (rows, 32))
    distances = np.sort(generator.random((rows, 32)), axis=1).astype(np.float32)
    wrong = (label[:, None] + 1) % 3
    entries = Entries(
        exits=exits,
        labels=("a", "b", "c"),
        label=label,
        answers=np.where(margin > 0, label[:, None], wrong).astype(np.uint16),
        confidences=((1 + 2 / (1 + np.exp(-8 * felt))) / 3).astype(np.float32),
    )
    return Trial(entries, np.arange(rows), Neighbours(nearest, distances))


def _with_exit(trial, name, answers, confidences):
    """The trial with other answers at an exit."""
    entries = trial.entries
    place = entries.place_of(name)
    changed = replace(
        entries, answers=entries.answers.copy(), confidences=entries.confidences.copy()
    )
    changed.answers[:, place], changed.confidences[:, place] = answers, confidences
    return replace(trial, entries=changed)


@pytest.fixture(scope="module")
def trial():
    return _trial(exits_of(4, (0, 2)))


@pytest.fixture(scope="module")
def tuning(trial):
    return tune(trial, COSTS, seed=3)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([1.0, 2.0, 2.5, 7.0])),
        min_size=1,
        max_size=25,
    )
)
def test_the_front_is_what_no_other_policy_beats(outcomes):
    right = np.array([[row < hits for row in range(8)] for hits, _ in outcomes])
    seconds = np.array([cost for _, cost in outcomes])
    names = [FixedPolicy(exit=f"probe@{i}") for i in range(len(outcomes))]
    found = front(Tried(names, right, seconds, seconds))
    on_front = [outcomes[i] for i in found]
    beaten = {
        (hits, cost)
        for hits, cost in outcomes
        if any(
            other != (hits, cost) and other[0] >= hits and other[1] <= cost for other in outcomes
        )
    }
    # Of twins one is kept; cheapest first.
    assert on_front == sorted(set(outcomes) - beaten, key=lambda o: o[1])


@pytest.mark.parametrize("rows", [2, 3, 100, 1_001])
def test_halves_share_no_row_and_miss_none(rows):
    here, there = halves(rows, seed=5)
    assert sorted([*here, *there]) == list(range(rows))
    assert abs(len(here) - len(there)) <= 1
    again = halves(rows, seed=5)
    np.testing.assert_array_equal(here, again[0])
    np.testing.assert_array_equal(there, again[1])
    if rows >= 100:
        assert here.tolist() != halves(rows, seed=6)[0].tolist()


def test_figures_are_those_of_replay_on_each_half(trial, tuning):
    here, there = halves(len(trial), seed=3)
    assert (tuning.searched_rows, tuning.checked_rows) == (len(here), len(there))
    full = replay(tuning.full_depth.policy, trial[there], COSTS).answers
    label = trial.label[there]
    for point in [*tuning.front, tuning.full_depth, *tuning.families.values()]:
        for half, said in ((here, point.searched), (there, point.checked)):
            done = replay(point.policy, trial[half], COSTS)
            assert said.accuracy == np.mean(done.answers == trial.label[half])
            assert said.mean_layers == pytest.approx(done.layers.mean())
            assert said.seconds_per_row == pytest.approx(done.seconds.mean())
        answers = replay(point.policy, trial[there], COSTS).answers
        rows = range(len(there))
        assert point.lost == sum(full[i] == label[i] != answers[i] for i in rows)
        assert point.gained == sum(full[i] != label[i] == answers[i] for i in rows)


def test_the_front_goes_up_on_the_searched_rows(tuning):
    for low, high in zip(tuning.front, tuning.front[1:], strict=False):
        assert low.searched.seconds_per_row < high.searched.seconds_per_row
        assert low.searched.accuracy < high.searched.accuracy
    assert 3 < len(tuning.front) <= 40


def test_full_depth_is_the_best_exit_there(trial, tuning):
    deepest = [e for e in trial.entries.exits if e.depth == 4 and e.reader != "de3"]
    rates = {str(e): trial.entries.rates[trial.entries.place_of(str(e))] for e in deepest}
    assert tuning.full_depth.policy == FixedPolicy(exit=max(rates, key=lambda name: rates[name]))
    assert (tuning.full_depth.lost, tuning.full_depth.gained) == (0, 0)


def test_every_policy_has_its_best(tuning):
    assert set(tuning.families) == set(POLICIES)
    assert all(point.policy.name == name for name, point in tuning.families.items())


def test_the_pick_beats_full_depth_where_rows_differ_in_difficulty(tuning):
    picked = tuning.pick(TunedPolicy())
    assert picked.checked.seconds_per_row < 0.8 * tuning.full_depth.checked.seconds_per_row
    assert picked.checked.accuracy > tuning.full_depth.checked.accuracy - 0.02
    promised = tuning.pick(TunedPolicy(risk=RiskSpec(max_loss=0.1)))
    assert promised.checked.seconds_per_row < tuning.full_depth.checked.seconds_per_row


def test_a_key_is_worth_its_place_if_its_vote_is(trial):
    rows = len(trial)
    generator = np.random.default_rng(1)
    for knowing, guessing in (("vote@0", "vote@2"), ("vote@2", "vote@0")):
        told = _with_exit(trial, knowing, trial.label, np.float32(0.999))
        noise = generator.integers(0, 3, rows), generator.random(rows)
        tuning = tune(_with_exit(told, guessing, *noise), COSTS)
        assert tuning.keys[knowing].worth_keeping
        assert not tuning.keys[guessing].worth_keeping
        assert tuning.keys[knowing].accuracy_without < 0.95
        assert tuning.keys[guessing].accuracy_without > 0.98
        assert tuning.pick(TunedPolicy()).checked.accuracy > 0.98


def test_a_key_that_makes_rows_cheaper_is_worth_its_place(trial):
    # The last probe is always right, too: the vote only says so four layers earlier.
    for reader in ("probe@4", "vote@0"):
        trial = _with_exit(trial, reader, trial.label, np.float32(0.999))
    worth = tune(trial, COSTS).keys["vote@0"]
    assert worth.accuracy_without > 0.95
    assert worth.seconds_without > COSTS.encode + COSTS.layer
    assert worth.worth_keeping


def test_the_same_seed_finds_the_same(trial, tuning):
    assert tune(trial, COSTS, seed=3) == tuning
    assert tune(trial, COSTS, seed=4).front != tuning.front


def test_a_tuning_comes_back_from_json_as_it_was(trial, tuning):
    by_depth = CascadePolicy(last=4, threshold=(0.9, 1 - 2.0**-4.5, 0.7, 0.6, 1.0))
    figures = Figures(accuracy=1 / 3, mean_layers=0.1, seconds_per_row=1e-7)
    point = Point(policy=by_depth, searched=figures, checked=figures, lost=1, gained=2)
    tuning = tuning.model_copy(update={"front": [*tuning.front, point]})
    back = Tuning.model_validate_json(tuning.model_dump_json())
    assert back == tuning
    assert back.front[-1].policy.threshold == by_depth.threshold
    np.testing.assert_array_equal(
        replay(back.front[-1].policy, trial).exits, replay(by_depth, trial).exits
    )


def test_thresholds_are_searched_depth_by_depth():
    # Sure answers are right at depths 0 and 2; at depth 1 only the very surest ones are.
    trial = _trial(exits_of(3, (0,)), rows=600)
    generator = np.random.default_rng(0)
    wrong = (trial.label + 1) % 3
    for depth in range(4):
        sure = generator.random(600).astype(np.float32)
        needed = (0.5, 0.97, 0.5, 0.0)[depth]
        answers = np.where(sure >= needed, trial.label, wrong)
        trial = _with_exit(trial, f"probe@{depth}", answers, sure)
    tuning = tune(trial, COSTS)
    thresholds = [p.policy.threshold for p in tuning.front if p.policy.name == "cascade"]
    by_depth = [t for t in thresholds if isinstance(t, tuple) and len(t) > 2]
    assert any(t[1] > max(t[0], t[2]) for t in by_depth)


def test_a_deep_model_does_not_multiply_the_policies():
    deep = tune(_trial(exits_of(24, (0, 6)), rows=40), COSTS)
    assert 1_000 < deep.tried < 6_000
    assert {p.policy.first for p in deep.front if p.policy.name == "cascade"} <= set(range(25))


def test_a_version_without_probes_is_tuned_on_heads_and_votes():
    tuning = tune(_trial(swept_exits(3, (1,)), rows=80), LAYERS)
    assert set(tuning.families) == set(POLICIES) - {"de3"}
    assert tuning.full_depth.policy == FixedPolicy(exit="head@3")


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_very_few_rows_are_tuned_too(rows):
    tuning = tune(_trial(exits_of(2, (0,)), rows=rows), COSTS)
    assert set(tuning.families) == set(POLICIES)
    assert tuning.pick(TunedPolicy()).policy in [p.policy for p in tuning.front]
    assert tuning.pick(TunedPolicy(risk=RiskSpec(max_loss=0.1))) == tuning.full_depth


def test_trying_says_of_each_row_whether_it_is_right(trial):
    policies = [FixedPolicy(exit="probe@2"), CascadePolicy(threshold=0.7)]
    tried = try_all(policies, trial, COSTS)
    right = trial.entries.right[:, trial.entries.exits.index(Exit("probe", 2))]
    np.testing.assert_array_equal(tried.right[0], right)
    assert tried.accuracy[0] == right.mean()
    assert tried.seconds[0] == pytest.approx(1.0 + 2 * 10.0 + 0.1)
    (second,) = tried[[1]].policies
    assert second == policies[1]
