"""Some of many rows."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from raee.drawn import evenly


@given(rows=st.integers(0, 5_000), most=st.integers(1, 500))
def test_rows_are_spread_evenly_from_the_first_to_the_last(rows, most):
    found = evenly(rows, most).tolist()
    assert len(found) == min(rows, most)
    assert found == sorted(set(found))
    if rows <= most:
        assert found == list(range(rows))
    elif most > 1:
        gaps = [b - a for a, b in pairwise(found)]
        assert (found[0], found[-1]) == (0, rows - 1)
        assert max(gaps) - min(gaps) <= 1
