"""Exits have names, and neighbours have finite weights."""

from dataclasses import replace

import numpy as np
import pytest

from raee.answers import Neighbours, neighbour_weights
from raee.exits import Entries, Exit, exits_of, fitted_exits, parse_exits, swept_exits
from tests.raee.entries import entries_of, random_trial, saying
from tests.raee.errors import refused


def test_exits_are_the_heads_then_the_votes_then_what_is_fitted():
    names = [str(e) for e in exits_of(1, key_depths=(0, 1))]
    swept = ["head@0", "head@1", "vote@0", "vote@1"]
    fitted = ["probe@0", "probe@1", "de3@0", "de3@1", "logistic@1", "words@0", "pool@0", "pool@1"]
    assert names == swept + fitted
    assert exits_of(1, (0, 1)) == swept_exits(1, (0, 1)) + fitted_exits(1)


def test_names_of_exits_read_back():
    assert parse_exits(["head@12", "vote@0"]) == (Exit("head", 12), Exit("vote", 0))
    exits = exits_of(12, (0, 6))
    assert parse_exits(str(e) for e in exits) == exits


@pytest.mark.parametrize("name", ["head", "head@", "head@x", "head@-1", "prob@3", "", "a\n@1"])
def test_a_name_that_is_no_exit_is_refused(name):
    with refused("is no exit; write it like head@4"):
        parse_exits([name])


def test_weights_are_one_over_the_squared_distance():
    found = Neighbours(np.array([[0, 1, 2]]), np.array([[0.5, 2.0, 4.0]], np.float32))
    assert neighbour_weights(found).tolist() == [[2.0, 0.5, 0.25]]


def test_a_distance_of_zero_weighs_most_and_a_missing_neighbour_nothing():
    found = Neighbours(np.array([[0, 1, -1]]), np.array([[0, 1e-6, np.inf]], np.float32))
    ((same, near, missing),) = neighbour_weights(found)
    assert np.isfinite(same)
    assert same > 1e4 * near > 0
    assert missing == 0


def test_entries_know_where_an_exit_was_right():
    entries = entries_of([1, 0], [[1, 0], [1, 0]], np.ones((2, 2)))
    assert entries.right[:, :3].tolist() == [[True, False, True], [False, True, True]]
    assert entries.right[:, 3:].all()
    assert (entries.heads, entries.full) == ([0, 1], 1)
    assert entries.position_of("vote@0") == 2
    assert entries.positions("pool") == [9, 10]
    assert entries.depths.tolist() == [0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1]
    assert np.flatnonzero(entries.before_walk).tolist() == [entries.position_of("words@0")]


def test_the_neighbours_of_a_plan_are_known_at_the_first_keys_depth():
    assert entries_of([0], [[0] * 4], [[1] * 4], key_depths=(1, 3)).key_depth == 1


@pytest.fixture
def partly_read() -> Entries:
    """Four rows; of the last two a probe was not read, though its answers look right."""
    entries = entries_of([0, 1, 1, 0], [[0, 0], [0, 1], [1, 1], [0, 0]], np.ones((4, 2)))
    return saying(entries, {"probe@1": ([0, 0, 1, 0], [0.9, 0.8, np.nan, np.nan])})


def test_an_exit_that_was_not_read_is_not_right(partly_read):
    place = partly_read.position_of("probe@1")
    assert partly_read.right[:, place].tolist() == [True, False, False, False]
    assert partly_read.complete.tolist() == [0, 1]


def test_rates_are_those_of_rows_that_were_read_whole(partly_read):
    # The heads are right on rows 2 and 3, which do not count.
    assert partly_read.rates[[0, 1]].tolist() == [0.5, 1.0]
    assert partly_read.rates[partly_read.position_of("probe@1")] == 0.5


def test_without_a_row_that_was_read_whole_all_rates_are_0(partly_read):
    assert partly_read[2:].rates.tolist() == [0.0] * len(partly_read.exits)
    assert partly_read[2:].best_at_full_depth in partly_read.at_full_depth


def test_rates_without_a_row_are_those_of_the_other_rows():
    entries = random_trial(2, unread=5).entries
    found = entries.rates_without(np.arange(24))
    for row in range(24):
        np.testing.assert_allclose(found[row], entries[np.arange(24) != row].rates, atol=1e-12)


def test_rates_without_a_row_are_without_its_equals_too():
    entries = random_trial(2, unread=5).entries
    entries = replace(entries, hashes=(np.arange(24) % 7).astype(np.uint64))
    found = entries.rates_without(np.arange(24)[::-1])[::-1]
    for row in range(24):
        others = entries.hashes != entries.hashes[row]
        np.testing.assert_allclose(found[row], entries[others].rates, atol=1e-12)


def test_the_best_exit_is_right_most_often_and_of_equals_the_shallowest():
    entries = entries_of([0, 0], [[0, 0, 0], [1, 0, 0]], np.ones((2, 3)))
    assert entries.best([0, 1, 2]) == 1
    assert entries.best([2, 1]) == 1
    assert entries.best([0]) == 0


def test_the_best_exit_at_full_depth_is_not_shallower_and_not_de3():
    entries = entries_of([0] * 3, [[0, 1], [0, 1], [0, 0]], np.ones((3, 2)), key_depths=(0, 1))
    said = {name: ([0, 1, 1], [1] * 3) for name in ("vote@1", "probe@1", "pool@1")}
    entries = saying(entries, said | {"logistic@1": ([0, 0, 1], [1] * 3)})
    assert entries.rates[entries.position_of("de3@1")] == 1
    assert str(entries.exits[entries.best_at_full_depth]) == "logistic@1"
    full = [str(entries.exits[i]) for i in entries.at_full_depth]
    assert full == ["head@1", "vote@1", "probe@1", "logistic@1", "pool@1"]


def test_some_of_the_rows_are_entries_of_their_own():
    entries = random_trial(2, (0, 1), unread=4).entries
    for some in (np.array([3, 1]), slice(2, 9), np.arange(24) % 2 == 0):
        few = entries[some]
        assert (few.exits, few.labels) == (entries.exits, entries.labels)
        np.testing.assert_array_equal(few.label, entries.label[some])
        np.testing.assert_array_equal(few.right, entries.right[some])
        np.testing.assert_array_equal(few.confidences, entries.confidences[some])
        np.testing.assert_array_equal(few.hashes, entries.hashes[some])


def test_the_first_neighbours_are_the_nearest_ones():
    found = random_trial(2, k=5).neighbours
    few = found.first(2)[np.array([4, 0])]
    np.testing.assert_array_equal(few.rows, found.rows[[4, 0], :2])
    np.testing.assert_array_equal(few.distances, found.distances[[4, 0], :2])
    np.testing.assert_array_equal(few.own, found.own[[4, 0]])


def test_an_exit_that_is_not_in_the_database_is_refused():
    entries = entries_of([0], [[0]], [[1]])
    some = replace(entries, exits=swept_exits(0, (0,)))
    with refused(r"exit 'probe@0' is not in the database; it has head@0, vote@0"):
        some.position_of("probe@0")
