import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm

from raee.statistics.paired import NOISE_LEVEL, Paired, better_beyond_noise, paired


@settings(max_examples=60)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_it_is_the_exact_paired_test(wins, losses, both):
    ours = np.repeat([True, False, True], [wins, losses, both])
    theirs = np.repeat([False, True, True], [wins, losses, both])
    expected = False
    if wins + losses:
        test = binomtest(wins, wins + losses, alternative="greater")
        expected = bool(test.pvalue < NOISE_LEVEL)
    assert better_beyond_noise(ours, theirs) is expected


def test_it_rarely_prefers_one_of_two_equals():
    generator = np.random.default_rng(0)
    draws, rows = 1_000, 300
    # Both are right on 70 % of the rows, mostly on the same ones.
    same = generator.random((draws, rows)) < 0.8
    right = generator.random((3, draws, rows)) < 0.7
    ours, theirs = np.where(same, right[0], right[1]), np.where(same, right[0], right[2])
    rate = np.mean([better_beyond_noise(a, b) for a, b in zip(ours, theirs, strict=True)])
    assert rate <= NOISE_LEVEL + 3 * np.sqrt(NOISE_LEVEL * (1 - NOISE_LEVEL) / draws)
    better = theirs | (generator.random((draws, rows)) < 0.2)
    assert np.mean([better_beyond_noise(a, b) for a, b in zip(better, theirs, strict=True)]) > 0.99


def test_a_p_value_looks_where_it_is_told():
    ours = np.array([True, True, True, False])
    theirs = np.array([False, False, False, True])
    found = paired(ours, theirs)
    assert (found.wins, found.losses) == (3, 1)
    assert found.p_value("greater") == pytest.approx(5 / 16)
    assert found.p_value("less") == pytest.approx(15 / 16)
    assert found.p_value() == pytest.approx(10 / 16)
    assert paired(ours, ours).p_value() == 1.0


@pytest.mark.parametrize("rows", [20, 60])
def test_the_interval_of_a_difference_keeps_its_confidence(rows):
    """Exactly: summed over all numbers of wins and losses, whatever the chances of either."""
    counts = [(won, lost) for won in range(rows + 1) for lost in range(rows + 1 - won)]
    wins, losses = np.array(counts).T
    found = np.array([Paired(w, n).difference_interval(rows, 0.95) for w, n in counts])
    covered = []
    for apart in (0.01, 0.03, 0.1, 0.2, 0.4, 0.8):
        for share in (0.0, 0.1, 0.25, 0.5):
            chance = binom.pmf(wins + losses, rows, apart)
            chance *= binom.pmf(wins, wins + losses, share)
            difference = apart * (2 * share - 1)
            held = (found[:, 0] <= difference) & (found[:, 1] >= difference)
            covered.append(chance[held].sum())
    assert min(covered) > 0.92
    assert np.mean(covered) < 0.985


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_the_interval_of_a_difference_holds_it_and_turns_with_it(wins, losses, both):
    rows = wins + losses + both
    assume(rows)
    low, high = Paired(wins, losses).difference_interval(rows, 0.95)
    assert -1 <= low <= (wins - losses) / rows <= high <= 1
    assert low < high
    turned = Paired(losses, wins).difference_interval(rows, 0.95)
    assert turned == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("wins", "losses", "rows"), [(10, 3, 90), (1, 4, 30), (40, 60, 944)])
def test_at_its_ends_a_score_test_just_refuses_the_difference(wins, losses, rows):
    for end, sign in zip(
        Paired(wins, losses).difference_interval(rows, 0.95), (1, -1), strict=True
    ):

        def unlikely(lost, end=end):
            """Less the log-likelihood, with the chance to win that the difference leaves."""
            both = wins * np.log(lost + end) + losses * np.log(lost)
            return -both - (rows - wins - losses) * np.log(1 - 2 * lost - end)

        within = max(0, -end) + 1e-12, (1 - end) / 2 - 1e-12
        options = {"xatol": 1e-12}
        lost = minimize_scalar(unlikely, bounds=within, method="bounded", options=options).x
        error = np.sqrt((2 * lost + end - end**2) / rows)
        score = ((wins - losses) / rows - end) / error
        assert score == pytest.approx(sign * norm.ppf(0.975), abs=1e-3)
