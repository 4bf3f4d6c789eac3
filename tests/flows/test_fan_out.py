"""What is done of shards, whoever does it: without a server's pools, in this process."""

from hypothesis import given
from hypothesis import strategies as st

from flows.fan_out import next_chunk


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 10))
def test_chunks_hold_every_shard_once_in_rows_no_longer_than_asked(left: set[int], size: int):
    rest, taken = set(left), []
    while rest:
        chunk = next_chunk(rest, size)
        assert 1 <= chunk.count <= size
        taken += chunk.numbers
        rest -= set(chunk.numbers)
    assert taken == sorted(left)
