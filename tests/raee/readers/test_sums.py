"""Sums add up: however rows are sharded, and whichever of them come and go."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.readers.sums import sums_from, sums_of


@st.composite
def _some_rows(draw):
    """States (depths, rows, width), unit vectors; labels (rows,); how many labels there are."""
    depths, rows, width = (draw(st.integers(1, most)) for most in (3, 30, 5))
    labels = draw(st.integers(1, 4))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    states = generator.normal(size=(depths, rows, width))
    states /= np.linalg.norm(states, axis=2, keepdims=True)
    label = generator.integers(0, labels, rows).astype(np.uint16)
    return states.astype(np.float32), label, labels


def _assert_same(found, expected):
    for field in ("rows", "first", "second"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), atol=1e-9)


@settings(max_examples=60)
@given(_some_rows(), st.data())
def test_any_sharding_has_the_sums_of_one_pass(given_rows, data):
    states, label, labels = given_rows
    order = np.array(data.draw(st.permutations(range(len(label)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(label)), max_size=4)))
    total = sums_of(states[:, :0], label[:0], labels)
    for shard in np.split(order, cuts):  # some of them empty
        total = total + sums_of(states[:, shard], label[shard], labels)
    _assert_same(total, sums_of(states, label, labels))


@settings(max_examples=60)
@given(_some_rows(), st.data())
def test_rows_that_came_and_went_leave_the_sums_of_the_rest(given_rows, data):
    states, label, labels = given_rows
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=len(label), max_size=len(label))))
    total = sums_of(states[:, ~gone], label[~gone], labels)
    of_gone = sums_of(states[:, gone], label[gone], labels)
    _assert_same(total + of_gone - of_gone, total)
    _assert_same(sums_of(states, label, labels) - of_gone, total)


def test_sums_are_those_of_the_textbook():
    x = np.array([[[1, 0], [0, 1], [0.6, 0.8]]], np.float32)
    found = sums_of(x, np.array([2, 0, 2], np.uint16), 3)
    assert found.depths == 1
    assert found.rows.tolist() == [1, 0, 2]
    np.testing.assert_allclose(found.first[0], [[0, 1], [0, 0], [1.6, 0.8]], atol=1e-7)
    np.testing.assert_allclose(found.second[0], [[1.36, 0.48], [0.48, 1.64]], atol=1e-7)


@settings(max_examples=30)
@given(_some_rows())
def test_stored_sums_come_back_as_they_were(given_rows):
    states, label, labels = given_rows
    expected = sums_of(states, label, labels)
    width = states.shape[2]
    tensors = expected.tensors()
    assert tensors["second_upper"].shape == (len(states), width * (width + 1) // 2)
    found = sums_from(tensors)
    for field in ("rows", "first", "second"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def test_sums_are_exact_over_many_rows():
    # In float32 the sum of 200,000 squares of a tenth is off by a tenth.
    x = np.full((1, 200_000, 1), 0.1, np.float32)
    found = sums_of(x, np.zeros(200_000, np.uint16), 1)
    np.testing.assert_allclose(found.second[0, 0, 0], 200_000 * float(x[0, 0, 0]) ** 2, rtol=1e-12)
