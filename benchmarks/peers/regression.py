"""Logistic regression with the same care for every peer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
_STRENGTHS = np.logspace(-1, 2, 7)
_STANDARDIZED = np.logspace(-4, -1, 7)
_OF_WORDS = np.logspace(0, 3, 7)
"""The values of C that are tried: for unit vectors, for features of variance 1, which are larger,
and for TF-IDF."""
_STEPS = 1_000


class Fitted(NamedTuple):
    """A regression on all train rows, and how it was chosen."""

    model: Pipeline
    notes: dict[str, Any]


def folds() -> StratifiedKFold:
    """The parts of a cross-validation; some data sets lie in the order of their labels."""
    return StratifiedKFold(FOLDS, shuffle=True, random_state=0)


def fit_vectors(vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> Fitted:
    """A regression on unit vectors (rows, width), standardized or not, whichever is better."""
    plain = _fit((), _STRENGTHS, vectors, labels)
    standardized = _fit((StandardScaler(),), _STANDARDIZED, vectors, labels)
    return max(plain, standardized, key=lambda found: found.notes["cross_validated"])


def fit_words(vectorizer: Any, texts: Sequence[str], labels: NDArray[np.int64]) -> Fitted:
    """A regression on what a vectorizer makes of texts."""
    return _fit((vectorizer,), _OF_WORDS, texts, labels)


def _fit(
    before: tuple[Any, ...], strengths: NDArray[np.float64], features: Any, labels: Any
) -> Fitted:
    """A regression after other steps.  C has the best cross-validated accuracy on these rows."""
    last = LogisticRegressionCV(
        Cs=strengths,
        l1_ratios=(0,),
        cv=folds(),
        scoring="accuracy",
        max_iter=_STEPS,
        use_legacy_attributes=False,
    )
    model = make_pipeline(*before, last).fit(features, labels)
    best = float(last.scores_.mean(axis=0).max())
    steps = [type(step).__name__ for step in before]
    return Fitted(model, {"C": float(last.C_), "cross_validated": best, "after": steps})
