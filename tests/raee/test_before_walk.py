"""Rows that leave before the walk are answered in bulk, and are in no batch."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from raee.all_exits import outcome, read_all
from raee.classify import classify
from raee.config import CascadePolicy, FarSpec, FixedPolicy, FullPolicy, KernelPolicy, KeySpec
from raee.model.walk import walk
from raee.policies.costs import Costs
from raee.policies.replay import replay
from raee.reading import BatchReader
from tests.raee.databases import LABELS, TEXTS, UNSEEN, build, prompt_for, whole_batch
from tests.raee.runs import rows_of, rows_run
from tests.texts import sentences

MODELS = ("bert", "bert-encoder", "minilm")
CORPUS = (*UNSEEN, *(row["text"] for row in sentences(30, seed=5)))
WORDS = FixedPolicy(exit="words@0")
FAR = FarSpec(quantile=0.5)
_RETRIEVER = KeySpec(model="a retriever")


@pytest.fixture(scope="module")
def database_of(backbone_of):
    @cache
    def database(name, key=KeySpec(layers=(0, 2))):  # noqa: B008 (it is frozen)
        retriever = None if key.of_backbone else backbone_of("mpnet-encoder")
        labels = [i % len(LABELS) for i in range(len(TEXTS))]
        found = build(backbone_of(name), TEXTS, labels, key, retriever).database
        # Few rows say little of labels: as if the n-grams were surer of them.
        fits = found.fits
        words = replace(fits.parameters["words"], temperature=25.0)
        return replace(found, fits=replace(fits, parameters={**fits.parameters, "words": words}))

    return database


def _half_sure(database, readers=("words", "pool")):
    """A cascade in which about half of the rows leave at the n-grams."""
    sure = classify(database, WORDS, CORPUS).confidences
    return CascadePolicy(readers=readers, threshold=float(np.median(sure)))


def _rendered(database, texts):
    template = prompt_for(database.backbone).template
    mask = database.backbone.tokenizer.mask_token
    return [template.format(text=text, mask=mask) for text in texts]


@pytest.mark.parametrize("name", MODELS)
def test_no_row_runs_if_all_leave_there(database_of, name):
    database, done = database_of(name), []
    with rows_run(database.backbone) as seen:
        found = classify(database, WORDS, CORPUS, on_rows=done.append, far=FAR)
    assert seen == Counter()
    assert (found.layers_run, found.layers.tolist()) == (0, [0] * len(CORPUS))
    assert (found.exits == database.entries.position_of("words@0")).all()
    assert sum(done) == len(CORPUS)
    # Nobody has looked how far they are from the database's rows.
    for unknown in (found.nearest, found.usual):
        assert np.isnan(unknown).all()
    assert not found.far.any()
    assert found.tokens > 0
    assert not found.truncated.any()


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_are_not_sure_run_and_no_others(database_of, name):
    database = database_of(name)
    spec, place = _half_sure(database), database.entries.position_of("words@0")
    with rows_run(database.backbone) as seen:
        found = classify(database, spec, CORPUS, far=FAR)
    words = classify(database, WORDS, CORPUS)
    sure = words.confidences >= spec.threshold
    assert 0.2 < sure.mean() < 0.8
    np.testing.assert_array_equal(found.exits == place, sure)
    np.testing.assert_array_equal(found.labels[sure], words.labels[sure])
    np.testing.assert_array_equal(found.confidences[sure], words.confidences[sure])
    staying = [CORPUS[i] for i in np.flatnonzero(~sure)]
    assert seen == sum(
        (rows_of(database.backbone, [t]) for t in _rendered(database, staying)), Counter()
    )
    np.testing.assert_array_equal(np.isnan(found.nearest), sure)
    assert not found.far[sure].any()
    assert (found.layers[sure] == 0).all()
    assert found.layers_run == found.layers.sum()


@pytest.mark.parametrize("name", MODELS)
def test_they_are_answered_as_in_a_batch(database_of, name):
    database = database_of(name)
    place, batch = database.entries.position_of("words@0"), whole_batch(database.backbone, CORPUS)
    ratio = np.array([3.0, 0.1, 1.0])
    for shares in (None, ratio):
        reader = BatchReader(database, batch, [place], shares)
        said = {}

        def visit(depth, states, rows, reader=reader, said=said):
            reader.enter(depth, states, rows)
            said["own"] = reader.read(place)

        walk(database.backbone.stack, batch.inputs, visit, deepest=0)
        found = classify(database, WORDS, CORPUS, ratio=shares, all_labels=True)
        expected = said["own"].distributions[np.argsort(batch.rows)]
        np.testing.assert_allclose(found.distributions, expected, atol=1e-6)
        np.testing.assert_allclose(found.confidences, expected.max(axis=1), atol=1e-6)


def test_many_rows_are_read_in_steps_as_at_once(database_of, monkeypatch):
    database = database_of("bert")
    for spec in (WORDS, _half_sure(database)):
        whole = classify(database, spec, CORPUS)
        done: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr("raee.classify._ROWS_AT_ONCE", 7)
            found = classify(database, spec, CORPUS, on_rows=done.append)
        assert sum(done) == len(CORPUS)
        for field in ("labels", "exits", "layers"):
            np.testing.assert_array_equal(getattr(found, field), getattr(whole, field))
        np.testing.assert_allclose(found.confidences, whole.confidences, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_replayed_policy_says_what_a_classification_says(database_of, name):
    database = database_of(name)
    policies = [
        WORDS,
        _half_sure(database),
        _half_sure(database, ("head", "words")),
        KernelPolicy(k=5, readers=("words", "probe"), cost=0.5),
    ]
    seen = read_all(database, CORPUS, 5)
    trial = seen.trial(database.entries, np.zeros(len(CORPUS), np.int32))
    for spec in policies:
        found = outcome(database, spec, seen, trial, FAR)
        expected = classify(database, spec, CORPUS, far=FAR)
        for field in ("labels", "exits", "layers", "far"):
            np.testing.assert_array_equal(
                getattr(found, field), getattr(expected, field), err_msg=f"{field} of {spec}"
            )


def test_a_plan_that_is_known_before_the_walk_lets_rows_leave_there(database_of):
    """The key has a model of its own: no row runs through the backbone to find its neighbours."""
    database = database_of("bert", _RETRIEVER)
    spec = KernelPolicy(k=3, readers=("words", "probe", "head"), smoothing=0.1, cost=0.0)
    with rows_run(database.backbone) as seen:
        found = classify(database, spec, CORPUS)
    early = found.exits == database.entries.position_of("words@0")
    assert 0 < early.sum() < len(CORPUS)
    assert seen.total() == (~early).sum()
    words = classify(database, WORDS, CORPUS)
    np.testing.assert_array_equal(found.labels[early], words.labels[early])


def test_only_rows_that_stay_pay_for_a_batch(database_of):
    database = database_of("bert")
    seen = read_all(database, CORPUS, 0)
    trial = seen.trial(database.entries, np.zeros(len(CORPUS), np.int32))
    costs = Costs(
        encode=1.0,
        layer=10.0,
        reads={"words": 0.5, "pool": 0.125},
        enter=100.0,
        once={"pool": ["words"]},
    )
    assert (replay(WORDS, trial, costs).seconds == 1.5).all()
    assert (replay(FullPolicy(), trial, costs).seconds == 1 + 4 * 10 + 100).all()
    # A pool asks the n-grams itself, unless they were asked before.
    assert (replay(FixedPolicy(exit="pool@1"), trial, costs).seconds == 1 + 10 + 100 + 0.75).all()
    done = replay(_half_sure(database), trial, costs)
    early = done.exits == database.entries.position_of("words@0")
    depths = database.entries.depths[done.exits]
    expected = 1 + 100 + 10 * depths + 0.5 + 0.125 * (depths + 1)
    np.testing.assert_array_equal(done.seconds, np.where(early, 1.5, expected))
