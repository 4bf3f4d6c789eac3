"""Tuning finds what is best for the least, and says what that is worth on other rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.answers import Neighbours
from raee.config import CascadePolicy, FixedPolicy, RiskSpec, TunedPolicy
from raee.exits import Entries, Exit, exits_of, swept_exits
from raee.policies.costs import LAYERS, Costs
from raee.policies.objectives import Figures, Point, Tuning
from raee.policies.replay import Trial, replay
from raee.policies.table import POLICIES
from raee.policies.tuning import TUNED, candidates, front, promise_baseline, study

COSTS = Costs(
    encode=1.0,
    layer=10.0,
    reads={"head": 2.0, "vote": 1.0, "probe": 0.1, "pool": 0.1, "de3": 0.2, "logistic": 0.1},
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
        hashes=np.arange(rows, dtype=np.uint64),
    )
    return Trial(entries, np.arange(rows), Neighbours(nearest, distances))


def _with_exit(trial, name, answers, confidences):
    """The trial with other answers at an exit."""
    entries = trial.entries
    place = entries.position_of(name)
    changed = replace(
        entries, answers=entries.answers.copy(), confidences=entries.confidences.copy()
    )
    changed.answers[:, place], changed.confidences[:, place] = answers, confidences
    return replace(trial, entries=changed)


def _older(depth, key_depths):
    """The exits of a database from before there were n-grams and pools."""
    kept = [e for e in exits_of(depth, key_depths) if e.reader not in ("words", "pool")]
    return (*kept, *(Exit("probes", d) for d in range(depth + 1)))


@pytest.fixture(scope="module")
def trial():
    return _trial(exits_of(4, (0, 2)))


def _tuned(trial, costs=COSTS, seed=3, **changed):
    return study(trial, costs, TunedPolicy(**changed), seed).tuning


@pytest.fixture(scope="module")
def found(trial):
    return study(trial, COSTS, TunedPolicy(), seed=3)


@pytest.fixture(scope="module")
def tuning(found):
    return found.tuning


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([1.0, 2.0, 2.5, 7.0])),
        min_size=1,
        max_size=25,
    )
)
def test_the_front_is_what_no_other_policy_beats(outcomes):
    hits, seconds = (np.array(values, float) for values in zip(*outcomes, strict=True))
    on_front = [outcomes[i] for i in front(hits / 8, seconds)]
    beaten = {
        (hits, cost)
        for hits, cost in outcomes
        if any(
            other != (hits, cost) and other[0] >= hits and other[1] <= cost for other in outcomes
        )
    }
    # Of twins one is kept; cheapest first.
    assert on_front == sorted(set(outcomes) - beaten, key=lambda o: o[1])


def test_fitted_figures_are_those_of_replay_on_all_rows(trial, tuning):
    assert (tuning.rows, tuning.texts) == (len(trial), len(trial))
    for point in [*tuning.front, tuning.full_depth, *tuning.families.values()]:
        done = replay(point.policy, trial, COSTS)
        assert point.fitted.accuracy == np.mean(done.answers == trial.label)
        assert point.fitted.mean_layers == pytest.approx(done.layers.mean())
        assert point.fitted.seconds_per_row == pytest.approx(done.seconds.mean(), rel=1e-5)


def test_what_is_reported_is_cross_fitted_and_lower_where_picks_are_luck():
    # Exits that know nothing: whatever is best on these rows is so by luck.
    trial = _trial(_older(4, (0, 2)), rows=100)
    generator = np.random.default_rng(2)

    def picked():
        shape = trial.entries.answers.shape
        lucky = replace(
            trial.entries,
            answers=generator.integers(0, 3, shape).astype(np.uint16),
            confidences=generator.random(shape).astype(np.float32),
        )
        found = _tuned(replace(trial, entries=lucky), price=0.0).pick(TunedPolicy(price=0.0))
        return found.fitted.accuracy, found.cross_fitted.accuracy

    fitted, cross_fitted = np.mean([picked() for _ in range(8)], axis=0)
    assert fitted > 0.4
    assert cross_fitted < fitted - 0.05
    assert abs(cross_fitted - 1 / 3) < 0.05


def test_copies_of_rows_change_nothing_that_is_reported(trial):
    rows = np.r_[np.arange(len(trial)), np.arange(0, len(trial), 2), np.arange(0, len(trial), 2)]
    entries = trial.entries[rows]
    copied = Trial(entries, np.arange(len(rows)), trial.neighbours[rows])
    clean, twice = _tuned(trial), _tuned(copied)
    assert twice.texts == len(trial)
    for name, point in twice.families.items():
        other = clean.families[name].cross_fitted.accuracy
        assert point.cross_fitted.accuracy == pytest.approx(other, abs=0.05)
    # The promise counts a text once.
    step, own = twice.promise.steps[10], clean.promise.steps[10]
    assert (step.policy, step.lost, step.gained) == (own.policy, own.lost, own.gained)


def test_the_front_goes_up_on_the_rows(tuning):
    for low, high in zip(tuning.front, tuning.front[1:], strict=False):
        assert low.fitted.seconds_per_row < high.fitted.seconds_per_row
        assert low.fitted.accuracy < high.fitted.accuracy
    assert len(tuning.front) > 3


def test_full_depth_is_the_best_exit_there(trial, tuning):
    deepest = [e for e in trial.entries.exits if e.depth == 4 and e.reader != "de3"]
    rates = {str(e): trial.entries.rates[trial.entries.position_of(str(e))] for e in deepest}
    assert rates[tuning.full_depth.policy.exit] == max(rates.values())


def test_every_policy_has_its_best_and_what_it_did_row_by_row(trial, found):
    assert set(found.tuning.families) == set(POLICIES)
    assert all(point.policy.name == name for name, point in found.tuning.families.items())
    for name, point in found.tuning.families.items():
        right = found.done[name].answers == trial.label
        assert right.mean() == point.cross_fitted.accuracy
    assert (found.done[TUNED].answers == trial.label).mean() == (found.picked.cross_fitted.accuracy)


@pytest.mark.parametrize("objective", [{}, {"price": 0.2}, {"accuracy": 0.7}, {"accuracy": "full"}])
def test_a_tuning_picks_what_its_study_picked(trial, objective):
    spec = TunedPolicy(**objective)
    found = study(trial, COSTS, spec, seed=3)
    assert found.tuning.pick(spec) == found.picked


def test_the_pick_beats_full_depth_if_rows_differ_in_difficulty(tuning):
    picked = tuning.pick(TunedPolicy())
    assert picked.fitted.seconds_per_row < 0.8 * tuning.full_depth.fitted.seconds_per_row
    assert picked.cross_fitted.accuracy > tuning.full_depth.cross_fitted.accuracy - 0.02
    promised = tuning.pick(TunedPolicy(risk=RiskSpec(max_loss=0.1)))
    assert promised.fitted.seconds_per_row < tuning.full_depth.fitted.seconds_per_row


class TestPromise:
    def test_is_tested_on_the_baselines_own_cascades_from_the_surest_down(self, tuning):
        promise = tuning.promise
        assert promise.baseline.policy == FixedPolicy(exit="pool@4")
        thresholds = [step.policy.threshold for step in promise.steps]
        assert thresholds == sorted(thresholds, reverse=True)
        assert {step.policy.readers for step in promise.steps} == {("pool",)}
        assert (promise.baseline.lost, promise.baseline.gained) == (0, 0)

    def test_counts_the_texts_on_which_just_one_is_right(self, trial, tuning):
        full = replay(tuning.promise.baseline.policy, trial).answers == trial.label
        for step in tuning.promise.steps:
            right = replay(step.policy, trial).answers == trial.label
            assert (step.lost, step.gained) == ((full & ~right).sum(), (right & ~full).sum())

    def test_is_against_another_exit_only_if_that_is_better_beyond_noise(self, trial):
        label = trial.label
        barely = np.where(np.arange(len(trial)) < 3, label, _right(trial, "pool@4"))
        almost = _with_exit(trial, "logistic@4", barely, 0.9)
        assert almost.entries.exits[promise_baseline(almost)] == Exit("pool", 4)
        far = _with_exit(trial, "logistic@4", label, 0.9)
        assert far.entries.exits[promise_baseline(far)] == Exit("logistic", 4)

    def test_is_not_made_where_it_is_barred(self, trial):
        found = study(trial, COSTS, TunedPolicy(risk=RiskSpec(max_loss=0.5)), barred="copies")
        assert found.picked.policy == found.tuning.promise.baseline.policy


def _right(trial, name):
    return trial.entries.answers[:, trial.entries.position_of(name)]


def test_a_key_is_worth_its_place_if_its_vote_is():
    trial = _trial(_older(4, (0, 2)))
    rows = len(trial)
    generator = np.random.default_rng(1)
    for knowing, guessing in (("vote@0", "vote@2"), ("vote@2", "vote@0")):
        told = _with_exit(trial, knowing, trial.label, np.float32(0.999))
        noise = generator.integers(0, 3, rows), generator.random(rows)
        tuning = _tuned(_with_exit(told, guessing, *noise))
        assert tuning.keys[knowing].worth_keeping
        assert not tuning.keys[guessing].worth_keeping
        assert tuning.keys[knowing].accuracy_without < 0.95
        assert tuning.keys[guessing].accuracy_without > 0.98
        assert tuning.pick(TunedPolicy()).cross_fitted.accuracy > 0.98


def test_a_key_that_makes_rows_cheaper_is_worth_its_place():
    trial = _trial(_older(4, (0, 2)))
    # The last probe is always right, too: the vote only says so four layers earlier.
    for reader in ("probe@4", "vote@0"):
        trial = _with_exit(trial, reader, trial.label, np.float32(0.999))
    worth = _tuned(trial, price=0.01).keys["vote@0"]
    assert worth.accuracy_without > 0.95
    assert worth.seconds_without > COSTS.encode + COSTS.layer
    assert worth.worth_keeping


@pytest.mark.parametrize("asked", [["words"], ["words", "vote"]], ids=str)
def test_a_key_is_worth_its_place_if_pools_that_weigh_its_vote_are(trial, asked):
    for depth in range(5):
        trial = _with_exit(trial, f"pool@{depth}", trial.label, np.float32(0.999))
    tuning = _tuned(trial, replace(COSTS, once={"pool": asked}))
    assert tuning.pick(TunedPolicy()).cross_fitted.accuracy > 0.98
    for worth in tuning.keys.values():
        assert worth.worth_keeping == ("vote" in asked)


def test_of_pools_and_n_grams_tuned_picks_and_of_others_only_at_full_depth(trial, tuning):
    told = _with_exit(trial, "probe@1", trial.label, np.float32(0.999))
    for found in (tuning, _tuned(told), _tuned(_with_exit(trial, "vote@0", trial.label, 1.0))):
        for point in found.front:
            if point.policy.name == "fixed":
                reader, _, depth = point.policy.exit.partition("@")
                assert reader in ("words", "pool") or depth == "4"
            else:
                assert "pool" in point.policy.readers
    # A probe that is always right is found all the same, under its own policy's name.
    assert _tuned(told).families["fixed"].policy == FixedPolicy(exit="probe@1")


def test_the_same_seed_finds_the_same(trial, tuning):
    assert _tuned(trial, seed=3) == tuning
    other = _tuned(trial, seed=4)
    assert [p.fitted for p in other.front] == [p.fitted for p in tuning.front]
    assert other != tuning


def test_a_tuning_comes_back_from_json_as_it_was(trial, tuning):
    by_depth = CascadePolicy(last=4, threshold=(0.9, 1 - 2.0**-4.5, 0.7, 0.6, 1.0))
    figures = Figures(accuracy=1 / 3, mean_layers=0.1, seconds_per_row=1e-7)
    point = Point(policy=by_depth, fitted=figures, cross_fitted=figures)
    tuning = tuning.model_copy(update={"front": [*tuning.front, point]})
    back = Tuning.model_validate_json(tuning.model_dump_json())
    assert back == tuning
    assert back.front[-1].policy.threshold == by_depth.threshold
    np.testing.assert_array_equal(
        replay(back.front[-1].policy, trial).exits, replay(by_depth, trial).exits
    )


@pytest.mark.parametrize("labels", [2, 3, 20])
def test_thresholds_go_from_a_tenth_beyond_a_guess_to_near_certainty(trial, labels):
    names = tuple(f"label {n}" for n in range(labels))
    found = list(candidates(replace(trial.entries, labels=names)))
    walked = [p.threshold for p in found if p.name in ("cascade", "de3")]
    assert min(walked) == pytest.approx(1 / labels + 0.1 * (1 - 1 / labels), abs=0.001)
    assert 0.99 <= max(walked) < 1
    assert len(walked) > 50


def test_a_deep_model_does_not_multiply_the_policies():
    deep = _tuned(_trial(exits_of(24, (0, 6)), rows=40))
    assert 100 < deep.tried < 500
    assert {p.policy.first for p in deep.front if p.policy.name == "cascade"} <= set(range(25))


def test_a_version_without_probes_is_tuned_on_heads_and_votes():
    tuning = _tuned(_trial(swept_exits(3, (1,)), rows=80), LAYERS)
    assert set(tuning.families) == set(POLICIES) - {"de3"}
    assert tuning.full_depth.policy == FixedPolicy(exit="head@3")
    assert tuning.promise.baseline.policy == FixedPolicy(exit="head@3")


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_very_few_rows_are_tuned_too(rows):
    tuning = _tuned(_trial(exits_of(2, (0,)), rows=rows))
    assert set(tuning.families) == set(POLICIES)
    assert tuning.pick(TunedPolicy()).policy in [p.policy for p in tuning.front]
    promised = tuning.pick(TunedPolicy(risk=RiskSpec(max_loss=0.1)))
    assert promised.policy == tuning.promise.baseline.policy
