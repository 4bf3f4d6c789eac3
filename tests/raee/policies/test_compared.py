"""The compared policies, and the majority beside them, on a version's own rows."""

import numpy as np
import pytest

from raee.answers import Neighbours
from raee.config import CascadePolicy, FixedPolicy, FullPolicy, TunedPolicy
from raee.exits import Entries, exits_of
from raee.policies.compared import (
    COMPARED,
    Judged,
    beside_baselines,
    compared,
    majority_label,
    metrics_of,
)
from raee.policies.costs import Costs
from raee.policies.replay import Trial, replay

EXITS = exits_of(2, (0,))
COSTS = Costs(encode=0.1, layer=1.0, reads={})


def _trial(**right):
    """Thirty rows, 18 of them of the first label; exits are right on none but those that are told.

    The last row has the text of the row before.
    """
    rows = np.arange(30)
    label = (rows >= 18).astype(np.uint16)
    answers = np.tile(1 - label[:, None], len(EXITS)).astype(np.uint16)
    for name, some in right.items():
        position = [str(e) for e in EXITS].index(name.replace("_", "@"))
        answers[some, position] = label[some]
    hashes = np.minimum(rows, 28).astype(np.uint64)
    confidences = np.full(answers.shape, 0.6, np.float32)
    entries = Entries(EXITS, ("no", "yes"), label, answers, confidences, hashes)
    nobody = np.zeros((30, 0))
    neighbours = Neighbours(nobody.astype(np.int64), nobody.astype(np.float32))
    return Trial(entries, rows, neighbours)


def _runs(trial, **policies):
    return {n: Judged(p, replay(p, trial, COSTS), False) for n, p in policies.items()}


def test_baselines_are_exits_and_an_older_version_lacks_that_of_n_grams():
    names = [str(e) for e in EXITS]
    found = compared(TunedPolicy(), None, names, "here")
    assert found["words"] == FixedPolicy(exit="words@0")
    assert found["logistic"] == FixedPolicy(exit="logistic@2")
    assert "majority" not in found
    older = compared(TunedPolicy(), None, [n for n in names if n != "words@0"], "here")
    assert "words" not in older
    assert "logistic" in older


def test_tables_begin_with_the_baselines():
    assert COMPARED[:4] == ("majority", "words", "logistic", "full")


def test_the_majority_has_figures_and_no_exits():
    trial = _trial()
    assert majority_label(trial.entries) == 0
    found = metrics_of(_runs(trial, full=FullPolicy()), trial)
    majority = found["majority"]
    assert list(found) == ["majority", "full"]
    assert majority["accuracy"] == 18 / 30
    assert (majority["mean_layers"], majority["seconds_per_row"]) == (0.0, 0.0)
    assert majority["exits"] == {}
    assert majority["by_label"]["no"] == {"rows": 18, "precision": 18 / 30, "recall": 1.0}
    assert majority["macro_f1"] == pytest.approx(2 * 0.6 / 1.6 / 2)


def test_policies_are_compared_with_each_baseline_and_equal_texts_count_once():
    trial = _trial(words_0=range(10, 30), pool_2=range(30))
    runs = _runs(trial, words=FixedPolicy(exit="words@0"), tuned=FixedPolicy(exit="pool@2"))
    found = metrics_of(runs, trial)["tuned"]["against"]
    assert list(found) == ["majority", "words"]
    assert (found["words"]["wins"], found["words"]["losses"]) == (10, 0)
    assert found["words"]["difference"] == pytest.approx(10 / 29)
    assert (found["majority"]["wins"], found["majority"]["losses"]) == (11, 0)  # of 12 rows


def test_a_better_baseline_is_told_by_modelled_seconds():
    trial = _trial(words_0=range(25), pool_2=range(25))
    policies = {"words": FixedPolicy(exit="words@0"), "tuned": FixedPolicy(exit="pool@2")}
    runs = _runs(trial, **policies)
    beside = beside_baselines("tuned", runs, metrics_of(runs, trial))
    assert beside.difference.startswith("tuned against words")
    assert "is right as often as tuned (0.833 against 0.833), and costs less" in beside.better
    runs = _runs(trial, words=policies["words"], tuned=policies["words"])
    assert beside_baselines("tuned", runs, metrics_of(runs, trial)).better is None


def test_nothing_is_said_of_a_policy_that_was_not_judged():
    trial = _trial()
    runs = _runs(trial, full=FullPolicy(), cascade=CascadePolicy())
    assert beside_baselines("tuned", runs, metrics_of(runs, trial)) is None
