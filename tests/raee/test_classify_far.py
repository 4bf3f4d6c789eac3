"""Rows unlike the database's are flagged, and run to full depth or get no answer, as asked."""

from dataclasses import replace

import numpy as np
import pytest

from raee import classify as classification
from raee.classify import ABSTAINED, classify
from raee.config import (
    CascadePolicy,
    De3Policy,
    FarSpec,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    KeySpec,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.policies.table import POLICIES, Planned
from raee.reading import Database
from tests.raee.databases import LABELS, TEXTS, UNSEEN, build, plain_states, prompt_of
from tests.raee.entries import saying
from tests.raee.model.test_walk import rows_by_layer, rows_seen
from tests.raee.models import LAYERS

CORPUS = (
    *UNSEEN,
    "the actor was bad and the plot was bad and the story never made me laugh or cry",
)

FAR = FarSpec(quantile=0.5)
ABSTAIN = FarSpec(quantile=0.5, then="abstain")

WAITING = (
    FullPolicy(),
    FixedPolicy(exit="head@2"),
    FixedPolicy(exit="pool@4"),
    RetrievalPolicy(),
    RaeePolicy(threshold=0.7, k=4),
    KernelPolicy(k=4, cost=0.01),
    CascadePolicy(readers=("head",), threshold=0.7, first=2),
    CascadePolicy(readers=("vote", "pool"), threshold=0.6, first=2),
    De3Policy(threshold=0.3, first=2),
)
"""Policies with which every row comes by a key at depth 2."""


@pytest.fixture(scope="module")
def databases(backbone_of):
    labels = [i % len(LABELS) for i in range(len(TEXTS))]

    def of(key: KeySpec) -> Database:
        retriever = None if key.of_backbone else backbone_of("mpnet-encoder")
        return build(backbone_of("bert"), TEXTS, labels, key, retriever).database

    keys = {
        "first": KeySpec(layer=0),
        "middle": KeySpec(layer=2),
        "late": KeySpec(layer=3),
        "both ends": KeySpec(layers=(0, LAYERS)),
        "retriever": KeySpec(model="a retriever"),
    }
    return {name: of(key) for name, key in keys.items()}


def _limited(database: Database, limit: float) -> Database:
    """The database as if its own rows were so far from each other."""
    return replace(database, nearest=np.full(len(TEXTS), limit, np.float32))


def _best_at_full_depth(database: Database, name: str) -> Database:
    """The database as if an exit were always right and all others were never at full depth."""
    entries = database.entries
    wrong, sure = (entries.label + 1) % len(LABELS), np.ones(len(entries))
    said = {str(entries.exits[i]): (wrong, sure) for i in entries.at_full_depth}
    return replace(database, entries=saying(entries, said | {name: (entries.label, sure)}))


def _squared(plain, name: str, depth: int) -> np.ndarray:
    """(texts,) of CORPUS to the nearest of TEXTS, by plain `transformers` calls."""
    keys, queries = (
        plain_states(plain, prompt_of(name), "mean", texts)[depth] for texts in (TEXTS, CORPUS)
    )
    return np.square(queries[:, None] - keys).sum(axis=2).min(axis=1)


def _between(squared: np.ndarray) -> float:
    """A distance that about half of the rows keep."""
    low, high = np.sort(squared)[[4, 5]]
    return float((low + high) / 2)


@pytest.mark.parametrize("spec", WAITING, ids=str)
@pytest.mark.parametrize("far_exit", ["head@4", "probe@4", "logistic@4"])
def test_far_rows_run_to_full_depth_and_the_best_exit_there_answers(
    databases, plain_of, spec, far_exit
):
    squared = _squared(plain_of("bert"), "bert", depth=2)
    database = _best_at_full_depth(_limited(databases["middle"], _between(squared)), far_exit)
    with rows_seen(database.backbone.stack.model) as seen:
        found = classify(database, spec, CORPUS, far=FAR)
    far = squared > _between(squared)
    assert far.sum() == 4
    np.testing.assert_array_equal(found.far, far)
    np.testing.assert_allclose(found.nearest, squared, atol=1e-5)
    plain = classify(database, spec, CORPUS)
    last = classify(database, FixedPolicy(exit=far_exit), CORPUS)
    # Of rows that were going to full depth anyway, the plan stands.
    keeps = ~far
    if isinstance(POLICIES[spec.name], Planned):
        keeps |= database.entries.depths[plain.exits] == LAYERS
    for name in ("labels", "exits", "layers"):
        expected = np.where(keeps, getattr(plain, name), getattr(last, name))
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)
    expected = np.where(keeps, plain.confidences, last.confidences)
    np.testing.assert_allclose(found.confidences, expected, atol=1e-5)
    assert (found.layers[far] == LAYERS).all()
    assert seen == rows_by_layer(found.layers)


@pytest.mark.parametrize("spec", WAITING, ids=str)
def test_far_rows_get_no_answer_and_run_no_layer_above_the_key_where_one_abstains(
    databases, plain_of, spec
):
    squared = _squared(plain_of("bert"), "bert", depth=2)
    database = _limited(databases["middle"], _between(squared))
    with rows_seen(database.backbone.stack.model) as seen:
        found = classify(database, spec, CORPUS, far=ABSTAIN)
    far = squared > _between(squared)
    np.testing.assert_array_equal(found.far, far)
    assert (found.labels[far] == -1).all()
    assert np.isnan(found.confidences[far]).all()
    assert (found.exits[far] == ABSTAINED).all()
    assert (found.layers[far] == 2).all()
    plain = classify(database, spec, CORPUS)
    for name in ("labels", "exits", "layers"):
        np.testing.assert_array_equal(getattr(found, name)[~far], getattr(plain, name)[~far])
    assert seen == rows_by_layer(found.layers)
    assert found.layers_run == found.layers.sum()


@pytest.mark.parametrize("spec", [FixedPolicy(exit="head@0"), CascadePolicy(threshold=0.0)])
def test_rows_that_are_far_by_a_key_at_depth_0_do_not_leave_there(databases, plain_of, spec):
    squared = _squared(plain_of("bert"), "bert", depth=0)
    database = _best_at_full_depth(_limited(databases["both ends"], _between(squared)), "vote@4")
    found = classify(database, spec, CORPUS, far=FAR)
    far = squared > _between(squared)
    np.testing.assert_array_equal(found.layers, np.where(far, LAYERS, 0))
    votes = classify(database, FixedPolicy(exit="vote@4"), CORPUS)
    np.testing.assert_array_equal(found.labels[far], votes.labels[far])
    assert (found.exits[far] == database.entries.position_of("vote@4")).all()


def test_an_average_over_depths_and_de3_do_not_answer_for_far_rows(databases):
    # An average would have to be read at every depth of every row for the few.
    for name in ("pool@4", "de3@4"):
        database = _best_at_full_depth(_limited(databases["middle"], 0.0), name)
        entries = database.entries
        second = np.where(np.arange(len(entries)) > 0, entries.label, 1 - entries.label[0])
        entries = saying(entries, {"logistic@4": (second, np.ones(len(entries)))})
        found = classify(replace(database, entries=entries), RetrievalPolicy(), CORPUS, far=FAR)
        assert (found.exits[found.far] == entries.position_of("logistic@4")).all()
        assert found.far.any()


@pytest.mark.parametrize(
    "spec",
    [
        FixedPolicy(exit="head@1"),
        CascadePolicy(readers=("head",), threshold=0.75),
        CascadePolicy(readers=("probe", "head"), threshold=0.8, last=3),
        De3Policy(threshold=0.45),
    ],
    ids=str,
)
@pytest.mark.parametrize("far", [FAR, ABSTAIN], ids=lambda far: far.then)
def test_rows_that_leave_before_the_key_are_not_looked_at(databases, spec, far):
    database = _limited(databases["late"], 0.0)  # whoever is looked at is far
    plain = classify(database, spec, CORPUS)
    with rows_seen(database.backbone.stack.model) as seen:
        found = classify(database, spec, CORPUS, far=far)
    early = plain.layers < 3
    assert early.any()
    np.testing.assert_array_equal(np.isnan(found.nearest), early)
    for name in ("labels", "exits", "layers", "confidences"):
        own, expected = getattr(found, name)[early], getattr(plain, name)[early]
        np.testing.assert_array_equal(own, expected, err_msg=name)
    # The empty text is in the database itself: nothing is farther than at no distance.
    looked_at = np.flatnonzero(~early)
    np.testing.assert_array_equal(found.far[looked_at], found.nearest[looked_at] > 0)
    assert not found.far[early].any()
    assert seen == rows_by_layer(found.layers)


def test_the_limit_is_a_quantile_of_the_databases_own_distances(databases, plain_of):
    squared = _squared(plain_of("bert"), "bert", depth=2)
    own = np.linspace(0, 2 * squared.max(), len(TEXTS)).astype(np.float32)
    database = replace(databases["middle"], nearest=own)
    shares = []
    for quantile in (0.02, 0.1, 0.3, 0.9):
        found = classify(database, RetrievalPolicy(), CORPUS, far=FarSpec(quantile=quantile))
        np.testing.assert_array_equal(found.far, squared > np.quantile(own, quantile))
        shares.append(found.far.mean())
    assert shares[0] > shares[2] > shares[3] == 0


def test_a_distance_of_just_the_limit_is_not_far(databases):
    found = classify(databases["middle"], RetrievalPolicy(), CORPUS)
    for place in (1, 4):
        database = _limited(databases["middle"], found.nearest[place])
        again = classify(database, RetrievalPolicy(), CORPUS, far=FAR)
        np.testing.assert_array_equal(again.far, found.nearest > found.nearest[place])


@pytest.mark.parametrize("nearest", [None, np.full(len(TEXTS), np.inf, np.float32)])
def test_where_the_database_knows_no_distances_no_row_is_far(databases, nearest):
    database = replace(databases["middle"], nearest=nearest)
    for spec in WAITING:
        assert not classify(database, spec, CORPUS, far=ABSTAIN).far.any()


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many texts were given to the key's own model, call by call."""
    calls, own = [], classification.retriever_keys

    def counting(retriever, texts):
        calls.append(len(texts))
        return own(retriever, texts)

    monkeypatch.setattr(classification, "retriever_keys", counting)
    return calls


@pytest.mark.parametrize(
    "spec",
    [
        FullPolicy(),
        FixedPolicy(exit="head@2"),
        FixedPolicy(exit="pool@3"),
        CascadePolicy(threshold=0.6),
        CascadePolicy(readers=("vote", "probe"), threshold=0.6, first=1),
        De3Policy(threshold=0.5),
    ],
    ids=str,
)
def test_a_key_with_a_model_of_its_own_is_not_asked_for_distances_alone(databases, asked, spec):
    database = _limited(databases["retriever"], 0.0)
    for far in (None, FAR, ABSTAIN):
        found = classify(database, spec, CORPUS, far=far)
        assert np.isnan(found.nearest).all()
        assert not found.far.any()
    assert asked == []


@pytest.mark.parametrize(
    "spec",
    [
        RetrievalPolicy(),
        FixedPolicy(exit="vote@0"),
        RaeePolicy(),
        KernelPolicy(),
        CascadePolicy(readers=("vote", "probe"), threshold=0.9),
    ],
    ids=str,
)
def test_where_neighbours_are_asked_a_key_with_a_model_of_its_own_says_what_is_far(
    databases, plain_of, asked, spec
):
    plain = plain_of("mpnet-encoder")
    squared = _squared(plain, "mpnet-encoder", depth=LAYERS)
    database = _limited(databases["retriever"], _between(squared))
    far = squared > _between(squared)
    found = classify(database, spec, CORPUS, far=FAR)
    np.testing.assert_allclose(found.nearest, squared, atol=1e-5)
    np.testing.assert_array_equal(found.far, far)
    assert (found.layers[far] == LAYERS).all()
    assert asked == [len(CORPUS)]
    abstained = classify(database, spec, CORPUS, far=ABSTAIN)
    assert (abstained.labels[far] == -1).all()
    assert (abstained.layers[far] == 0).all()
