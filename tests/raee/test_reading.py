"""Every exit of a batch is read as the formulas say, whichever rows are still in it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from raee.classify import classify
from raee.config import FixedPolicy, KeySpec
from raee.model.walk import walk
from raee.readers.de3 import edr
from raee.readers.fitting import Fits
from raee.readers.linear import Linear
from raee.readers.pool import Pools
from raee.readers.sparse_regression import SparseMap
from raee.readers.words import Ngrams
from raee.reading import BatchReader, Database, Read
from tests.raee.databases import (
    LABELS,
    TEXTS,
    UNSEEN,
    build,
    plain_distributions,
    plain_states,
    prompt_of,
    whole_batch,
    with_averages,
)
from tests.raee.models import LAYERS, MASKED_LMS, WIDTH
from tests.raee.ngrams import Ngram, code_of, plain_ngrams, plain_tfidf
from tests.raee.plain import Plain

CORPUS = UNSEEN
KEYS = (0, 2)
LEAVE_AT = torch.tensor([3, 0, 4, 1, 1, 3, 4, 2])
"""By place in the batch: neither sorted nor reversed."""

CASES = {
    "masked LM, means": ("bert", "mean"),
    "masked LM, mask tokens": ("roberta", "answer"),
    "masked LM with a final norm": ("modernbert", "mean"),
    "sentence encoder": ("mpnet-encoder", "mean"),
}


def _random_fits(state, unseen: int | None, known: Sequence[Ngram]) -> Fits:
    """Fits of which no two depths are alike; a label may be unknown to them.

    known: the n-grams that they know.
    """
    generator = np.random.default_rng(0)
    depths = range(LAYERS + 1)

    def biases() -> NDArray:
        found = generator.normal(size=len(LABELS))
        if unseen is not None:
            found[unseen] = -np.inf
        return found

    def linear() -> Linear:
        weights = 5 * generator.normal(size=(len(LABELS), WIDTH))
        return Linear(weights, biases(), generator.uniform(0.3, 1.5))

    def some(*size: int) -> NDArray:
        """Weights of which about a third is 0."""
        return np.maximum(generator.normal(0.3, 0.6, size), 0)

    means = 0.3 * generator.normal(size=(LAYERS + 1, len(LABELS), WIDTH))
    if unseen is not None:
        means[:, unseen] = 0
    return Fits(
        state,
        {
            "probe": tuple(linear() for _ in range(LAYERS + 1)),
            "probes": generator.uniform(0.3, 3, LAYERS + 1),
            "de3": means,
            "logistic": linear(),
            "words": Ngrams(
                np.array([code_of(ngram) for ngram in known]),
                generator.uniform(1, 3, len(known)).astype(np.float32),
                SparseMap(
                    2 * generator.normal(size=(len(known), len(LABELS))).astype(np.float32),
                    biases(),
                ),
                0.8,
            ),
            "pool": Pools(
                words=some(LAYERS + 1),
                heads=some(LAYERS + 1),
                votes=some(LAYERS + 1, len(KEYS))
                * np.array([[k <= d for k in KEYS] for d in depths]),
                probes=np.tril(some(LAYERS + 1, LAYERS + 1)),
                offsets=generator.normal(size=(LAYERS + 1, len(LABELS))),
                key_depths=np.array(KEYS),
            ),
        },
    )


@pytest.fixture
def database_of(exact_backbone_of, exact_plain_of) -> Callable[..., Database]:
    def build_with(name: str, state="mean", unseen: int | None = None) -> Database:
        labels = [i % len(LABELS) for i in range(len(TEXTS))]
        labels = [(label + 1) % len(LABELS) if label == unseen else label for label in labels]
        built = build(exact_backbone_of(name), TEXTS, labels, KeySpec(layers=KEYS))
        entries = with_averages(built.database.entries)
        return replace(
            built.database, entries=entries, fits=_random_fits(state, unseen, known(name))
        )

    def known(name: str) -> list[Ngram]:
        """N-grams of the first rows, in the order of their numbers."""
        ids = tokens_of(exact_plain_of(name), name)[:5]
        return sorted({ngram for row in ids for ngram in plain_ngrams(row)}, key=code_of)

    return build_with


@pytest.fixture
def expected_of(exact_plain_of) -> Callable[..., list[Read]]:
    """By exit: what it says of CORPUS, from plain `transformers` calls."""

    def read(name: str, database: Database) -> list[Read]:
        plain, fitted = exact_plain_of(name), database.fits.parameters
        states = plain_states(plain, prompt_of(name), database.fits.state, CORPUS)
        heads, ngrams = plain_heads(name), words(name, database)
        logs = [
            _log_softmax(m.temperature * _scores(m, states[d]))
            for d, m in enumerate(fitted["probe"])
        ]
        found = []
        for exit in database.entries.exits:
            at, kind = exit.depth, exit.reader
            if kind == "head":
                said = heads[at]
            elif kind == "vote":
                said = votes(name, database, at)
            elif kind == "probes":
                mean = sum(logs[: at + 1]) / (at + 1)
                said = softmax(fitted["probes"][at] * mean, axis=1)
            elif kind == "logistic":
                last = fitted["logistic"]
                said = softmax(last.temperature * _scores(last, states[LAYERS]), axis=1)
            elif kind == "words":
                said = np.exp(ngrams)
            elif kind == "pool":
                said = pooled(name, database, at, ngrams, heads[at], logs)
            else:
                said = np.exp(logs[at])
            confidences = said.max(axis=1)
            if kind == "de3":
                confidences = 1 - edr(said, _distances(states[at], fitted["de3"][at]))
            found.append(Read(said, confidences))
        return found

    def plain_heads(name: str) -> NDArray:
        plain, prompt = exact_plain_of(name), prompt_of(name)
        if name in MASKED_LMS:
            return plain_distributions(plain, prompt, CORPUS)
        centre = torch.stack([plain.embeddings(text) for text in TEXTS]).mean(dim=0)
        return plain.cosine_distribution(CORPUS, prompt.words, centre)

    def votes(name: str, database: Database, depth: int) -> NDArray:
        """The nearest rows' labels, each weighted by 1 / squared distance."""
        plain, prompt = exact_plain_of(name), prompt_of(name)
        keys = plain_states(plain, prompt, "mean", TEXTS)[depth]
        said = np.zeros((len(CORPUS), len(LABELS)))
        for i, query in enumerate(plain_states(plain, prompt, "mean", CORPUS)[depth]):
            squared = np.square(keys - query).sum(axis=1)
            for row in squared.argsort()[: database.vote_k]:
                said[i, database.entries.label[row]] += 1 / max(squared[row], 1e-12)
        return said / said.sum(axis=1, keepdims=True)

    def words(name: str, database: Database) -> NDArray:
        """The n-grams' log-probabilities, one row and one n-gram after the other."""
        plain, fitted = exact_plain_of(name), database.fits.parameters["words"]
        place = {code: i for i, code in enumerate(fitted.codes.tolist())}
        scores = np.tile(fitted.map.biases, (len(CORPUS), 1))
        for row, ids in enumerate(tokens_of(plain, name)):
            there = {
                n: fitted.idf[place[code_of(n)]] for n in plain_ngrams(ids) if code_of(n) in place
            }
            for ngram, value in plain_tfidf(ids, there).items():
                scores[row] += value * fitted.map.weights[place[code_of(ngram)]]
        return _log_softmax(fitted.temperature * scores)

    def pooled(name, database, at, ngrams, head, logs) -> NDArray:
        """The product of all experts' distributions, each to the power of its weight."""
        weights = database.fits.parameters["pool"]
        product = np.tile(np.exp(weights.offsets[at]), (len(CORPUS), 1))
        for logarithms, weight in (
            (ngrams, weights.words[at]),
            (np.log(head), weights.heads[at]),
            *((logs[below], weights.probes[at, below]) for below in range(at + 1)),
        ):
            product *= np.exp(np.maximum(logarithms, -20)) ** weight
        for key, weight in zip(KEYS, weights.votes[at], strict=True):
            if key <= at:
                product *= (0.98 * votes(name, database, key) + 0.02 / len(LABELS)) ** weight
        return product / product.sum(axis=1, keepdims=True)

    return read


def tokens_of(plain: Plain, name: str) -> list[list[int]]:
    """The token ids of CORPUS, special ones included."""
    template = prompt_of(name).template
    mask = plain.tokenizer.mask_token
    return plain.tokenizer([template.format(text=t, mask=mask) for t in CORPUS])["input_ids"]


def _scores(linear: Linear, states: NDArray) -> NDArray:
    return states @ linear.weights.T + linear.biases


def _log_softmax(scores: NDArray) -> NDArray:
    with np.errstate(divide="ignore"):
        return np.log(softmax(scores, axis=1))


def _distances(states: NDArray, means: NDArray) -> NDArray:
    """(rows, labels); a label without rows is nowhere near."""
    apart = np.linalg.norm(states[:, None] - means, axis=2)
    apart[:, ~means.any(axis=1)] = np.inf
    return apart


def _read_all(database: Database, ratio=None) -> dict[tuple[int, int], Read]:
    """By text and exit: its reading, for the exits up to the depth at which the text leaves."""
    batch, exits = whole_batch(database.backbone, CORPUS), database.entries.exits
    reader = BatchReader(database, batch, range(len(exits)), ratio)
    found = {}

    def visit(depth, states, rows):
        reader.enter(depth, states, rows)
        for place, exit in enumerate(exits):
            if exit.depth == depth:
                own = reader.read(place)
                for i, text in enumerate(batch.rows[rows]):
                    found[text, place] = Read(own.distributions[i], own.confidences[i])
        return LEAVE_AT[rows] > depth

    walk(database.backbone.stack, batch.inputs, visit)
    return found


@pytest.mark.parametrize("unseen", [None, 2])
@pytest.mark.parametrize(("name", "state"), CASES.values(), ids=CASES)
def test_every_exit_says_what_its_formula_says_of_plain_hidden_states(
    database_of, expected_of, name, state, unseen
):
    database = database_of(name, state, unseen)
    expected, found = expected_of(name, database), _read_all(database)
    exits = database.entries.exits
    assert len(found) == sum(int((e.depth <= LEAVE_AT).sum()) for e in exits)
    for (text, place), own in found.items():
        plain = expected[place]
        where = f"{exits[place]} of {CORPUS[text]!r}"
        np.testing.assert_allclose(
            own.distributions, plain.distributions[text], atol=1e-5, err_msg=where
        )
        assert own.confidences == pytest.approx(plain.confidences[text], abs=1e-5), where
        # A pool takes no expert at its word that a label cannot be.
        if unseen is not None and exits[place].reader not in ("head", "pool"):
            assert own.distributions[unseen] == 0


@pytest.mark.parametrize(("name", "state"), CASES.values(), ids=CASES)
def test_classification_gives_each_exits_answer(database_of, expected_of, name, state):
    database = database_of(name, state)
    for exit, plain in zip(database.entries.exits, expected_of(name, database), strict=True):
        found = classify(database, FixedPolicy(exit=str(exit)), CORPUS)
        np.testing.assert_array_equal(found.labels, plain.distributions.argmax(axis=1))
        sure = plain.distributions.max(axis=1) if exit.reader == "de3" else plain.confidences
        np.testing.assert_allclose(found.confidences, sure, atol=1e-5, err_msg=str(exit))
        assert (found.layers == exit.depth).all()


def test_a_corpus_in_other_shares_changes_what_readers_learnt_and_not_the_head(database_of):
    database, ratio = database_of("bert"), np.array([0.2, 3.0, 1.0])
    plain, shifted = _read_all(database), _read_all(database, ratio)
    for (text, place), own in plain.items():
        exit, other = database.entries.exits[place], shifted[text, place]
        expected = own.distributions
        if exit.reader != "head":
            expected = expected * ratio / (expected * ratio).sum()
        np.testing.assert_allclose(other.distributions, expected, atol=1e-6, err_msg=str(exit))
        # The indicator of `de3` says how sure the fitted probe is of its own answer.
        sure = own.confidences if exit.reader == "de3" else expected.max()
        assert other.confidences == pytest.approx(sure, abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        *("head@2", "vote@2", "probe@2", "probes@2", "de3@2", "logistic@4"),
        *("words@0", "pool@0", "pool@3"),
    ],
)
def test_a_classification_answers_by_the_corpus_shares(database_of, name):
    database, spec, ratio = database_of("bert"), FixedPolicy(exit=name), np.ones(3)
    common = np.bincount(classify(database, spec, CORPUS).labels).argmax()
    ratio[common] = 1e-15
    answers = classify(database, spec, CORPUS, ratio=ratio).labels
    assert (common in answers) == (name == "head@2")


def test_some_rows_of_a_batch_are_read_as_among_all(database_of):
    database = database_of("roberta", "answer")
    batch, exits = whole_batch(database.backbone, CORPUS), database.entries.exits
    reader, due = BatchReader(database, batch, range(len(exits))), np.array([1, 2, 4])
    read = []

    def visit(depth, states, rows):
        reader.enter(depth, states, rows)
        for place, exit in enumerate(exits):
            if exit.depth == depth:
                some, whole = reader.read(place, due), reader.read(place)
                np.testing.assert_allclose(some.distributions, whole.distributions[due], atol=1e-6)
                np.testing.assert_allclose(some.confidences, whole.confidences[due], atol=1e-6)
                read.append(place)
        return torch.arange(len(rows)) != 0 if depth < 3 else torch.ones(len(rows), dtype=bool)

    walk(database.backbone.stack, batch.inputs, visit)
    assert sorted(read) == list(range(len(exits)))


def test_a_plans_many_neighbours_change_no_vote(database_of):
    database = database_of("bert")
    batch, place = whole_batch(database.backbone, CORPUS), database.entries.position_of("vote@0")
    said = {}

    def visit(depth, states, rows):
        for k in (1, 5, 11):
            reader = BatchReader(database, batch, [place])
            reader.enter(depth, states, rows)
            assert reader.nearest(k).rows.shape == (len(CORPUS), max(k, database.vote_k))
            said[k] = reader.read(place).distributions
        return torch.zeros(len(rows), dtype=bool)

    walk(database.backbone.stack, batch.inputs, visit)
    np.testing.assert_array_equal(said[1], said[5])
    np.testing.assert_array_equal(said[11], said[5])


def test_probes_are_read_of_the_same_state_as_they_were_fitted_on(database_of):
    database = database_of("bert", "answer")
    as_means = replace(database, fits=replace(database.fits, state="mean"))
    spec = FixedPolicy(exit="probe@3")
    own, other = classify(database, spec, CORPUS), classify(as_means, spec, CORPUS)
    assert np.abs(own.confidences - other.confidences).max() > 0.01
