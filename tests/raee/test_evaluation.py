"""Policies are compared on labelled rows that were read once."""

import numpy as np
import pytest

from raee.all_exits import Outcome
from raee.classify import classify
from raee.config import (
    CascadePolicy,
    FarSpec,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    KeySpec,
    RetrievalPolicy,
)
from raee.evaluation import _rounds, compare_on, majority_figures, notes, read_for, timed_rows
from raee.policies.baselines import against as compared_with
from raee.policies.compared import majority_label
from tests.raee.databases import LABELS, TEXTS, build
from tests.raee.model.test_walk import rows_seen
from tests.raee.models import LAYERS
from tests.texts import sentences

POLICIES = {
    "words": FixedPolicy(exit="words@0"),
    "full": FullPolicy(),
    "logistic": FixedPolicy(exit="logistic@4"),
    "retrieval": RetrievalPolicy(),
    "kernel": KernelPolicy(k=9, cost=0.01),
    "cascade": CascadePolicy(threshold=0.6),
}
FAR = FarSpec(quantile=0.5)
CORPUS = [row["text"] for row in sentences(200, seed=3)]
RIGHT = np.arange(len(CORPUS), dtype=np.int32) % len(LABELS)


@pytest.fixture(scope="module")
def database(backbone_of):
    labels = [i % len(LABELS) for i in range(len(TEXTS))]
    return build(backbone_of("bert"), TEXTS, labels, KeySpec(layer=1)).database


def test_figures_are_those_of_classifications_and_the_own_policys_look_at_far_rows(database):
    seen = read_for(database, POLICIES, CORPUS)
    found = compare_on(database, POLICIES, CORPUS, seen, RIGHT, "cascade", FAR)
    assert list(found) == list(POLICIES)
    hits = {}
    for name, policy in POLICIES.items():
        expected = classify(database, policy, CORPUS, far=FAR if name == "cascade" else None)
        hits[name] = expected.labels == RIGHT
        assert found[name].accuracy == hits[name].mean()
        assert found[name].mean_layers == expected.layers.mean()
        assert sum(found[name].exits.values()) == len(CORPUS)
        assert found[name].far == expected.far.sum()
    assert found["cascade"].far > 0
    for name, figures in found.items():
        assert list(figures.against) == ["full", "majority", "words", "logistic"]
        for baseline in ("full", "words", "logistic"):
            against = figures.against[baseline]
            assert against.wins == (hits[name] & ~hits[baseline]).sum()
            assert against.losses == (hits[baseline] & ~hits[name]).sum()
            assert against.difference == pytest.approx(hits[name].mean() - hits[baseline].mean())


def test_the_majority_answers_all_rows_alike_and_takes_no_time(database):
    most = majority_label(database.entries)
    found = majority_figures(database, RIGHT)
    assert found.accuracy == (most == RIGHT).mean()
    assert found.accuracy_interval[0] < found.accuracy < found.accuracy_interval[1]
    assert (found.mean_layers, found.exits, found.rows_per_second) == (0.0, {}, None)


def _figures(database, hits, layers):
    """Figures as if some rows were answered right, in so many layers."""
    figures = majority_figures(database, RIGHT)
    against = {name: compared_with(hits, other) for name, other in _HITS.items()}
    changed = {"accuracy": hits.mean(), "mean_layers": layers, "against": against}
    return figures.model_copy(update=changed)


_HITS = {
    "majority": np.arange(200) < 70,
    "words": np.arange(200) < 150,
    "logistic": np.arange(200) < 140,
}


@pytest.mark.parametrize(
    ("right", "layers", "said"),
    [
        (150, 1.5, "n-grams + logistic regression alone is right as often as cascade"),
        (150, 0.0, None),
        (151, 1.5, None),
        (130, 0.0, "n-grams + logistic regression alone is right more often than cascade"),
    ],
)
def test_a_better_baseline_is_told_by_layers(database, right, layers, said):
    found = {name: _figures(database, _HITS[name], 4.0) for name in ("majority", "logistic")}
    found["words"] = _figures(database, _HITS["words"], 0.0)
    found["cascade"] = _figures(database, np.arange(200) < right, layers)
    lines = notes("cascade", POLICIES, found)
    assert lines[0].startswith("cascade against words (n-grams + logistic regression)")
    assert len(lines) == (1 if said is None else 2)
    assert said is None or lines[1].startswith(said)
    assert notes("tuned", POLICIES, found) == []


def test_all_rows_are_read_in_one_pass_and_few_are_timed(database):
    with rows_seen(database.backbone.stack.model) as seen_rows:
        seen = read_for(database, POLICIES, CORPUS)
    assert sum(seen_rows) == len(CORPUS) * LAYERS
    done: list[int] = []
    compare_on(database, POLICIES, CORPUS, seen, RIGHT, "cascade", on_rows=done.append)
    assert sum(done) == timed_rows(database, len(CORPUS)) * len(POLICIES)
    assert timed_rows(database, len(CORPUS)) < len(CORPUS)
    assert timed_rows(database, 5) == 5


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_few_rows_are_enough(database, rows):
    seen = read_for(database, POLICIES, CORPUS[:rows])
    found = compare_on(database, POLICIES, CORPUS[:rows], seen, RIGHT[:rows], "cascade")
    assert all(figures.rows_per_second > 0 for figures in found.values())


def _left_at(layers) -> Outcome:
    nothing = np.zeros(len(layers), np.int32)
    return Outcome(nothing, nothing.astype(np.int64), layers, nothing.astype(bool))


def test_the_timed_rows_run_about_as_many_layers_as_all_do():
    generator = np.random.default_rng(0)
    texts = ["a" * n for n in generator.integers(5, 300, 2_000)]
    hard = generator.random(2_000)
    done = [_left_at(np.full(2_000, 6)), _left_at(np.where(hard < 0.8, 0, 6))]
    first, second = _rounds(texts, done, 150)
    drawn = np.concatenate([first, second])
    assert len(np.unique(drawn)) == 150
    assert max(len(texts[i]) for i in first) <= min(len(texts[i]) for i in second)
    length = np.array([len(text) for text in texts])
    for found in done:
        assert found.layers[drawn].mean() == pytest.approx(found.layers.mean(), rel=0.15)
        work = (1 + found.layers) * length
        assert work[drawn].mean() == pytest.approx(work.mean(), rel=0.05)
