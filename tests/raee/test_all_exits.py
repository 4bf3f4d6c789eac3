"""One pass reads all exits; every policy, replayed on it, says what a classification says."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from raee.all_exits import outcome, read_all
from raee.build import build as build_whole
from raee.classify import ABSTAINED, classify
from raee.config import (
    CascadePolicy,
    De3Policy,
    FarSpec,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    KeySpec,
    Method,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.policies.compared import compared
from raee.policies.replay import replay
from raee.policies.table import neighbours_planned_on
from raee.statistics.calibration import policy_lines
from tests.flows.opinions import opinions
from tests.raee.databases import LABELS, TEXTS, UNSEEN, build
from tests.raee.errors import refused
from tests.texts import sentences

KEYS = {
    "key at depth 0": KeySpec(layer=0),
    "keys at two depths": KeySpec(layers=(2, 3)),
    "key of a retriever": KeySpec(model="a retriever"),
}
POLICIES = (
    FullPolicy(),
    FixedPolicy(exit="head@1"),
    FixedPolicy(exit="pool@4"),
    RetrievalPolicy(),
    RaeePolicy(threshold=0.7, k=4),
    KernelPolicy(k=9, readers=("head", "probe", "vote"), cost=0.01),
    CascadePolicy(readers=("head",), threshold=0.7),
    CascadePolicy(readers=("vote", "pool", "head"), threshold=0.7),
    De3Policy(threshold=0.4),
)
FAR = {
    "nobody looks": None,
    "far rows go to full depth": FarSpec(quantile=0.5),
    "far rows get no answer": FarSpec(quantile=0.5, then="abstain"),
}
CORPUS = (*UNSEEN, *(row["text"] for row in sentences(30, seed=5)))


@pytest.fixture(scope="module")
def database_of(backbone_of):
    @cache
    def database(name, key):
        retriever = None if key.of_backbone else backbone_of("mpnet-encoder")
        labels = [i % len(LABELS) for i in range(len(TEXTS))]
        found = build(backbone_of(name), TEXTS, labels, key, retriever).database
        # As if its own rows were so far from each other that some of the corpus are far.
        nearest = classify(found, FixedPolicy(exit=f"vote@{key.depth}"), CORPUS).nearest
        return replace(found, nearest=np.full(len(TEXTS), np.median(nearest), np.float32))

    return database


def _agree(database, policies, texts, far=None, ratio=None):
    """Asserts that all policies are replayed as they classify; returns what they did."""
    asked = max(neighbours_planned_on(spec) for spec in policies)
    seen = read_all(database, texts, asked, ratio=ratio)
    trial = seen.trial(database.entries, np.zeros(len(texts), np.int32))
    done = []
    for spec in policies:
        found, expected = (
            outcome(database, spec, seen, trial, far),
            classify(database, spec, texts, far=far, ratio=ratio),
        )
        for field in ("labels", "exits", "layers", "far"):
            np.testing.assert_array_equal(
                getattr(found, field), getattr(expected, field), err_msg=f"{field} of {spec}"
            )
        np.testing.assert_array_equal(seen.truncated, expected.truncated)
        done.append(found)
    return done


@pytest.mark.parametrize("far", FAR.values(), ids=FAR)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("name", ["bert", "bert-encoder"])
def test_a_replayed_policy_says_what_a_classification_says(database_of, name, key, far):
    done = _agree(database_of(name, key), POLICIES, CORPUS, far)
    # Otherwise the test would not say much.
    assert len(np.unique(np.concatenate([found.exits for found in done]))) > 6
    flagged = [found.far.sum() for found in done]
    assert (max(flagged) > 3) == (far is not None)
    abstains = far is not None and far.then == "abstain"
    assert any((found.exits == ABSTAINED).any() for found in done) == abstains


def test_readers_that_learn_shares_are_corrected_by_the_ratio(database_of):
    database = database_of("bert", KEYS["keys at two depths"])
    plain = _agree(database, POLICIES, CORPUS)
    shifted = _agree(database, POLICIES, CORPUS, ratio=np.array([3.0, 0.1, 1.0]))
    changed = [(a.labels != b.labels).any() for a, b in zip(plain, shifted, strict=True)]
    assert any(changed)
    assert not changed[0]  # the head has learnt no shares


@pytest.mark.parametrize("name", ["bert-encoder", "minilm"])
def test_the_compared_policies_of_a_whole_build_are_replayed_as_they_classify(folder_of, name):
    rows = opinions(str(folder_of("bert-encoder")), 150)
    backbone = {"family": "sentence-encoder", "model": str(folder_of(name)), "dtype": "float32"}
    method = Method.model_validate({"backbone": backbone, "key": {"layers": [0, 2]}})
    texts, names = [row["text"] for row in rows], [row["label"] for row in rows]
    built = build_whole(method, texts, names, "here")
    exits = [str(exit) for exit in built.database.entries.exits]
    policies = [*compared(method.policy, built.tuning, exits, "here").values()]
    unseen = [row["text"] for row in opinions(str(folder_of("bert-encoder")), 100, seed=1)]
    mixed = [*unseen, *(f"zz{i} ??? qq{i} !!!" for i in range(20))]
    for far in (None, FarSpec(quantile=0.9), FarSpec(quantile=0.9, then="abstain")):
        done = _agree(built.database, policies, mixed, far)
        assert any(found.far.sum() >= 10 for found in done) == (far is not None)


def test_many_rows_are_replayed_in_steps_as_at_once(database_of, monkeypatch):
    database = database_of("bert", KEYS["key at depth 0"])
    monkeypatch.setattr("raee.all_exits._ROWS_AT_ONCE", 7)
    _agree(database, POLICIES, CORPUS, FAR["far rows go to full depth"])


def test_every_row_is_counted_once(database_of):
    done: list[int] = []
    read_all(database_of("bert", KEYS["key at depth 0"]), CORPUS, 0, on_rows=done.append)
    assert sum(done) == len(CORPUS)


def test_no_texts_are_read_and_replayed_to_nothing(database_of):
    for key in KEYS.values():
        assert [len(done.labels) for done in _agree(database_of("bert", key), POLICIES, [])] == [
            0
        ] * len(POLICIES)


def test_a_model_that_answers_no_numbers_is_refused(database_of):
    database = database_of("bert", KEYS["key at depth 0"])

    def broken(depth, *rest):
        return database.head(depth, *rest) * float("nan")

    with refused(r"answers .* with what are no numbers"):
        read_all(replace(database, head=broken), CORPUS, 0)


def test_an_exit_that_the_database_has_not_is_refused(database_of):
    database = database_of("bert", KEYS["key at depth 0"])
    seen = read_all(database, CORPUS, 0)
    trial = seen.trial(database.entries, np.zeros(len(CORPUS), np.int32))
    with refused(r"exit 'head@9' is not in the database"):
        outcome(database, FixedPolicy(exit="head@9"), seen, trial)


def test_confidences_of_fresh_rows_are_their_own(database_of):
    """Calibration on fresh rows, too, is by what was read of these."""
    database = database_of("bert", KEYS["key at depth 0"])
    seen = read_all(database, CORPUS, 0)
    label = (np.arange(len(CORPUS)) % len(LABELS)).astype(np.int32)
    trial = seen.trial(database.entries, label)
    done = replay(FixedPolicy(exit="head@2"), trial)
    position = database.entries.position_of("head@2")
    np.testing.assert_array_equal(done.answers, seen.read.answers[:, position])
    np.testing.assert_array_equal(trial.label, label)
    assert list(policy_lines(done, trial)) == [position]
