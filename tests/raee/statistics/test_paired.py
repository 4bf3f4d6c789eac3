import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from raee.statistics.paired import NOISE_LEVEL, better_beyond_noise, paired


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
