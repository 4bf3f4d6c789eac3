"""N-grams and logistic regression: what scikit-learn finds, and judged without the text."""

from collections import Counter
from math import ceil, log

import numpy as np
import pytest
import safetensors.numpy
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from raee.readers.fit import Judges, Unfitted, WordRows
from raee.readers.fitting import begin_fit
from raee.readers.ngrams import count_ngrams, idf_of, token_ids
from raee.readers.sparse_regression import SparseMap
from raee.readers.sums import sums_of
from raee.readers.words import READER, Ngrams
from raee.texts import Texts, copies_of
from tests.raee.ngrams import code_of, plain_ngrams, plain_tfidf

_HALVED = 4e-3
"""Weights are stored in half precision, which has 11 bits: of a score of some ten of them, each of
about 1, that is 1e-3, and of a probability a quarter of it; a temperature may double it."""


def _texts(rows=150, labels=3, seed=0, own=2):
    """Rows of token ids, of which some are rather a label's, and their labels.

    own: tokens at each row's end that no other row has.
    """
    generator = np.random.default_rng(seed)
    label = generator.integers(0, labels, rows).astype(np.uint16)
    found = []
    for row, of in enumerate(label):
        common = generator.integers(10, 40, generator.integers(2, 8))
        telling = 100 + 5 * of + generator.integers(0, 5, generator.integers(0, 3))
        unique = 1_000 + own * row + np.arange(own)
        found.append(np.concatenate([common, telling, unique]).astype(np.int32))
    return found, label


def _word_rows(rows, label, judges=None, hashes=None):
    judges = np.arange(len(rows)) if judges is None else judges
    hashes = np.arange(len(rows)) if hashes is None else hashes
    return WordRows(token_ids(rows), label, hashes.astype(np.uint64), judges)


def _fitter(words, labels=3, before=None, seed=0):
    """The fit of n-grams; of the judging rows' states nothing is known."""
    label, hashes = words.label[words.judges], words.hashes[words.judges]
    states = np.ones((1, len(label), 2), np.float32)
    judges = Judges(states.__getitem__, label, hashes, copies_of(hashes, hashes, label, labels))
    unfitted = Unfitted(np.full((1, len(label), labels), 1 / labels, np.float32), {})
    sums, before = sums_of(states, label, labels), before or {}
    return begin_fit("mean", sums, judges, words, unfitted, before, seed).fitter("words")


def _theirs(rows, label, min_count, penalty, asked, labels=3):
    """(asked, labels) scikit-learn's log-probabilities of some rows, fitted on others."""
    with_it = Counter(ngram for row in rows for ngram in plain_ngrams(row))
    with_it = {n: sum(n in plain_ngrams(row) for row in rows) for n in with_it}
    idf = {
        ngram: 1 + log((1 + len(rows)) / (1 + count))
        for ngram, count in with_it.items()
        if count >= min_count
    }
    place = {ngram: i for i, ngram in enumerate(idf)}

    def dense(some):
        found = np.zeros((len(some), len(place)))
        for i, row in enumerate(some):
            for ngram, value in plain_tfidf(row, idf).items():
                found[i, place[ngram]] = value
        return found

    model = LogisticRegression(C=penalty, tol=1e-9, max_iter=10_000).fit(dense(rows), label)
    logs = np.full((len(asked), labels), -np.inf)
    logs[:, model.classes_] = model.predict_log_proba(dense(asked))
    return logs


def _copies(hashes, generator):
    """Some texts stand once more, in other rows."""
    hashes = hashes.copy()
    hashes[generator.choice(len(hashes), 30, replace=False)] = hashes[:30]
    return hashes


_JUDGES = {
    "all rows": (np.arange(150), 5),
    "half of them": (np.arange(0, 150, 2), 3),
    "a fifth": (np.arange(1, 150, 5), 1),
    "a few, in no order": (np.array([77, 3, 140, 9]), 1),
}


@pytest.mark.parametrize(("judges", "folds"), _JUDGES.values(), ids=_JUDGES)
@pytest.mark.parametrize("copied", [False, True])
def test_judging_rows_are_answered_by_fits_without_their_texts(judges, folds, copied):
    rows, label = _texts()
    hashes = np.arange(150)
    if copied:  # under other labels, too
        hashes = _copies(hashes, np.random.default_rng(1))
        rows = [rows[hash] for hash in hashes]
    words = _word_rows(rows, label, judges, hashes)
    fitter = _fitter(words)
    found, record = fitter.log_probabilities, fitter.fit().record["words"]
    assert found.shape == (len(judges), 3)
    fold = Texts(words.hashes[judges]).folds(folds, 0)
    assert folds == ceil(5 * len(judges) / 150)
    for n in range(folds):
        held = judges[fold == n]
        train = np.flatnonzero(~np.isin(hashes, hashes[held]))
        theirs = _theirs(
            [rows[i] for i in train],
            label[train],
            record["min_count"],
            record["penalty"],
            [rows[i] for i in held],
        )
        expected = np.exp(log_softmax(record["temperature"] * theirs, axis=1))
        np.testing.assert_allclose(np.exp(found[fold == n]), expected, atol=_HALVED)


def test_the_fit_that_answers_is_that_of_all_rows():
    rows, label = _texts()
    fit = _fitter(_word_rows(rows, label, np.arange(0, 150, 5))).fit()
    record, fresh = fit.record["words"], _texts(seed=9)[0]
    theirs = _theirs(rows, label, record["min_count"], record["penalty"], fresh)
    expected = np.exp(log_softmax(record["temperature"] * theirs, axis=1))
    found = np.exp(fit.parameters.logs(token_ids(fresh)))
    np.testing.assert_allclose(found, expected, atol=_HALVED)
    assert (record["rows"], record["ngrams"]) == (150, len(fit.parameters.codes))
    assert expected.max(axis=1).mean() > 0.5, "there is something to say"


def test_what_the_entries_get_are_the_cross_fitted_answers():
    rows, label = _texts()
    fitter = _fitter(_word_rows(rows, label))
    answers = fitter.fit().answers
    np.testing.assert_array_equal(answers.answers[:, 0], fitter.log_probabilities.argmax(axis=1))
    sure = np.exp(fitter.log_probabilities.max(axis=1))
    np.testing.assert_allclose(answers.confidences[:, 0], sure, atol=1e-6)


@pytest.mark.parametrize("row", [0, 31, 149])
def test_an_ngram_that_a_row_alone_has_is_no_part_of_its_answer(row):
    rows, label = _texts()
    before = _fitter(_word_rows(rows, label)).log_probabilities[row]
    others = [ids.copy() for ids in rows]
    others[row] = np.concatenate([rows[row], np.arange(5_000, 5_020, dtype=np.int32)])
    found = _fitter(_word_rows(others, label))
    assert found.fit().record["words"]["min_count"] in (1, 2)
    np.testing.assert_allclose(np.exp(found.log_probabilities[row]), np.exp(before), atol=_HALVED)


def test_rows_that_mean_nothing_are_not_known_by_heart_and_copies_give_nothing_away():
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, 10_000, 8).astype(np.int32) for _ in range(100)]
    label = generator.integers(0, 2, 100).astype(np.uint16)
    twice = np.r_[np.arange(100), np.arange(100)]
    words = _word_rows([rows[i] for i in twice], label[twice], hashes=twice)
    fitter = _fitter(words, labels=2)
    assert (fitter.log_probabilities.argmax(axis=1) == label[twice]).mean() < 0.65
    by_row = _fitter(_word_rows([rows[i] for i in twice], label[twice]), labels=2)
    assert (by_row.log_probabilities.argmax(axis=1) == label[twice]).mean() > 0.9


def test_rare_ngrams_are_left_out_if_they_do_not_help_and_kept_if_they_do():
    label = np.random.default_rng(0).integers(0, 3, 150).astype(np.uint16)
    told = [np.array([100 + of, 1_000 + row], np.int32) for row, of in enumerate(label)]
    fit = _fitter(_word_rows(told, label)).fit()
    assert fit.record["words"]["min_count"] == 2
    assert fit.parameters.codes.tolist() == [100, 101, 102]
    # Each row has a token that one other row has, of the same label: to most held rows a token
    # tells the label that occurs once in the rows that are fitted on.
    generator = np.random.default_rng(1)
    label = np.repeat(generator.integers(0, 3, 75), 2).astype(np.uint16)
    pairs = [np.array([*generator.integers(0, 9, 5), 500 + i // 2], np.int32) for i in range(150)]
    fit = _fitter(_word_rows(pairs, label)).fit()
    assert fit.record["words"]["min_count"] == 1
    assert set(range(500, 575)) <= set(fit.parameters.codes.tolist())


def test_a_fit_that_begins_near_an_earlier_one_ends_where_a_fit_from_nothing_does():
    rows, label = _texts()
    earlier = _fitter(_word_rows(rows[:120], label[:120])).fit().parameters
    words = _word_rows(rows, label)
    cold, warm = _fitter(words), _fitter(words, before={"words": earlier})
    np.testing.assert_allclose(warm.log_probabilities, cold.log_probabilities, atol=2e-2)
    ours, theirs = warm.fit().parameters, cold.fit().parameters
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    fresh = token_ids(_texts(seed=7)[0])
    np.testing.assert_allclose(ours.logs(fresh), theirs.logs(fresh), atol=2e-2)


def test_an_earlier_fit_is_taken_by_its_ngrams_and_others_begin_at_0():
    codes = np.array([code_of(ngram) for ngram in ((3,), (7,), (3, 7), (9, 9))])
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    earlier = Ngrams(codes, np.ones(4, np.float32), SparseMap(weights, np.array([0.5, -0.5])), 1.0)
    asked = np.array([code_of(ngram) for ngram in ((1,), (7,), (9,), (9, 9))])
    near = earlier.near(asked)
    assert near.weights.tolist() == [[0, 0], [2, 3], [0, 0], [6, 7]]
    assert near.biases.tolist() == [0.5, -0.5]


def test_what_is_stored_says_the_same_after_it_was_read():
    rows, label = _texts(labels=3)
    label[label == 1] = 2  # a label that it has not seen
    fitted = _fitter(_word_rows(rows, label)).fit().parameters
    arrays = READER.arrays(fitted)
    assert arrays["words_weights"].dtype == np.float16
    read = READER.from_arrays(safetensors.numpy.load(safetensors.numpy.save(arrays)))
    fresh = token_ids(_texts(seed=5)[0])
    np.testing.assert_array_equal(read.logs(fresh), fitted.logs(fresh))
    np.testing.assert_array_equal(np.exp(read.logs(fresh))[:, 1], 0)


def test_77_labels_and_10_000_rows_take_less_than_20_megabytes():
    """Tokens as often as in a language: the n-th with a share of 1 / n."""
    generator = np.random.default_rng(0)
    share = 1 / np.arange(1, 20_001)
    ids = generator.choice(20_000, (10_000, 12), p=share / share.sum()).astype(np.int32)
    codes, counts = count_ngrams(token_ids(list(ids)))
    assert len(codes) > 50_000
    weights = np.zeros((len(codes), 77), np.float32)
    arrays = READER.arrays(Ngrams(codes, idf_of(counts), SparseMap(weights, np.zeros(77)), 1.0))
    assert len(safetensors.numpy.save(arrays)) < 20e6


@pytest.mark.parametrize(
    ("label", "hashes"),
    [
        *(([0], [0]), ([1, 1], [0, 0]), ([0, 1], [0, 0]), ([0, 2], [0, 1]), ([2, 2], [0, 1])),
        *(([0, 1, 2], [0, 1, 2]), ([0, 1, 1], [0, 1, 1]), ([1, 1, 1], [0, 1, 2])),
    ],
    ids=str,
)
@pytest.mark.parametrize("tokens", [0, 4])
def test_very_few_rows_get_distributions_too(label, hashes, tokens):
    rows = [np.arange(hash, hash + tokens, dtype=np.int32) for hash in hashes]
    words = _word_rows(rows, np.array(label, np.uint16), hashes=np.array(hashes))
    fitter = _fitter(words)
    fitted = fitter.fit().parameters
    unseen = token_ids([np.array([77], np.int32), np.zeros(0, np.int32)])
    for found in (fitter.log_probabilities, fitted.logs(words.token_ids), fitted.logs(unseen)):
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)
    assert fitted.temperature > 0
