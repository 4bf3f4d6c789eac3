"""Equal texts are found, counted and kept together."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.neighbours.index import new_index
from raee.neighbours.lists import nearest_other_texts
from raee.texts import Texts, copies_of, text_hashes
from tests.raee.entries import each_once


def _hashes(numbers):
    """Hashes in no order of the numbers."""
    return (np.array(numbers, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


texts_of_rows = st.lists(st.integers(0, 8), min_size=1, max_size=40)


def test_texts_are_equal_if_their_token_ids_are():
    ids = [np.array(row, np.int32) for row in ([1, 2], [1, 2], [2, 1], [1, 2, 0], [])]
    found = text_hashes(ids)
    assert found.dtype == np.uint64
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 4


@given(texts_of_rows, st.integers(1, 5), st.integers(0, 99))
def test_folds_keep_equal_texts_together_in_whatever_order(numbers, folds, seed):
    hashes = _hashes(numbers)
    fold = Texts(hashes).folds(folds, seed)
    of_text = {}
    for text, own in zip(numbers, fold.tolist(), strict=True):
        assert of_text.setdefault(text, own) == own
    sizes = np.bincount(list(of_text.values()), minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    order = np.random.default_rng(seed).permutation(len(numbers))
    np.testing.assert_array_equal(Texts(hashes[order]).folds(folds, seed), fold[order])


@given(texts_of_rows)
def test_rows_of_a_text_are_counted_and_its_first_is_found(numbers):
    texts = Texts(_hashes(numbers))
    assert len(texts) == len(set(numbers))
    assert texts.first_rows.tolist() == sorted(numbers.index(n) for n in set(numbers))
    np.testing.assert_array_equal(texts.repeated, [numbers.count(n) > 1 for n in numbers])
    asked = list(range(10))
    assert texts.counts(_hashes(asked)).tolist() == [numbers.count(n) for n in asked]
    first = [numbers.index(n) if n in numbers else -2 for n in asked]
    assert texts.first_row(_hashes(asked)).tolist() == first


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=30))
def test_copies_say_under_which_labels_a_text_occurs(rows):
    numbers, labels = zip(*rows, strict=True)
    hashes, label = _hashes(numbers), np.array(labels, np.uint16)
    found = copies_of(hashes[::2], hashes, label, 4)
    for text, own_labels, counts in zip(numbers[::2], found.labels, found.counts, strict=True):
        said = {int(c): int(n) for c, n in zip(own_labels, counts, strict=True) if n}
        own = [c for n, c in rows if n == text]
        assert said == {c: own.count(c) for c in own}


def test_rows_without_equals_leave_alone():
    label = np.array([2, 0, 1], np.uint16)
    found = each_once(label)
    assert found.labels.tolist() == [[2], [0], [1]]
    assert found.counts.sum(axis=1).tolist() == [1, 1, 1]


def _rows_of_texts(numbers, seed):
    """An index of rows (rows, width) of which those of a text are the same, and their keys."""
    own = np.random.default_rng(seed).normal(size=(9, 4)).astype(np.float32)
    index = new_index(4)
    index.add(own[numbers])
    return index, own[numbers]


@settings(max_examples=60)
@given(texts_of_rows, st.integers(1, 12), st.integers(0, 99))
def test_the_nearest_of_another_text_are_found_however_many_copies_there_are(numbers, k, seed):
    (index, keys), hashes = _rows_of_texts(numbers, seed), _hashes(numbers)
    found = nearest_other_texts(index, keys, k, hashes, Texts(hashes))
    squared = np.square(keys[:, None].astype(float) - keys[None]).sum(axis=2)
    for row, text in enumerate(numbers):
        others = [i for i, n in enumerate(numbers) if n != text]
        expected = np.sort(squared[row, others])[:k]
        there = found.rows[row] >= 0
        assert there.sum() == len(expected)
        np.testing.assert_allclose(found.distances[row][there], expected, atol=1e-5)
        assert set(found.rows[row][there]) <= set(others)
        assert np.isinf(found.distances[row][~there]).all()


@settings(max_examples=60)
@given(texts_of_rows, st.integers(1, 6), st.integers(0, 99), st.data())
def test_each_query_finds_what_it_asks_for_whatever_its_equals_ask_for(numbers, k, seed, data):
    index, keys = _rows_of_texts(numbers, seed)
    hashes, texts = _hashes(numbers), Texts(_hashes(numbers))
    limits = st.sampled_from([-np.inf, 0.5, 2.0, 8.0, 1e9])
    within = [data.draw(limits) for _ in numbers]
    limited = nearest_other_texts(index, keys, k, hashes, texts, np.array(within, np.float32))
    whole = nearest_other_texts(index, keys, k, hashes, texts)
    for row, limit in enumerate(within):
        near = whole.distances[row] <= limit
        there = limited.distances[row][: near.sum()]
        np.testing.assert_allclose(there, whole.distances[row][near], atol=1e-5)


def test_texts_that_the_index_has_not_find_all_that_are_near():
    index, keys = _rows_of_texts([0, 1, 1, 2], seed=0)
    found = nearest_other_texts(
        index, keys[[1, 1]], 3, _hashes([7, 7]), Texts(_hashes([0, 1, 1, 2]))
    )
    np.testing.assert_array_equal(found.rows[:, :2], [[1, 2], [1, 2]])
    assert (found.rows >= 0).all()
