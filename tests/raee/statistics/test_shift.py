"""What a corpus says about itself: far rows, drift, and the shares in which it holds the labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from raee.statistics.shift import (
    Shares,
    differs,
    drift,
    estimate_shares,
    far_distance,
    prior_ratio,
    shrunk,
)

_UNKNOWN = st.sampled_from([np.float32(np.nan), np.float32(np.inf)])
_DISTANCES = arrays(np.float32, st.integers(1, 50), elements=st.floats(0, 4, width=32))


@given(nearest=_DISTANCES, quantiles=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)))
def test_a_higher_quantile_makes_fewer_rows_far(nearest, quantiles):
    low, high = sorted(quantiles)
    assert far_distance(nearest, low) <= far_distance(nearest, high)


@given(nearest=_DISTANCES, quantile=st.floats(0.01, 0.99))
def test_about_the_quantiles_complement_of_the_databases_rows_is_far(nearest, quantile):
    far = np.count_nonzero(nearest > far_distance(nearest, quantile))
    assert far <= (1 - quantile) * len(nearest) + 1


def test_rows_all_at_one_distance_are_not_far():
    nearest = np.full(9, 0.1, np.float32)
    assert not (nearest > far_distance(nearest, 0.999)).any()


@given(nearest=_DISTANCES, unknown=st.lists(_UNKNOWN, max_size=5))
def test_rows_without_a_known_distance_do_not_move_the_limit(nearest, unknown):
    more = np.concatenate([nearest, np.array(unknown, np.float32)])
    assert far_distance(more, 0.9) == far_distance(nearest, 0.9)


@pytest.mark.parametrize("nearest", [[], [np.inf], [np.nan, np.nan]])
def test_where_no_distance_is_known_nothing_is_far(nearest):
    assert far_distance(np.array(nearest, np.float32), 0.999) == np.inf


def _squared(random, rows, shift=0.0):
    return np.square(random.normal(shift, 1, rows)).astype(np.float32)


def test_a_corpus_like_the_database_does_not_drift_and_another_does():
    random = np.random.default_rng(0)
    database = _squared(random, 3_000)
    same, other = _squared(random, 2_000), _squared(random, 2_000, 1.0)
    assert drift(same, database).p_value > 0.05
    found = drift(other, database)
    assert found.p_value < 1e-6
    assert 0.05 < found.statistic < 0.5


def test_drift_is_the_largest_difference_of_the_distribution_functions():
    database = np.array([1, 2, 3, 4], np.float32)
    assert drift(np.array([3.5, 5], np.float32), database).statistic == pytest.approx(0.75)
    assert drift(database, database).p_value == 1.0


def test_drift_leaves_out_what_is_unknown():
    random = np.random.default_rng(1)
    corpus, database = _squared(random, 50), _squared(random, 60)
    unknown = np.array([np.nan, np.inf], np.float32)
    assert drift(np.append(unknown, corpus), np.append(database, unknown)) == drift(
        corpus, database
    )


@pytest.mark.parametrize("nothing", [[], [np.nan], [np.inf]])
def test_without_distances_on_a_side_there_is_no_drift_to_tell(nothing):
    some, none = np.ones(3, np.float32), np.array(nothing, np.float32)
    assert drift(some, none) is None
    assert drift(none, some) is None


def test_of_a_large_corpus_evenly_spread_rows_are_compared():
    random = np.random.default_rng(2)
    corpus, database = _squared(random, 300_000), _squared(random, 30_000, 0.05)
    exact = np.abs(
        np.searchsorted(np.sort(corpus), database) / len(corpus)
        - np.searchsorted(np.sort(database), database) / len(database)
    ).max()
    assert drift(corpus, database).statistic == pytest.approx(exact, abs=2e-4)


def _database(counts):
    """Answers and labels with so many rows of each pair; counts: (answers, labels)."""
    pairs = np.argwhere(counts >= 0).repeat(counts.ravel(), axis=0)
    return pairs[:, 0].astype(np.uint16), pairs[:, 1].astype(np.uint16)


def _estimate(counts, predicted_counts) -> Shares:
    return estimate_shares(*_database(counts), np.asarray(predicted_counts), len(counts))


def _expected(counts, weights):
    """Expected counts of answers on a corpus whose labels weigh so much, in a million rows."""
    seen = (counts * weights).sum(axis=1)
    return (seen / seen.sum() * 1_000_000).round().astype(np.int64)


@settings(max_examples=60)
@given(data=st.data(), labels=st.integers(2, 5))
def test_exact_confusions_and_counts_give_the_true_shares_back(data, labels):
    wrong = data.draw(arrays(np.int64, (labels, labels), elements=st.integers(0, 300)))
    right = data.draw(arrays(np.int64, labels, elements=st.integers(1_000, 3_000)))
    counts = np.where(np.eye(labels, dtype=bool), right * 2, wrong)
    weights = data.draw(arrays(np.float64, labels, elements=st.floats(0.05, 5)))
    true = counts.sum(axis=0) * weights
    found = _estimate(counts, _expected(counts, weights))
    assert found.estimated == pytest.approx(true / true.sum(), abs=0.002)
    assert found.database == pytest.approx(counts.sum(axis=0) / counts.sum())


_PAIRS = st.integers(1, 4).flatmap(
    lambda labels: st.tuples(
        arrays(np.int64, (labels, labels), elements=st.integers(0, 20)).filter(np.any),
        arrays(np.int64, labels, elements=st.sampled_from([0, 1, 7, 100_000_000])),
    )
)


@given(pairs=_PAIRS)
def test_whatever_the_answers_shares_are_shares_and_ratios_are_finite_and_positive(pairs):
    counts, predicted_counts = pairs
    found = _estimate(counts, predicted_counts)
    for shares in (found.database, found.predicted, found.estimated):
        assert shares.sum() == pytest.approx(1)
        assert (shares >= 0).all()
    absent = counts.sum(axis=0) == 0
    assert (found.estimated[absent] == 0).all()
    assert (found.standard_error[~absent] > 0).all() or (~absent).sum() == 1
    assert (found.standard_error <= 1).all()
    assert 0 <= found.p_value <= 1
    ratio = prior_ratio(found)
    assert np.isfinite(ratio).all()
    assert (ratio > 0).all()
    assert (ratio[absent] == 1).all()


@given(pairs=_PAIRS, data=st.data())
def test_shares_follow_the_labels_whatever_their_order(pairs, data):
    counts, predicted_counts = pairs
    moved = np.array(data.draw(st.permutations(range(len(counts)))))
    found = _estimate(counts, predicted_counts)
    other = _estimate(counts[moved][:, moved], predicted_counts[moved])
    assert other.estimated == pytest.approx(found.estimated[moved], abs=1e-6)
    assert other.standard_error == pytest.approx(found.standard_error[moved], abs=1e-6)


@given(
    counts=arrays(np.int64, (3, 3), elements=st.integers(1, 50)), times=st.sampled_from([1, 10_000])
)
def test_a_corpus_answered_like_the_database_has_its_shares(counts, times):
    found = _estimate(counts, counts.sum(axis=1) * times)
    assert found.estimated == pytest.approx(found.database, abs=1e-6)
    assert prior_ratio(found) == pytest.approx(1, abs=1e-4)
    assert not differs(found)


def test_an_empty_corpus_says_nothing():
    found = _estimate(np.array([[30, 10], [5, 55]]), [0, 0])
    assert found.estimated == pytest.approx(found.database)
    assert not differs(found)


def test_answers_that_tell_no_labels_apart_leave_their_shares_as_they_are():
    # Whatever the label, the first answer: any shares of the labels explain that.
    counts = np.array([[600, 300, 100], [0, 0, 0], [0, 0, 0]])
    found = _estimate(counts, [1_000_000, 0, 0])
    assert found.estimated == pytest.approx(found.database)
    share = found.database
    assert found.standard_error == pytest.approx(np.sqrt(share * (1 - share)), rel=0.01)
    assert not differs(found)


def test_labels_that_are_not_told_apart_do_not_disturb_the_others():
    # The last two labels, together a tenth of the corpus, get the same answers but for noise: any
    # split of the two would do, and the equations' own solution is far outside.
    counts = np.array([[5_000, 0, 0], [0, 1_260, 1_240], [0, 1_240, 1_260]])
    predicted = np.array([90_000, 4_700, 5_300])
    solved = np.clip(np.linalg.solve(counts / 10_000, predicted / 100_000), 0, None)
    clipped = solved * [0.5, 0.25, 0.25]
    assert clipped[0] / clipped.sum() < 0.7
    found = _estimate(counts, predicted)
    assert found.estimated[0] == pytest.approx(0.9, abs=0.001)
    assert found.standard_error[0] < 0.005
    assert found.standard_error[1] > 0.05


def test_a_label_that_seems_absent_keeps_a_thousandth_of_its_chance():
    found = _estimate(np.array([[500, 0], [0, 500]]), [1_000_000, 0])
    assert found.estimated == pytest.approx([1, 0], abs=1e-4)
    assert prior_ratio(found) == pytest.approx([2, 0.001], rel=0.2)


@given(pairs=_PAIRS)
def test_a_shrunk_estimate_lies_between_the_database_and_the_estimate(pairs):
    found = _estimate(*pairs)
    moved, kept = found.estimated - found.database, shrunk(found).estimated - found.database
    largest = np.abs(moved).argmax()
    share = kept[largest] / moved[largest] if moved[largest] else 0.0
    assert 0 <= share <= 1
    assert kept == pytest.approx(share * moved, abs=1e-9)


def test_a_shrunk_estimate_keeps_what_is_beyond_noise_and_drops_what_is_not():
    def kept(z):
        moved = np.array([1, -1]) * z * 0.02
        half = np.array([0.5, 0.5])
        found = shrunk(Shares(half, half, half + moved, np.full(2, 0.02), 0.0))
        return (found.estimated - half)[0] / (z * 0.02)

    assert [kept(z) for z in (0.5, 1.0, 3.0, 10.0)] == pytest.approx([0, 0, 8 / 9, 0.99])


def _simulated(random, confusion, database_shares, corpus_shares, rows, corpus_rows) -> Shares:
    """An estimate from samples; confusion: (answers, labels) P(answer | label)."""
    joint = (confusion * database_shares).ravel()
    counts = random.multinomial(rows, joint).reshape(confusion.shape)
    return _estimate(counts, random.multinomial(corpus_rows, confusion @ corpus_shares))


_CONFUSION = np.array([[0.8, 0.1, 0.2], [0.15, 0.7, 0.2], [0.05, 0.2, 0.6]])
_BINARY = np.array([[0.8, 0.1], [0.2, 0.9]])
_SHARES = np.array([0.5, 0.3, 0.2])
_SHIFTED = np.array([0.25, 0.3, 0.45])


@pytest.mark.parametrize(("rows", "corpus_rows"), [(400, 400), (400, 50_000), (4_000, 300)])
@pytest.mark.parametrize("corpus_shares", [_SHARES, _SHIFTED])
def test_two_standard_errors_hold_the_true_shares_about_95_times_in_100(
    rows, corpus_rows, corpus_shares
):
    random, held = np.random.default_rng(0), []
    for _ in range(300):
        found = _simulated(random, _CONFUSION, _SHARES, corpus_shares, rows, corpus_rows)
        held.append(np.abs(found.estimated - corpus_shares) <= 1.96 * found.standard_error)
    # 900 in all, of which each draw's three go together: a standard error of 1.3 points at most.
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize(("rows", "corpus_rows"), [(400, 400), (400, 50_000), (4_000, 300)])
@pytest.mark.parametrize("labels", [2, 3])
def test_without_a_shift_at_most_about_one_corpus_in_a_hundred_is_said_to_differ(
    rows, corpus_rows, labels
):
    random = np.random.default_rng(1)
    confusion, shares = (_CONFUSION, _SHARES) if labels == 3 else (_BINARY, np.array([0.7, 0.3]))
    found = [
        differs(_simulated(random, confusion, shares, shares, rows, corpus_rows))
        for _ in range(500)
    ]
    assert np.mean(found) <= 0.02


def test_two_answers_are_compared_once():
    # Their shares differ by the same: the chance of that is the one of a single test.
    answers = np.repeat([0, 1], [600, 400]).astype(np.uint16)
    found = estimate_shares(answers, answers, np.array([660, 340]), 2)
    apart = 0.06 / np.sqrt(2 * (0.63 * 0.37 + 1 / 1_000) / 1_000)
    assert found.p_value == pytest.approx(2 * norm.sf(apart), rel=0.02)


def test_chance_rows_of_rare_labels_do_not_make_a_corpus_differ():
    # 40 rare labels of which a corpus holds a row or two, or none.
    random = np.random.default_rng(2)
    confusion = 0.9 * np.eye(42) + 0.1 / 42
    shares = np.append(np.full(40, 0.002), [0.5, 0.42])
    found = [differs(_simulated(random, confusion, shares, shares, 5_000, 50)) for _ in range(150)]
    assert np.mean(found) <= 0.02


def test_a_strong_shift_is_found_nearly_always():
    random = np.random.default_rng(3)
    found = [
        differs(_simulated(random, _CONFUSION, _SHARES, _SHIFTED, 400, 400)) for _ in range(100)
    ]
    assert np.mean(found) >= 0.95


def test_the_prior_ratio_makes_a_reader_suit_the_corpus():
    # A reader that knows P(label | row) on the database answers more corpus rows rightly with the
    # ratio than without.
    random = np.random.default_rng(4)

    def rows_of(shares, rows):
        label = random.choice(3, rows, p=shares)
        return random.normal(label[:, None] == np.arange(3), 1.2), label

    def chances(x):
        odds = _SHARES * np.exp(x / 1.2**2)
        return odds / odds.sum(axis=1, keepdims=True)

    x, label = rows_of(_SHARES, 3_000)
    y, right = rows_of(np.array([0.05, 0.15, 0.8]), 3_000)
    plain = chances(y).argmax(axis=1)
    found = estimate_shares(
        chances(x).argmax(axis=1).astype(np.uint16),
        label.astype(np.uint16),
        np.bincount(plain, minlength=3),
        3,
    )
    assert differs(found)
    suited = (chances(y) * prior_ratio(found)).argmax(axis=1)
    assert np.mean(suited == right) > np.mean(plain == right) + 0.1
