"""Near-copies in a labelled corpus: rows that lie much nearer to another text than is usual."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raee.answers import Neighbours
from raee.neighbours.near_copies import NearCopies, near_copies


def _neighbours(keys, k=12):
    """The k nearest others of each row, in lists of k."""
    distances = ((keys[:, None] - keys[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    rows = np.argsort(distances, axis=1)[:, :k]
    found = np.take_along_axis(distances, rows, axis=1)
    rows[np.isinf(found)] = -1
    missing = ((0, 0), (0, k - rows.shape[1]))
    return Neighbours(
        np.pad(rows, missing, constant_values=-1),
        np.pad(found, missing, constant_values=np.inf).astype(np.float32),
    )


def _keys(rows, copied=0, copies=1, seed=0):
    """Keys of `rows` rows in 16 dimensions, the last ones near-copies of the first `copied`."""
    random = np.random.default_rng(seed)
    keys = random.normal(size=(rows, 16))
    made = copied * copies
    if made:
        noise = 0.1 * random.normal(size=(made, 16))
        keys[-made:] = np.tile(keys[:copied], (copies, 1)) + noise
    return keys


def _labels(rows, copied=0, seed=1):
    """Random labels; the last rows have those of the first `copied`."""
    label = np.random.default_rng(seed).integers(0, 2, rows).astype(np.uint16)
    if copied:
        label[-copied:] = label[:copied]
    return label


@pytest.mark.parametrize("rows", [100, 350])
def test_a_corpus_without_near_copies_shows_none(rows):
    found = near_copies(_neighbours(_keys(rows)), _labels(rows))
    assert found == NearCopies(rows, 0, 0.0)
    assert not found.visible


@pytest.mark.parametrize("copied", [18, 70])
def test_a_near_copy_gives_two_rows_away(copied):
    found = near_copies(_neighbours(_keys(350, copied)), _labels(350, copied))
    assert found.near == found.telling == 2 * copied
    assert found.share == pytest.approx(2 * copied / 350)
    assert found.visible


def test_several_near_copies_of_each_text_are_seen():
    assert near_copies(_neighbours(_keys(300, copied=50, copies=5))).share == 1.0


@pytest.mark.parametrize(("rows", "pairs", "visible"), [(100, 3, False), (100, 4, True)])
def test_a_small_database_is_not_judged_by_three_pairs(rows, pairs, visible):
    assert near_copies(_neighbours(_keys(rows, pairs))).visible is visible


@pytest.mark.parametrize(("pairs", "visible"), [(9, False), (10, True)])
def test_near_copies_are_visible_from_4_percent_of_the_rows_on(pairs, visible):
    assert near_copies(_neighbours(_keys(500, pairs))).visible is visible


def test_near_copies_whose_labels_differ_as_other_neighbours_do_give_nothing_away():
    neighbours, label = _neighbours(_keys(400, 100)), _labels(400)
    found = near_copies(neighbours, label)
    assert found.near == 200
    assert found.share < 0.04
    assert not found.visible
    assert near_copies(neighbours).visible


def test_near_copies_whose_labels_differ_more_often_than_others_count_as_none():
    label = _labels(400, 100)
    label[-100:] = 1 - label[:100]
    assert near_copies(_neighbours(_keys(400, 100)), label).telling == 0.0


def test_near_copies_count_in_full_if_there_is_one_label():
    found = near_copies(_neighbours(_keys(350, 20)), np.zeros(350, np.uint16))
    assert found.telling == found.near == 40


def test_some_rows_of_a_database_are_judged_by_their_own_labels():
    neighbours, label = _neighbours(_keys(350, 70)), _labels(350, 70)
    some = np.arange(349, 200, -1)
    of_some = Neighbours(neighbours.rows, neighbours.distances, np.arange(350))[some]
    assert near_copies(of_some, label) == NearCopies(len(some), 70, 70.0)


def test_what_lies_beyond_the_12th_neighbour_is_not_looked_at():
    keys, label = _keys(200, 20), _labels(200, 20)
    assert near_copies(_neighbours(keys, 40), label) == near_copies(_neighbours(keys), label)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_lists_that_are_too_short_say_nothing(k):
    assert near_copies(_neighbours(_keys(60, 30), k), _labels(60)) == NearCopies(60, 0, 0.0)


@pytest.mark.parametrize("k", [4, 8])
def test_short_lists_are_read_to_their_end(k):
    assert near_copies(_neighbours(_keys(60, 30), k), _labels(60, 30)).visible


@pytest.mark.parametrize("rows", [0, 1, 2, 4, 5])
def test_a_tiny_database_shows_nothing(rows):
    found = near_copies(_neighbours(_keys(rows)), _labels(rows))
    assert (found.rows, found.visible) == (rows, False)
    assert 0 <= found.share <= 1


def test_rows_without_neighbours_among_others_count_as_rows_only():
    known = _neighbours(_keys(350, 70))
    rows, distances = known.rows.copy(), known.distances.copy()
    rows[:35], distances[:35] = -1, np.inf
    assert near_copies(Neighbours(rows, distances), _labels(350, 70)) == NearCopies(350, 105, 105.0)


def test_rows_all_equally_near_are_no_near_copies():
    rows = np.tile(np.arange(12), (20, 1))
    for distance in (0.0, 0.3):
        equal = np.full((20, 12), distance, np.float32)
        assert near_copies(Neighbours(rows, equal)).near == 0


@given(exponent=st.integers(-20, 20), copied=st.integers(0, 40), seed=st.integers(0, 5))
def test_the_scale_of_the_distances_does_not_matter(exponent, copied, seed):
    neighbours, label = _neighbours(_keys(90, copied, seed=seed)), _labels(90)
    scaled = Neighbours(neighbours.rows, neighbours.distances * np.float32(2.0**exponent))
    assert near_copies(scaled, label) == near_copies(neighbours, label)


@given(copied=st.integers(0, 40), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(copied, seed, order):
    keys, label = _keys(90, copied, seed=seed), _labels(90)
    mixed = order.sample(range(90), 90)
    there = near_copies(_neighbours(keys[mixed]), label[mixed])
    assert there == near_copies(_neighbours(keys), label)


@given(copied=st.integers(0, 40), names=st.permutations(range(2)))
def test_the_names_of_the_labels_do_not_matter(copied, names):
    neighbours, label = _neighbours(_keys(90, copied)), _labels(90)
    renamed = np.array(names, np.uint16)[label]
    assert near_copies(neighbours, renamed) == near_copies(neighbours, label)
