"""What an unlabelled corpus shows when it is compared with a database.

That is how far its rows lie from the database's own, and in what shares it holds the labels.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

_COMPARED = 20_000
"""Distances of each side that a test compares: with more, any two corpora differ."""

_LEVEL = 0.01
"""Chance that shares without a shift are reported to differ."""

_LEAST_RATIO = 1e-3
"""The least ratio of a label's share to the database's: a reader that is a thousand times surer
still gives the label."""


@dataclass(frozen=True)
class Drift:
    """How a corpus's rows lie compared with the database's own: by nearest distance or score."""

    statistic: float
    """Largest difference of the two distribution functions, from 0 to 1."""
    p_value: float
    """P-value of the hypothesis that there is no difference; two-sided."""
    direction: Literal["farther", "nearer"]
    """On which side the corpus's rows lie at the largest difference."""


@dataclass(frozen=True)
class Shares:
    """In what shares a database and a corpus hold the labels."""

    database: Array
    """(labels,) the shares of the database's labels."""
    predicted: Array
    """(labels,) the shares of a policy's answers on the corpus, as they are."""
    estimated: Array
    """(labels,) the shares of the corpus's labels, with the policy's mistakes allowed for; 0 for a
    label that the database lacks."""
    standard_error: Array
    """(labels,) the standard error of the estimate."""
    p_value: float
    """P-value of the hypothesis that the policy answers alike on both, as it does without a
    shift."""


def far_distance(nearest: NDArray[np.float32], quantile: float) -> float:
    """The squared L2 distance beyond which a row is far.

    nearest: (rows,) squared L2 distance of each database row to the nearest other; those that are
    not finite are left out.  The result is their quantile; inf if none is known, so that nothing
    is far.
    """
    known = _known(nearest)
    return float(np.quantile(known, quantile)) if len(known) else np.inf


def drift(of_corpus: NDArray[np.float32], of_database: NDArray[np.float32]) -> Drift | None:
    """The two-sample Kolmogorov-Smirnov test on nearest distances or scores of `statistics.far`.

    Both (rows,), larger is farther; those that are not finite are left out, and if a side has many,
    its evenly spread quantiles are compared.  None if a side has none.  Database rows that are each
    other's nearest share a distance, so a database smaller than the corpus carries less evidence
    than the test assumes: without drift, p < .01 came up in 3 of 100 simulated ones.
    """
    from scipy.stats import ks_2samp  # slow to import

    corpus, database = _spread(of_corpus), _spread(of_database)
    if not len(corpus) or not len(database):
        return None
    found = ks_2samp(corpus, database)
    # The sign says which distribution function is the larger one there: of smaller values.
    direction: Literal["farther", "nearer"] = "nearer" if found.statistic_sign > 0 else "farther"
    return Drift(float(found.statistic), float(found.pvalue), direction)


def estimate_shares(
    answers: NDArray[np.uint16],
    label: NDArray[np.uint16],
    predicted_counts: NDArray[np.int64],
    labels: int,
) -> Shares:
    """In what shares a corpus holds the labels: black-box shift estimation (arXiv 1802.03916).

    answers, label: (rows,) a policy's leave-one-out answers on at least one database row, and the
    right ones; predicted_counts: (labels,) how often it gives each answer on the corpus; labels:
    how many there are.  With
    C[j, c] = P(answer j, label c) on the database and mu[j] = P(answer j) on the corpus, label c
    weighs w[c] times as much in the corpus as in the database, and C w = mu: provided that rows of
    one label are alike in both.

    Solving that directly fails if the answers hardly tell some labels apart: noise in mu comes out
    as shares of any size, and clipping them at 0 disturbs those of other labels, too.
    So w >= 0 minimises, with N the covariance of the noise in C w - mu and s the database's shares,

        (C w - mu)' N^-1 (C w - mu) + sum_c s_c (w_c - 1)^2

    The second term weighs as much as one corpus row of known label.  If answers tell labels
    apart, it vanishes; if they do not, the shares stay as they are in the database (the same
    remedy as arXiv 1903.09734), with the standard error of a guess from one row.  An empty corpus
    says nothing.
    """
    rows, corpus_rows = len(label), int(predicted_counts.sum())
    pairs = np.bincount(answers.astype(np.int64) * labels + label, minlength=labels * labels)
    joint = pairs.reshape(labels, labels) / rows
    database, answered = joint.sum(axis=0), joint.sum(axis=1)
    predicted = predicted_counts / corpus_rows if corpus_rows else answered
    corpus_rows = max(corpus_rows, 1)
    seen = np.flatnonzero(database)
    known, share = joint[:, seen], database[seen]

    def whitening(weights: Array) -> Array:
        """A matrix W for which W' W is N^-1, (labels, labels).

        The noise is that of the corpus's answers and of each label's answers in the database.  An
        answer that did not occur might have: each of these distributions counts with one row more,
        spread over all answers.
        """
        squared = weights**2
        of_labels = np.diag(known @ squared + squared.sum() / (rows * labels))
        of_labels -= (known * (squared / share)) @ known.T
        noise = of_labels / rows + _sampling(predicted, corpus_rows, 1 / labels)
        return np.linalg.inv(np.linalg.cholesky(noise))

    white = whitening(np.ones(len(seen)))
    prior = np.sqrt(share)
    weights, _ = nnls(
        np.concatenate([white @ known, np.diag(prior)]), np.concatenate([white @ predicted, prior])
    )
    estimated, error = np.zeros(labels), np.zeros(labels)
    estimated[seen] = weights * share / (weights @ share)
    # With the noise at the estimate: a rare label that became frequent is poorly known.
    found = whitening(estimated[seen] / share) @ known
    error[seen] = share * np.sqrt(np.diag(np.linalg.inv(found.T @ found + np.diag(share))))
    return Shares(
        database, predicted, estimated, error, _p_value(answered, rows, predicted, corpus_rows)
    )


def differs(shares: Shares) -> bool:
    """Whether a corpus holds the labels in other shares than the database, beyond noise.

    The level is 1 %.  The policy's answers are compared, because other shares of labels show in
    them and the noise of the confusions does not enter (black-box shift detection, arXiv
    1802.03916).
    """
    return shares.p_value < _LEVEL


def shrunk(shares: Shares) -> Shares:
    """The same with the estimate drawn towards the database's shares, by as much as it is noise.

    The positive part of James and Stein's estimator (1961): of n labels that moved by z standard
    errors each, the share 1 - n / sum z^2 of the move is kept.  A move of two labels by three
    standard errors keeps 0.89 of it, one that is all noise about nothing.
    """
    moved = shares.estimated - shares.database
    known = shares.standard_error > 0
    squares = np.square(moved[known] / shares.standard_error[known]).sum()
    kept = max(0.0, 1 - known.sum() / squares) if squares > 0 else 0.0
    return replace(shares, estimated=shares.database + kept * moved)


def prior_ratio(shares: Shares) -> Array:
    """(labels,) the factors on readers' distributions that suit the corpus's shares.

    P(label | row) goes with the label's share (Saerens, Latinne, Decaestecker, Neural Computation
    14, 2002): the ratio is estimated to database share, at least a thousandth, so that no label is
    ruled out by an estimate of 0.  A label that the database lacks has 1: nothing is known of it.
    """
    there = shares.database > 0
    ratio = shares.estimated / np.where(there, shares.database, 1.0)
    return np.where(there, np.maximum(ratio, _LEAST_RATIO), 1.0)


def _known(nearest: NDArray[np.float32]) -> Array:
    return nearest[np.isfinite(nearest)].astype(np.float64)


def _spread(nearest: NDArray[np.float32]) -> Array:
    """The known distances, sorted; if there are many, some of them, evenly spread."""
    known = np.sort(_known(nearest))
    if len(known) <= _COMPARED:
        return known
    return known[np.linspace(0, len(known) - 1, _COMPARED).round().astype(np.int64)]


def _sampling(share: Array, rows: int, more: float) -> Array:
    """Covariance (labels, labels) of a sample's shares; `more` rows of each add to the variance."""
    return (np.diag(share + more / rows) - np.outer(share, share)) / rows


def _p_value(answered: Array, rows: int, predicted: Array, corpus_rows: int) -> float:
    """P-value of the hypothesis that two samples' answers are of one population.

    The test is normal and two-sided on the answer that differs most, over all answers together
    (Bonferroni); two answers differ by the same, so that is one comparison.  A rare answer's counts
    are skewed: one row more of each keeps a few chance answers from being a discovery.
    """
    from scipy.stats import norm  # slow to import

    pooled = (answered * rows + predicted * corpus_rows) / (rows + corpus_rows)
    noise = np.diag(_sampling(pooled, rows, 1.0) + _sampling(pooled, corpus_rows, 1.0))
    apart = (np.abs(predicted - answered) / np.sqrt(noise)).max()
    comparisons = len(answered) if len(answered) > 2 else 1
    return min(1.0, float(2 * norm.sf(apart)) * comparisons)
