"""Replay runs a policy on the database's own rows, and says how good it was."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

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
from raee.policies.costs import Costs
from raee.policies.replay import Replayed, Trial, figures, replay, scores
from raee.policies.table import POLICIES, Planned
from tests.raee.entries import entries_of, random_trial, saying


@pytest.fixture
def trial() -> Trial:
    """Three rows of a model with two layers, whose key is at depth 1."""
    entries = entries_of(
        [0, 1, 1],
        [[0, 1, 0], [0, 1, 1], [1, 0, 1]],
        [[0.9, 0.8, 0.7], [0.6, 0.8, 0.9], [0.6, 0.7, 0.5]],
        key_depths=(1,),
    )
    entries = saying(entries, {"vote@1": ([0, 0, 1], [0.5, 0.9, 0.6])})
    found = Neighbours(np.array([[1, 2], [0, 2], [1, 0]]), np.ones((3, 2), np.float32))
    return Trial(entries, np.arange(3), found)


def test_a_cascade_leaves_at_the_first_sure_reader_and_at_the_last_one_anyway(trial):
    done = replay(CascadePolicy(readers=("head",), threshold=0.8), trial)
    assert done.exits.tolist() == [0, 1, 2]
    assert done.answers.tolist() == [0, 1, 1]
    assert done.layers.tolist() == [0, 1, 2]
    first_only = replay(CascadePolicy(readers=("head",), threshold=0.8, last=1), trial)
    assert first_only.exits.tolist() == [0, 1, 1]


def test_a_cascades_threshold_is_that_of_the_depth(trial):
    spec = CascadePolicy(readers=("head",), threshold=(0.95, 0.75, 0), last=2)
    assert replay(spec, trial).exits.tolist() == [1, 1, 2]


def test_a_cascade_asks_the_next_reader_at_the_same_depth(trial):
    spec = CascadePolicy(readers=("head", "vote"), threshold=0.85, first=1)
    # Row 0 is sure of nothing, row 1 of its vote, which is asked after the head.
    assert [str(trial.entries.exits[i]) for i in replay(spec, trial).exits] == [
        "head@2",
        "vote@1",
        "head@2",
    ]
    assert replay(spec, trial).answers.tolist() == [0, 0, 1]
    assert replay(spec, trial).layers.tolist() == [2, 1, 2]


def test_de3_leaves_where_its_indicator_is_low_and_answers_as_the_probe_does(trial):
    said = {
        "de3@0": ([1, 1, 1], [0.2, 0.9, 0.3]),
        "de3@1": ([2, 0, 0], [0.4, 0.0, 0.9]),
        "de3@2": ([0, 0, 2], [0.1, 0.0, 0.0]),
    }
    trial = replace(trial, entries=saying(trial.entries, said))
    done = replay(De3Policy(threshold=0.4), trial)
    assert [str(trial.entries.exits[i]) for i in done.exits] == ["de3@1", "de3@0", "de3@1"]
    assert done.answers.tolist() == [2, 1, 0]
    assert done.layers.tolist() == [1, 0, 1]


def test_raee_asks_the_neighbours_and_pays_for_the_keys_depth(trial):
    done = replay(RaeePolicy(k=1, threshold=0.6), trial)
    # Row 1 is right at depths 1 and 2 and surer at 2, row 0 only at depth 0.
    assert done.exits.tolist() == [2, 0, 2]
    assert done.answers.tolist() == [0, 0, 1]
    assert done.layers.tolist() == [2, 1, 2]


def test_retrieval_replays_the_vote_that_was_stored(trial):
    done = replay(RetrievalPolicy(), trial)
    assert done.answers.tolist() == [0, 0, 1]
    assert done.layers.tolist() == [1, 1, 1]


SPECS = (
    FullPolicy(),
    FixedPolicy(),
    FixedPolicy(exit="pool@2"),
    RetrievalPolicy(),
    RaeePolicy(k=3, threshold=0.5),
    KernelPolicy(k=4, cost=0.3),
    CascadePolicy(threshold=0.6),
    CascadePolicy(readers=("vote", "pool", "head"), threshold=(0.9, 0.8, 0.6), last=2),
    De3Policy(threshold=0.8),
)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_row_gets_the_same_whichever_rows_are_tried_beside_it(spec):
    trial = random_trial(4, (1, 3), unread=5)
    costs = Costs(encode=1.0, layer=2.0, reads={"head": 0.5, "vote": 0.25, "probe": 0.125})
    whole, some = replay(spec, trial, costs), np.array([11, 3, 7])
    few = replay(spec, trial[some], costs)
    for name in ("exits", "answers", "layers", "seconds"):
        np.testing.assert_array_equal(getattr(few, name), getattr(whole, name)[some])
    np.testing.assert_array_equal(trial[some].label, trial.entries.label[trial.rows[some]])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_answers_are_those_that_the_rows_own_entry_has_at_its_exit(spec):
    trial = random_trial(4, (1, 3), unread=5)
    done = replay(spec, trial)
    entries = trial.entries
    for row, exit, answer in zip(trial.rows, done.exits, done.answers, strict=True):
        assert answer == entries.answers[row, exit]
        assert not np.isnan(entries.confidences[row, exit])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_fresh_rows_are_planned_on_the_databases_entries_and_answer_as_they_were_read(spec):
    own, other = random_trial(4, (1, 3), rows=40), random_trial(4, (1, 3), seed=1)
    fresh = Trial(own.entries, other.rows, own.neighbours[: len(other)], other.entries)
    fresh = replace(fresh, neighbours=replace(fresh.neighbours, own=None))
    done, entries = replay(spec, fresh), other.entries
    np.testing.assert_array_equal(fresh.label, entries.label[other.rows])
    np.testing.assert_array_equal(fresh.texts.hashes, entries.hashes[other.rows])
    np.testing.assert_array_equal(done.answers, entries.answers[other.rows, done.exits])
    policy = POLICIES[spec.name]
    if isinstance(policy, Planned):
        np.testing.assert_array_equal(done.exits, policy.plan(spec, own.entries, fresh.neighbours))
    else:
        np.testing.assert_array_equal(done.exits, replay(spec, other).exits)


@st.composite
def _replayed(draw):
    """A trial, and what some policy might have done with it; at times one label alone."""
    trial = random_trial(2, seed=draw(st.integers(0, 99)), rows=draw(st.integers(6, 20)))
    labels = draw(st.sampled_from([1, 2, 3]))
    entries = replace(trial.entries, label=trial.entries.label % labels)
    trial = replace(trial, entries=entries)[np.arange(draw(st.integers(1, len(trial))))]
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    exits = generator.integers(0, len(entries.exits), len(trial))
    answers = generator.integers(0, draw(st.sampled_from([1, 3])), len(trial)).astype(np.uint16)
    return Replayed(exits, answers, entries.depths[exits], generator.random(len(trial))), trial


@given(_replayed())
def test_figures_are_scikit_learns(drawn):
    done, trial = drawn
    found, label = figures(done, trial), trial.label
    assert found["accuracy"] == pytest.approx(accuracy_score(label, done.answers))
    there = np.union1d(label, done.answers)
    macro = f1_score(label, done.answers, average="macro", labels=there, zero_division=0)
    assert found["macro_f1"] == pytest.approx(macro)
    if len(there) > 1:
        assert found["matthews"] == pytest.approx(matthews_corrcoef(label, done.answers))
    assert found["mean_layers"] == pytest.approx(done.layers.mean())
    assert found["seconds_per_row"] == pytest.approx(done.seconds.mean())
    precision, recall, _, rows = precision_recall_fscore_support(
        label, done.answers, labels=range(3), zero_division=0
    )
    for i, name in enumerate(trial.entries.labels):
        assert found["by_label"][name] == {
            "rows": rows[i],
            "precision": pytest.approx(precision[i]),
            "recall": pytest.approx(recall[i]),
        }
    assert list(found["by_label"]) == list(trial.entries.labels)


@given(_replayed())
def test_figures_count_every_row_at_its_exit(drawn):
    done, trial = drawn
    names = [str(trial.entries.exits[i]) for i in done.exits]
    assert figures(done, trial)["exits"] == {name: names.count(name) for name in set(names)}


def test_scores_are_those_of_the_textbook():
    label, answers = np.array([0, 0, 1, 1], np.uint16), np.array([0, 1, 1, 1], np.uint16)
    found = scores(answers, label, np.array([0, 1, 2, 2]))
    assert found == {
        "accuracy": pytest.approx(3 / 4),
        "macro_f1": pytest.approx((2 / 3 + 4 / 5) / 2),
        "matthews": pytest.approx(1 / np.sqrt(3)),
        "mean_layers": pytest.approx(5 / 4),
    }


def test_a_row_that_is_left_unlabelled_is_wrong_and_no_label():
    label, answers = np.array([0, 0, 1, 1]), np.array([0, -1, 1, 1])
    found = scores(answers, label, np.zeros(4, np.int64))
    assert found["accuracy"] == 3 / 4
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_one_label_has_no_correlation_and_no_warning():
    same = np.zeros(3, np.uint16)
    found = scores(same, same, np.ones(3, np.int64))
    assert found["accuracy"] == found["macro_f1"] == 1
    assert found["matthews"] == 0
