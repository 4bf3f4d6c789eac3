"""An index is chosen by how many keys there are and what memory it may take."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raee.neighbours.choice import EXACT_ROWS, choose_index, lists_of, recall_rows, training_rows
from raee.neighbours.training import check_index_spec
from tests.raee.errors import refused


@pytest.mark.parametrize(
    ("rows", "width", "chosen"),
    [
        (1, 384, "Flat"),
        (EXACT_ROWS, 384, "Flat"),
        (EXACT_ROWS + 1, 384, "IVF2048,Flat"),
        (1_000_000, 384, "IVF4096,Flat"),
        (10_000_000, 384, "IVF16384,SQ8"),
        (30_000_000, 384, "IVF16384,PQ96"),
        (100_000_000, 384, "IVF32768,PQ24"),
        (10_000_000, 1024, "IVF16384,PQ256"),
    ],
)
def test_the_choice_in_8_gb(rows, width, chosen):
    assert choose_index(rows, width) == chosen


def test_less_memory_takes_smaller_codes():
    sizes = (8_000_000_000, 800_000_000, 200_000_000)
    chosen = [choose_index(2_000_000, 128, memory) for memory in sizes]
    assert chosen == ["IVF4096,Flat", "IVF4096,SQ8", "IVF4096,PQ32"]


def test_keys_that_no_index_can_hold_are_refused():
    with refused(r"no index of 1,000,000 keys of width 384 can be built in 1,000,000 bytes"):
        choose_index(1_000_000, 384, 1_000_000)


@given(rows=st.integers(1, 10**8), width=st.sampled_from([64, 384, 768, 1024]))
def test_whatever_is_chosen_can_be_trained_on_the_rows_there_are(rows, width):
    check_index_spec(choose_index(rows, width, 2**38), width, rows)


def test_lists_are_read_from_the_factory_string():
    specs = ["Flat", "HNSW32", "IVF64,SQ8", "IVF128_HNSW32,Flat", "OPQ8,IVF256,PQ8"]
    assert [lists_of(spec) for spec in specs] == [0, 0, 64, 128, 256]


@pytest.mark.parametrize("rows", [1, 999, 1_000_000])
def test_samples_are_rows_that_there_are_each_once_and_the_same_every_time(rows):
    for drawn in (training_rows("IVF64,Flat", rows, 384), recall_rows("IVF64,Flat", rows)):
        assert (np.diff(drawn) > 0).all()
        assert drawn[0] >= 0
        assert drawn[-1] < rows
    again = training_rows("IVF64,Flat", rows, 384)
    np.testing.assert_array_equal(again, training_rows("IVF64,Flat", rows, 384))


def test_a_training_sample_is_bounded_in_bytes():
    assert len(training_rows("IVF65536,Flat", 10**7, 4_096)) * 4_096 * 4 <= 2_000_000_000


def test_an_exact_index_needs_no_samples():
    assert len(training_rows("Flat", 1_000, 8)) == len(recall_rows("Flat", 1_000)) == 0
