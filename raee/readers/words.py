"""`words`: n-grams and logistic regression, before the model runs.

Uni- and bigrams of the backbone's own token ids, weighted by TF-IDF, and multinomial logistic
regression to its optimum: what ten lines of scikit-learn do, and every figure is compared with.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from raee.answers import answers_of
from raee.drawn import evenly
from raee.readers.fit import FOLDS, Fit
from raee.readers.linear import NO_PROBABILITY, Array, fit_likelihood, fit_temperature
from raee.readers.ngrams import Codes, TokenIds, count_known, count_ngrams, idf_of, weighted
from raee.readers.reader import BeforeWalk, Due, Here, Look, Reader, Reading
from raee.readers.sparse_regression import SparseMap, regress_sparse
from raee.texts import Texts

if TYPE_CHECKING:
    from raee.readers.fit import Fitting

PENALTIES = (3.0, 10.0, 30.0)
"""Inverse strengths (scikit-learn's C) that are tried."""

MIN_COUNTS = (2, 1)
"""Rows in which an n-gram occurs at least: as it is, and if rare ones help."""

_TRIED_ON = 5_000
"""Rows on which penalty and counts are chosen, at most, and rows by which."""

_FITS_AT_ONCE = 2


@dataclass(frozen=True)
class Ngrams:
    """The fitted reader."""

    codes: Codes
    """(n-grams,) those that it knows."""
    idf: NDArray[np.float32]
    """(n-grams,) their inverse document frequencies."""
    map: SparseMap
    """Weights (n-grams, labels), each a number of half precision, and biases."""
    temperature: float

    def rows(self, token_ids: TokenIds) -> sp.csr_matrix:
        """(rows, n-grams) what it reads of rows."""
        return weighted(count_known(token_ids, self.codes), self.idf)

    def logs(self, token_ids: TokenIds) -> Array:
        """(rows, labels) log-probabilities; NO_PROBABILITY of a label that the fit has not seen."""
        scores = self.temperature * self.map.scores(self.rows(token_ids))
        return np.maximum(log_softmax(scores, axis=1), NO_PROBABILITY)

    def near(self, codes: Codes) -> SparseMap:
        """Its map for other n-grams, to begin a search with; 0 for those that it does not know."""
        weights = np.zeros((len(codes), self.map.weights.shape[1]), np.float32)
        _, ours, theirs = np.intersect1d(self.codes, codes, True, return_indices=True)
        weights[theirs] = self.map.weights[ours]
        return SparseMap(weights, self.map.biases)


class Words(Reader):
    """N-grams of token ids and logistic regression."""

    name = "words"
    clause = "the regression on n-grams"
    description = "n-grams of the text and logistic regression, without the model"
    look = Look("c6", "P", "none")
    before_walk = True

    def depths(self, deepest: int, key_depths: Sequence[int]) -> Sequence[int]:
        """Before the first layer."""
        return (0,)

    def fitter(self, fitting: Fitting) -> WordsFitter:
        """Fits on token ids; states say nothing to it."""
        return WordsFitter(fitting)

    def arrays(self, parameters: Ngrams) -> dict[str, NDArray[Any]]:
        """N-grams, weights in half precision, biases and temperature."""
        return {
            "words_codes": parameters.codes,
            "words_idf": parameters.idf,
            "words_weights": parameters.map.weights.astype(np.float16),
            "words_biases": parameters.map.biases,
            "words_temperature": np.array([parameters.temperature]),
        }

    def from_arrays(self, arrays: dict[str, NDArray[Any]]) -> Ngrams:
        """The fitted reader."""
        weights = arrays["words_weights"].astype(np.float32)
        return Ngrams(
            arrays["words_codes"],
            arrays["words_idf"],
            SparseMap(weights, arrays["words_biases"]),
            float(arrays["words_temperature"][0]),
        )

    def read(self, here: Here, due: Due) -> Reading:
        """The probabilities of rows by their token ids."""
        return self.read_early(here, due)

    def read_early(self, here: BeforeWalk, due: Due) -> Reading:
        """The probabilities of rows by their token ids."""
        return Reading(softmax(self.logs(here, due), axis=1))

    def logs(self, here: BeforeWalk, due: Due) -> Array:
        """(due, labels) log-probabilities."""
        fitted: Ngrams = here.parameters(self.name)
        return fitted.logs(here.token_ids(due))


class WordsFitter:
    """The fit of the n-grams."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting, self._rows = fitting, fitting.words
        fitting.plan(len(PENALTIES) + 2 + len(self._folds))  # with rare n-grams, and of all rows

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Nothing: it reads token ids."""

    @property
    def log_probabilities(self) -> Array:
        """(judging rows, labels) cross-fitted log-probabilities."""
        return self._fitted[1]

    def fit(self) -> Fit:
        """The map of all rows, and the cross-fitted answers of those that carry the figures."""
        ngrams, logs = self._fitted
        min_count, penalty, _ = self._chosen
        record = {
            "words": {
                "rows": len(self._rows.label),
                "ngrams": len(ngrams.codes),
                "min_count": min_count,
                "penalty": penalty,
                "temperature": ngrams.temperature,
            }
        }
        return Fit(ngrams, answers_of([np.exp(logs)]), record)

    @cached_property
    def _counted(self) -> tuple[Codes, sp.csr_matrix]:
        return count_ngrams(self._rows.token_ids)

    @cached_property
    def _folds(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Rows that are fitted on, and judging rows that are held out: a fifth of all, or fewer.

        All rows with a text that is held out are left out of the fit.
        """
        rows, judges = self._rows, self._rows.judges
        texts = Texts(rows.hashes)
        if len(texts) < 2:  # nothing can be held out
            return [(np.arange(len(rows.label)), judges)]
        judging = Texts(rows.hashes[judges])
        number = min(len(judging), math.ceil(FOLDS * len(judges) / len(rows.label)))
        fold_of_text = np.full(len(texts), -1)
        fold_of_text[texts.number[judges]] = judging.folds(number, self._fitting.seed)
        fold = fold_of_text[texts.number]
        return [(np.flatnonzero(fold != n), judges[fold[judges] == n]) for n in range(number)]

    @cached_property
    def _chosen(self) -> tuple[int, float, Ngrams]:
        """How often an n-gram must occur, the penalty, and a fit with these on some of the rows.

        They are chosen on the first fold: the penalty is that under which the held out rows' labels
        are likeliest, and rare n-grams stay if more of the rows are right with them.
        """
        rows, (train, held) = self._rows, self._folds[0]
        train, held = (part[evenly(len(part), _TRIED_ON)] for part in (train, held))
        label = rows.label[held]
        few, many = MIN_COUNTS
        tried: dict[float, tuple[float, int, Ngrams]] = {}
        near = None
        for penalty in PENALTIES:
            near = self._fit_on(train, few, penalty, near)
            self._fitting.passed()
            scores = near.map.scores(self._read(near, held))
            likely = fit_likelihood(scores, label)[1]
            tried[penalty] = likely, int((scores.argmax(axis=1) == label).sum()), near
        penalty = max(PENALTIES, key=lambda p: tried[p][0])
        _, right, found = tried[penalty]
        with_rare = self._fit_on(train, many, penalty, found)
        self._fitting.passed()
        scores = with_rare.map.scores(self._read(with_rare, held))
        if (scores.argmax(axis=1) == label).sum() > right:
            return many, penalty, with_rare
        return few, penalty, found

    @cached_property
    def _fitted(self) -> tuple[Ngrams, Array]:
        """The fit of all rows, and the judging rows' cross-fitted log-probabilities."""
        rows, (min_count, penalty, tried) = self._rows, self._chosen
        near = self._fitting.before.get(READER.name, tried)
        every = np.arange(len(rows.label))
        whole = self._fit_on(every, min_count, penalty, near)
        self._fitting.passed()
        scores = np.zeros((len(rows.label), self._fitting.labels))

        def cross(fold: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
            train, held = fold
            found = self._fit_on(train, min_count, penalty, whole)
            scores[held] = found.map.scores(self._read(found, held))

        with ThreadPoolExecutor(min(_FITS_AT_ONCE, os.cpu_count() or 1)) as threads:
            for _ in threads.map(cross, self._folds):
                self._fitting.passed()
        judged, label = scores[rows.judges], rows.label[rows.judges]
        temperature = fit_temperature(judged, label)
        fitted = Ngrams(whole.codes, whole.idf, whole.map, temperature)
        return fitted, np.maximum(log_softmax(temperature * judged, axis=1), NO_PROBABILITY)

    def _fit_on(
        self, rows: NDArray[np.int64], min_count: int, penalty: float, near: Ngrams | None
    ) -> Ngrams:
        """The fit on some of the rows: they alone say which n-grams it knows."""
        codes, counts = self._counted
        counts = counts[rows]
        known = np.bincount(counts.indices, minlength=len(codes)) >= min_count
        codes, counts = codes[known], counts[:, known]
        idf = idf_of(counts)
        label, labels = self._rows.label[rows], self._fitting.labels
        begin = None if near is None else near.near(codes)
        found = regress_sparse(weighted(counts, idf), label, labels, penalty, begin)
        return Ngrams(codes, idf, _halved(found), 1.0)

    def _read(self, ngrams: Ngrams, rows: NDArray[np.int64]) -> sp.csr_matrix:
        """What a fit on other rows reads of some of the rows."""
        codes, counts = self._counted
        known = np.searchsorted(codes, ngrams.codes)
        return weighted(counts[rows][:, known], ngrams.idf)


def _halved(found: SparseMap) -> SparseMap:
    """A map as it is stored: what is judged is what answers."""
    return SparseMap(found.weights.astype(np.float16).astype(np.float32), found.biases)


READER = Words()
