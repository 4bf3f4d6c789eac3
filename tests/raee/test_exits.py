"""Exits have names, and neighbours have finite weights."""

import numpy as np
import pytest

from raee.exits import Entries, Exit, Neighbours, exits_of, neighbour_weights, parse_exits
from tests.raee.errors import refused


def test_exits_are_the_heads_by_depth_and_the_vote_at_the_keys_depth():
    names = [str(e) for e in exits_of(2, key_depth=1)]
    assert names == ["head@0", "head@1", "head@2", "vote@1"]


def test_names_of_exits_read_back():
    assert parse_exits(["head@12", "vote@0"]) == (Exit("head", 12), Exit("vote", 0))


@pytest.mark.parametrize("name", ["head", "head@", "head@x", "head@-1", "probe@3", "", "a\n@1"])
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
    entries = Entries(
        exits=exits_of(1, 0),
        labels=("a", "b"),
        label=np.array([1, 0], np.uint16),
        answers=np.array([[1, 0, 1], [1, 0, 0]], np.uint16),
        confidences=np.ones((2, 3), np.float32),
    )
    assert entries.right.tolist() == [[True, False, True], [False, True, True]]
    assert (entries.heads, entries.full, entries.vote) == ([0, 1], 1, 2)
    assert entries.place_of("vote@0") == 2
