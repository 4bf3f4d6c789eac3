"""Classification gives each row the answer of its exit, and runs no layer that it does not need."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from raee.classify import classify
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
from raee.policies.table import exits_used
from raee.statistics.calibration import Line, warmed
from tests.raee.databases import (
    LABELS,
    TEXTS,
    UNSEEN,
    build,
    plain_distributions,
    plain_states,
    prompt_of,
)
from tests.raee.errors import refused
from tests.raee.model.test_walk import rows_by_layer, rows_seen
from tests.raee.models import LAYERS, MASKED_LMS, SENTENCE_ENCODERS, layer_modules

CORPUS = (
    *UNSEEN,
    "dull",
)
"""Texts that are not in the database, and one that is."""

KEYS = {
    "key at depth 0": KeySpec(layer=0),
    "key at a middle depth": KeySpec(layer=2),
    "keys at two depths": KeySpec(layers=(1, 3)),
    "key of a retriever": KeySpec(model="a retriever"),
}

POLICIES = (
    FullPolicy(),
    FixedPolicy(exit="head@1"),
    RetrievalPolicy(),
    RaeePolicy(threshold=0.7, k=4),
    KernelPolicy(k=4, readers=("head", "probe", "vote"), cost=0.01),
    CascadePolicy(readers=("head",), threshold=0.7),
    CascadePolicy(readers=("head",), threshold=0.5, first=2, last=3),
    CascadePolicy(readers=("vote", "pool", "head"), threshold=0.7),
    De3Policy(threshold=0.4),
)


@pytest.fixture(scope="module")
def built_of(backbone_of):
    """The small database of a model and a key."""

    @cache
    def built(name, key):
        retriever = None
        if not key.of_backbone:
            retriever = backbone_of("bert-encoder" if name != "bert-encoder" else "mpnet-encoder")
        labels = [i % len(LABELS) for i in range(len(TEXTS))]
        return build(backbone_of(name), TEXTS, labels, key, retriever)

    return built


@pytest.fixture(scope="module")
def plain_corpus(plain_of):
    """(depths, texts, labels): the reading of CORPUS, by plain `transformers` calls."""

    def read(name):
        plain, prompt = plain_of(name), prompt_of(name)
        if name in MASKED_LMS:
            return plain_distributions(plain, prompt, CORPUS)
        centre = torch.stack([plain.embeddings(text) for text in TEXTS]).mean(dim=0)
        return plain.cosine_distribution(CORPUS, prompt.words, centre)

    return read


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("name", [*MASKED_LMS, *SENTENCE_ENCODERS])
def test_each_row_gets_its_exits_answer_and_runs_only_the_layers_it_needs(
    built_of, plain_corpus, name, key
):
    database, expected = built_of(name, key).database, plain_corpus(name)
    exits = database.entries.exits
    for spec in POLICIES:
        with rows_seen(database.backbone.stack.model) as seen:
            found = classify(database, spec, CORPUS)
        depths = np.array([exits[place].depth for place in found.exits])
        waits = key.depth if spec.name in ("raee", "kernel") else 0
        np.testing.assert_array_equal(found.layers, np.maximum(depths, waits))
        assert seen == rows_by_layer(found.layers)
        assert found.layers_run == found.layers.sum()
        heads = np.array([exits[place].reader == "head" for place in found.exits])
        read = expected[depths, np.arange(len(CORPUS))][heads]
        np.testing.assert_allclose(found.confidences[heads], read.max(axis=1), atol=1e-5)
        np.testing.assert_array_equal(found.labels[heads], read.argmax(axis=1))
        assert set(found.exits) <= set(exits_used(spec, database.entries))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_rows_of_one_batch_leave_at_many_depths(built_of, key):
    # Otherwise the test above would not say much.
    for spec in (RaeePolicy(threshold=0.7, k=4), CascadePolicy(readers=("head",), threshold=0.7)):
        found = classify(built_of("distilbert", key).database, spec, CORPUS)
        assert len(np.unique(found.exits)) >= 3


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_text_of_the_database_finds_itself(built_of, key):
    built = built_of("bert", key)
    found = classify(built.database, RetrievalPolicy(exit=f"vote@{key.depth}"), TEXTS)
    assert (found.nearest < 1e-9).all()
    np.testing.assert_array_equal(found.labels, built.database.entries.label)
    assert (found.confidences > 0.99).all()


def test_the_nearest_distance_is_told_only_where_neighbours_were_asked(built_of):
    database = built_of("bert", KEYS["key at a middle depth"]).database
    for spec in (RaeePolicy(), KernelPolicy(), RetrievalPolicy(), FixedPolicy(exit="vote@2")):
        assert np.isfinite(classify(database, spec, CORPUS).nearest).all()
    for spec in (FullPolicy(), FixedPolicy(exit="head@2"), CascadePolicy(), De3Policy()):
        assert np.isnan(classify(database, spec, CORPUS).nearest).all()


def test_without_a_word_on_far_rows_none_is_far(built_of):
    database = replace(built_of("bert", KEYS["key at depth 0"]).database, nearest=np.zeros(12))
    for spec in POLICIES:
        assert not classify(database, spec, CORPUS).far.any()


@pytest.mark.parametrize("threshold", [0.3, 0.55, 0.8, 1.0])
@pytest.mark.parametrize("name", ["bert", "mpnet-encoder"])
def test_a_cascade_of_votes_runs_only_to_the_keys_that_it_asks(built_of, name, threshold):
    database = built_of(name, KEYS["keys at two depths"]).database
    exits, spec = database.entries.exits, CascadePolicy(readers=("vote",), threshold=threshold)
    with rows_seen(database.backbone.stack.model) as seen:
        found = classify(database, spec, CORPUS)
    at_first = classify(database, FixedPolicy(exit="vote@1"), CORPUS)
    at_second = classify(database, FixedPolicy(exit="vote@3"), CORPUS)
    sure = at_first.confidences >= threshold
    assert [str(exits[i]) for i in found.exits] == ["vote@1" if s else "vote@3" for s in sure]
    np.testing.assert_array_equal(found.layers, np.where(sure, 1, 3))
    expected = np.where(sure, at_first.labels, at_second.labels)
    np.testing.assert_array_equal(found.labels, expected)
    assert seen == rows_by_layer(found.layers)


def test_several_keys_are_asked_each_at_its_own_depth(built_of, plain_of):
    # A text's nearest row by one key is another than by the other.
    database, plain = built_of("bert", KEYS["keys at two depths"]).database, plain_of("bert")
    keys, queries = (
        plain_states(plain, database.prompt, "mean", texts) for texts in (TEXTS, CORPUS)
    )
    nearest = {}
    for depth in (1, 3):
        squared = np.square(queries[depth][:, None] - keys[depth]).sum(axis=2)
        nearest[depth] = squared.argmin(axis=1)
        first_only = replace(database, vote_k=1)
        found = classify(first_only, FixedPolicy(exit=f"vote@{depth}"), CORPUS)
        np.testing.assert_array_equal(found.labels, database.entries.label[nearest[depth]])
        if depth == 1:
            np.testing.assert_allclose(found.nearest, squared.min(axis=1), atol=1e-5)
    assert (nearest[1] != nearest[3]).any()


@pytest.mark.parametrize("spec", POLICIES, ids=str)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(built_of, key, spec):
    database = built_of("roberta", key).database
    whole = classify(database, spec, CORPUS)
    for i in (0, 2, 5, 8):
        alone = classify(database, spec, [CORPUS[i]])
        assert alone.labels[0] == whole.labels[i]
        assert alone.exits[0] == whole.exits[i]
        assert alone.layers[0] == whole.layers[i]
        assert alone.confidences[0] == pytest.approx(whole.confidences[i], abs=1e-4)


@pytest.mark.parametrize("spec", POLICIES, ids=str)
def test_no_texts_give_no_predictions(built_of, spec):
    for key in KEYS.values():
        found = classify(built_of("bert", key).database, spec, [])
        assert len(found.labels) == len(found.exits) == len(found.nearest) == 0
        assert found.layers_run == 0


def test_lines_calibrate_what_is_written_by_exit_and_change_no_answer(built_of):
    database = built_of("bert", KEYS["keys at two depths"]).database
    for spec in (*POLICIES, CascadePolicy(readers=("vote", "pool", "head"), threshold=0.6)):
        plain = classify(database, spec, CORPUS)
        line, place = Line(slope=0.5, offset=-0.2), int(plain.exits[0])
        found = classify(database, spec, CORPUS, lines={place: line})
        there = plain.exits == place
        for field in ("labels", "exits", "layers"):
            np.testing.assert_array_equal(getattr(found, field), getattr(plain, field))
        np.testing.assert_array_equal(found.confidences[~there], plain.confidences[~there])
        bare = classify(database, spec, CORPUS, lines={place: Line()}).confidences[there]
        expected = line(bare, len(LABELS))
        np.testing.assert_allclose(found.confidences[there], expected, atol=1e-4)


def test_all_labels_are_as_sure_as_the_confidences_that_are_written(built_of):
    database = built_of("bert", KEYS["keys at two depths"]).database
    lines = {place: Line(slope=0.7) for place in range(len(database.entries.exits))}
    for spec in (*POLICIES, CascadePolicy(readers=("vote", "pool", "head"), threshold=0.6)):
        for some in ({}, lines):
            found = classify(database, spec, CORPUS, lines=some, all_labels=True)
            plain = classify(database, spec, CORPUS, lines=some)
            assert plain.distributions is None
            np.testing.assert_array_equal(found.confidences, plain.confidences)
            assert found.distributions.shape == (len(CORPUS), len(LABELS))
            np.testing.assert_array_equal(found.distributions.argmax(axis=1), found.labels)
            sure = found.confidences > 1.01 / len(LABELS)
            np.testing.assert_allclose(
                found.distributions.max(axis=1)[sure], found.confidences[sure], atol=1e-3
            )


def test_a_row_that_is_left_unlabelled_has_no_distribution(built_of):
    database = built_of("bert", KEYS["key at depth 0"]).database
    far = FarSpec(quantile=0.01, then="abstain")
    found = classify(database, FullPolicy(), CORPUS, far=far, all_labels=True)
    unlabelled = found.labels < 0
    assert 0 < unlabelled.sum() < len(CORPUS)
    assert np.isnan(found.distributions[unlabelled]).all()
    assert not np.isnan(found.distributions[~unlabelled]).any()


def test_temperatures_calibrate_heads_and_votes_before_a_policy_asks_them(built_of):
    database = built_of("bert", KEYS["keys at two depths"]).database
    warm = replace(database, temperatures={"head@2": 0.4, "vote@1": 0.2})
    for name, factor in (("head@2", 0.4), ("vote@1", 0.2), ("head@3", 1.0)):
        plain, found = (classify(d, FixedPolicy(exit=name), CORPUS) for d in (database, warm))
        np.testing.assert_array_equal(found.labels, plain.labels)
        expected = warmed(plain.confidences, factor, len(LABELS))
        np.testing.assert_allclose(found.confidences, expected, atol=1e-4)
    before = classify(database, FixedPolicy(exit="head@2"), CORPUS).confidences
    after = warmed(before, 0.4, len(LABELS))
    spec = CascadePolicy(readers=("head",), first=2, threshold=float(np.sort(after)[-3:-1].mean()))
    sure = after >= spec.threshold
    assert 0 < sure.sum() < (before >= spec.threshold).sum()
    np.testing.assert_array_equal(classify(warm, spec, CORPUS).layers == 2, sure)


def test_a_text_that_lost_its_end_is_marked(built_of):
    database = built_of("bert", KEYS["key at depth 0"]).database
    found = classify(database, FullPolicy(), ["good", "good " * 100])
    assert found.truncated.tolist() == [False, True]


def test_every_row_is_counted_once(built_of):
    done: list[int] = []
    database = built_of("bert", KEYS["key at depth 0"]).database
    classify(database, RaeePolicy(), CORPUS, on_rows=done.append)
    assert sum(done) == len(CORPUS)


def test_an_exit_that_the_database_has_not_is_refused(built_of):
    database = built_of("bert", KEYS["key at depth 0"]).database
    with refused(r"exit 'head@9' is not in the database"):
        classify(database, FixedPolicy(exit="head@9"), CORPUS)
    with refused(r"policy\.first 5 is deeper than the backbone"):
        classify(database, CascadePolicy(first=LAYERS + 1), CORPUS)
    with refused(r"policy\.last 5 is deeper than the backbone"):
        classify(database, De3Policy(last=LAYERS + 1), CORPUS)
    with refused(r"exit 'vote@2' is not in the database"):
        classify(database, RetrievalPolicy(exit="vote@2"), CORPUS)


def test_the_hooks_of_this_file_count_every_layer(backbone_of):
    for name in (*MASKED_LMS, *SENTENCE_ENCODERS):
        assert len(layer_modules(backbone_of(name).stack.model)) == LAYERS
