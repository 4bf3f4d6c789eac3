"""A pool weighs what it reads by what is likeliest without the text, and reads no more."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import torch
from scipy.special import softmax

from raee.config import KeySpec
from raee.model.walk import walk
from raee.readers.fit import Judges, Unfitted, WordRows
from raee.readers.fitting import begin_fit
from raee.readers.linear import Linear
from raee.readers.ngrams import token_ids
from raee.readers.pool import READER, Pools, bounded, head_logs, vote_logs
from raee.readers.sums import sums_of
from raee.readers.weights import fit_weights
from raee.reading import BatchReader
from raee.texts import copies_of
from tests.raee.databases import LABELS, TEXTS, UNSEEN, build, whole_batch
from tests.raee.models import LAYERS

ROWS = 400


def _label(rows=ROWS, seed=0):
    return np.random.default_rng(seed).integers(0, 3, rows).astype(np.uint16)


def _knowing(label, sharpness, seed):
    """(rows, labels) distributions that lean to the label, each with an error of its own."""
    noise = np.random.default_rng(seed).normal(size=(len(label), 3))
    return softmax(sharpness * np.eye(3)[label] + noise, axis=1)


def _nothing(rows=ROWS):
    return np.full((rows, 3), 1 / 3, np.float32)


def _states(label, sharpness, seed, width=6):
    """(rows, width) unit vectors whose first directions lean to the label."""
    noise = np.random.default_rng(seed).normal(size=(len(label), width))
    states = noise + sharpness * np.eye(width)[label]
    return (states / np.linalg.norm(states, axis=1, keepdims=True)).astype(np.float32)


def _fit(states, label, heads=None, votes=None, words=None, hashes=None, seed=0):
    """The fit of all readers; what is not given says nothing.

    states: (depths, rows, width); heads: (depths, rows, labels); words: (rows,) of token ids.
    """
    rows = len(label)
    hashes = np.arange(rows, dtype=np.uint64) if hashes is None else hashes
    copies = copies_of(hashes, hashes, label, 3)
    judges = Judges(states.__getitem__, label, hashes, copies)
    words = [np.zeros(0, np.int32)] * rows if words is None else words
    word_rows = WordRows(token_ids(words), label, hashes, np.arange(rows))
    heads = np.stack([_nothing(rows)] * len(states)) if heads is None else heads
    unfitted = Unfitted(heads.astype(np.float32), votes or {})
    fitting = begin_fit("mean", sums_of(states, label, 3), judges, word_rows, unfitted, {}, seed)
    return fitting, fitting.fit()


def _known_tokens(label, seed=0):
    """Rows of three tokens, of which one mostly tells the label."""
    generator = np.random.default_rng(seed)
    told = np.where(generator.random(len(label)) < 0.8, label, generator.integers(0, 3, len(label)))
    return [np.array([9, 50 + t, 9], np.int32) for t in told]


def test_each_expert_that_knows_something_weighs_and_others_do_not():
    label = _label()
    blank = np.stack([_states(label, 0.0, seed) for seed in range(3)])
    cases = {
        "words": {"words": _known_tokens(label)},
        "head": {"heads": np.stack([_nothing(), _nothing(), _knowing(label, 2, 1)])},
        "vote@1": {"votes": {1: _knowing(label, 2, 2)}},
    }
    for expert, told in cases.items():
        _, found = _fit(blank, label, **told)
        weights = found["pool"].record["pool"][2]
        assert max(weights, key=weights.get) == expert
        assert sum(weights.values()) < 1.4 * weights[expert]
        right = found["pool"].answers.answers[:, 2] == label
        assert right.mean() > 0.7
    states = np.stack([_states(label, sharpness, 5) for sharpness in (0.0, 0.0, 2.0)])
    weights = _fit(states, label)[1]["pool"].record["pool"][2]
    assert max(weights, key=weights.get) == "probe@2"


def test_a_pool_of_several_is_better_than_each_alone():
    label = _label(800)
    states = np.stack([_states(label, 1.2, seed) for seed in range(3)])
    _, found = _fit(states, label, words=_known_tokens(label, seed=4))
    right = {n: (f.answers.answers[:, -1] == label).mean() for n, f in found.items()}
    assert right["pool"] > max(right["words"], right["probe"]) + 0.03
    record = found["pool"].record["pool"]
    assert {"words", "probe@0", "probe@1", "probe@2"} <= record[2].keys()
    assert record[0].keys() == {"words", "probe@0"}


def test_answers_are_by_weights_that_were_fitted_without_the_text():
    label = _label()
    hashes = np.r_[np.arange(300), np.arange(100)].astype(np.uint64)  # some texts stand twice
    states = np.stack([_states(label, 1.0, seed) for seed in range(2)])
    fitting, found = _fit(states, label, words=_known_tokens(label), hashes=hashes)
    experts = np.stack(
        [
            np.maximum(fitting.fitter("words").log_probabilities, -20),
            np.log(fitting.unfitted.heads[1]),
            *np.maximum(fitting.fitter("probe").log_probabilities, -20),
        ]
    )
    answers, alike = found["pool"].answers, np.array([False, False, True, True])
    folds = fitting.judges.folds(0)
    assert len(folds) == 5
    for train, held in folds:
        assert not np.isin(hashes[held], hashes[train]).any()
        without = fit_weights(experts[:, train], label[train], alike)
        said = np.exp(without.logs(experts[:, held]))
        np.testing.assert_array_equal(answers.answers[held, 1], said.argmax(axis=1))
        np.testing.assert_allclose(answers.confidences[held, 1], said.max(axis=1), atol=2e-3)
    pools, every = found["pool"].parameters, fit_weights(experts, label, alike).experts
    fitted = [pools.words[1], pools.heads[1], *pools.probes[1]]
    np.testing.assert_allclose(fitted, every, atol=2e-3)


def test_copies_of_rows_give_nothing_away():
    generator = np.random.default_rng(1)
    states = generator.normal(size=(2, 60, 60)).astype(np.float32)
    states /= np.linalg.norm(states, axis=2, keepdims=True)
    label = generator.integers(0, 2, 60).astype(np.uint16)
    twice = np.r_[np.arange(60), np.arange(60)]
    copied = states[:, twice], label[twice]
    right = [
        _fit(*copied, hashes=hashes)[1]["pool"].answers.answers[:, -1] == label[twice]
        for hashes in (twice.astype(np.uint64), None)
    ]
    assert right[0].mean() < 0.7
    assert right[1].mean() > 0.8  # as if copies were other texts


def test_votes_are_experts_only_if_they_help_beyond_noise_and_from_their_key_on():
    label = _label()
    states = np.stack([_states(label, 0.8, seed) for seed in range(3)])
    _, knows = _fit(states, label, votes={1: _knowing(label, 3, 2)})
    pools = knows["pool"].parameters
    assert pools.key_depths.tolist() == [1]
    assert (pools.votes[:, 0] > 0).tolist() == [False, True, True]
    assert READER.asks_once(pools) == ["words", "vote"]
    noise = softmax(np.random.default_rng(0).normal(size=(ROWS, 3)), axis=1)
    _, guesses = _fit(states, label, votes={1: noise})
    assert not guesses["pool"].parameters.votes.any()
    assert READER.asks_once(guesses["pool"].parameters) == ["words"]


def test_probes_are_read_at_every_second_depth_if_nothing_is_lost_by_it():
    label = _label(800)
    same = _states(label, 1.0, 0)
    noise = np.random.default_rng(3).normal(size=(5, *same.shape)).astype(np.float32)
    alike = same + 0.02 * noise  # depths that say the same
    alike /= np.linalg.norm(alike, axis=2, keepdims=True)
    read = _fit(alike, label)[1]["pool"].parameters.probes > 0
    for depth in range(5):
        allowed = {d for d in range(depth + 1) if d % 2 == 0 or d == depth}
        assert {*np.flatnonzero(read[depth])} <= allowed
    apart = np.stack([_states(label, 1.0, seed) for seed in range(5)])  # each knows something else
    read = _fit(apart, label)[1]["pool"].parameters.probes > 0
    assert read[4].all()


def test_what_is_stored_is_what_is_read():
    label = _label(100)
    states = np.stack([_states(label, 1.0, seed) for seed in range(2)])
    pools = _fit(states, label, votes={0: _knowing(label, 2, 0)})[1]["pool"].parameters
    arrays = safetensors.numpy.load(safetensors.numpy.save(READER.arrays(pools)))
    for field, value in vars(READER.from_arrays(arrays)).items():
        np.testing.assert_array_equal(value, getattr(pools, field))


@pytest.mark.parametrize("label", [[0], [1, 1], [0, 2], [0, 1, 2]], ids=str)
def test_very_few_rows_get_distributions_too(label):
    label = np.array(label, np.uint16)
    states = np.stack([_states(label, 1.0, seed) for seed in range(2)])
    found = _fit(states, label, votes={0: _nothing(len(label))})[1]["pool"]
    assert ((found.answers.confidences > 0) & (found.answers.confidences <= 1)).all()
    for value in vars(found.parameters).values():
        assert np.isfinite(value).all()


def test_no_expert_rules_a_label_out():
    never = np.array([[0.0, 1.0, 0.0]])
    with np.errstate(divide="ignore"):
        certain = np.log(never)
    assert np.exp(bounded(certain)).min() == pytest.approx(np.exp(-20))
    assert np.exp(head_logs(never)).min() == pytest.approx(np.exp(-20))
    np.testing.assert_allclose(np.exp(vote_logs(never)), [[0.02 / 3, 0.98 + 0.02 / 3, 0.02 / 3]])


class TestReading:
    """What has no weight is not read: it would cost time for nothing."""

    @pytest.fixture
    def database(self, backbone_of):
        labels = [i % len(LABELS) for i in range(len(TEXTS))]
        return build(backbone_of("bert"), TEXTS, labels, KeySpec(layers=(1, 3))).database

    def _weighing(self, database, **weights):
        """The database with these weights alone; probes that weigh nothing cannot be read."""
        depths = LAYERS + 1
        pools = Pools(
            words=np.full(depths, 0.5),
            heads=np.zeros(depths),
            votes=np.zeros((depths, 2)),
            probes=np.zeros((depths, depths)),
            offsets=np.zeros((depths, len(LABELS))),
            key_depths=np.array([1, 3]),
        )
        pools = replace(pools, **weights)
        broken = Linear(np.full((1, 1), np.nan), np.zeros(1), 1.0)  # of no state's width
        probes = tuple(
            linear if pools.probes[:, depth].any() else broken
            for depth, linear in enumerate(database.fits.parameters["probe"])
        )
        parameters = {**database.fits.parameters, "pool": pools, "probe": probes}
        return replace(database, fits=replace(database.fits, parameters=parameters))

    def _read(self, database, depths=range(LAYERS + 1)):
        """By depth, what the pools say of UNSEEN; those at some depths alone may be asked."""
        places = {d: database.entries.position_of(f"pool@{d}") for d in depths}
        batch = whole_batch(database.backbone, UNSEEN)
        reader, said = BatchReader(database, batch, list(places.values())), {}

        def visit(depth, states, rows):
            reader.enter(depth, states, rows)
            if depth in places:
                said[depth] = reader.read(places[depth]).distributions

        walk(database.backbone.stack, batch.inputs, visit)
        return said

    def test_no_head_no_vote_and_no_probe_is_read_that_weighs_nothing(self, database, monkeypatch):
        probes = np.zeros((LAYERS + 1, LAYERS + 1))
        probes[2:, 2] = 0.7
        weighed = self._weighing(database, probes=probes)

        def never(*args):
            raise AssertionError("what weighs nothing is read")

        silent = replace(weighed, head=never, indexes=(never, never))
        said = self._read(silent)
        assert sorted(said) == list(range(LAYERS + 1))
        for distributions in said.values():
            np.testing.assert_allclose(distributions.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(said[0], said[1])
        assert np.abs(said[2] - said[1]).max() > 1e-5

    def test_votes_and_probes_are_read_if_a_pool_that_may_be_asked_weighs_them(self, database):
        votes, probes = np.zeros((LAYERS + 1, 2)), np.zeros((LAYERS + 1, LAYERS + 1))
        votes[4, 1], probes[4, 1] = 0.6, 0.6
        weighed = self._weighing(database, votes=votes, probes=probes)
        searched: list[int] = []

        class Counting:
            def search(self, keys, k):
                searched.append(len(keys))
                return database.indexes[1].search(keys, k)

        counting = replace(weighed, indexes=(None, Counting()))
        before = self._read(counting, depths=(0, 3))
        assert searched == []
        whole = self._read(counting)
        assert searched == [len(UNSEEN)]
        for depth in (0, 3):
            np.testing.assert_array_equal(whole[depth], before[depth])
        assert np.abs(whole[4] - whole[3]).max() > 1e-3

    def test_the_head_is_read_at_the_pools_own_depth(self, database):
        heads = np.zeros(LAYERS + 1)
        heads[3] = 1.0
        weighed = self._weighing(database, words=np.zeros(LAYERS + 1), heads=heads)
        place = database.entries.position_of("head@3")
        batch = whole_batch(database.backbone, UNSEEN)
        pool = weighed.entries.position_of("pool@3")
        reader, said = BatchReader(weighed, batch, [place, pool]), []

        def visit(depth, states, rows):
            reader.enter(depth, states, rows)
            if depth == 3:
                said.extend(reader.read(p).distributions for p in (place, pool))
            return torch.ones(len(rows), dtype=bool)

        walk(database.backbone.stack, batch.inputs, visit)
        np.testing.assert_allclose(said[0], said[1], atol=1e-6)
