"""`kernel` leaves where the neighbours promise the best chance to be right for the cost."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.answers import Neighbours
from raee.config import KernelPolicy
from raee.exits import swept_exits
from raee.policies.table import kernel, kernel_exits, kernel_scores
from tests.raee.entries import entries_of, random_trial, saying
from tests.raee.errors import refused


def _straight_scores(spec, entries, rows, distances, own) -> dict[str, float]:
    """The score of every exit that may answer one query, with loops.

    own: the row that the query is, if any.
    """
    complete = [i for i in range(len(entries)) if not np.isnan(entries.confidences[i]).any()]
    pairs = list(zip(rows, distances, strict=True))[: spec.k]
    pairs = [(row, float(d)) for row, d in pairs if row in complete]
    mean = sum(d for _, d in pairs) / len(pairs) if pairs else 0.0
    weights = [math.exp(-d / max(spec.bandwidth * mean, 1e-12)) for _, d in pairs]
    first_key = min(e.depth for e in entries.exits if e.reader == "vote")
    deepest = max(e.depth for e in entries.exits)
    scores = {}
    for i, exit in enumerate(entries.exits):
        if exit.reader not in spec.readers or exit.depth < first_key:
            continue
        right = [int(entries.answers[row, i] == entries.label[row]) for row, _ in pairs]
        rated = [r for r in complete if r != own]
        rate = np.mean([entries.answers[r, i] == entries.label[r] for r in rated] or [0])
        said = sum(w * r for w, r in zip(weights, right, strict=True)) + spec.smoothing * rate
        chance = said / (sum(weights) + spec.smoothing)
        scores[str(exit)] = chance - spec.cost * exit.depth / deepest
    return scores


_SPECS = st.builds(
    KernelPolicy,
    k=st.integers(1, 7),
    readers=st.lists(
        st.sampled_from(["head", "vote", "probe", "pool", "logistic"]), min_size=1, unique=True
    ).map(lambda names: ("vote", *(n for n in names if n != "vote"))),
    bandwidth=st.sampled_from([0.01, 0.3, 1.0, 10.0]),
    smoothing=st.sampled_from([0.1, 1.0, 3.0]),
    cost=st.sampled_from([0.0, 0.1, 1.0]),
)


@settings(max_examples=150)
@given(
    spec=_SPECS,
    key_depths=st.sampled_from([(0,), (2,), (1, 3)]),
    seed=st.integers(0, 99),
    unread=st.sampled_from([0, 3, 7]),
    missing=st.integers(0, 5),
    scale=st.sampled_from([0.0, 1e-9, 1.0, 1e4]),
    own_rows=st.booleans(),
)
def test_kernel_is_the_formula_written_with_loops(
    spec, key_depths, seed, unread, missing, scale, own_rows
):
    trial = random_trial(3, key_depths, seed, rows=9, unread=unread)
    entries = trial.entries
    rows, distances = trial.neighbours.rows.copy(), trial.neighbours.distances * np.float32(scale)
    rows[:, rows.shape[1] - missing :], distances[:, rows.shape[1] - missing :] = -1, np.inf
    found = Neighbours(rows, distances, trial.rows if own_rows else None)
    scores, plan = kernel_scores(spec, entries, found), kernel(spec, entries, found)
    names = [str(entries.exits[i]) for i in kernel_exits(spec, entries)]
    assert np.isfinite(scores).all()
    for query in range(len(trial)):
        own = trial.rows[query] if own_rows else None
        expected = _straight_scores(spec, entries, rows[query], distances[query], own)
        assert sorted(names) == sorted(expected)
        np.testing.assert_allclose(scores[query], [expected[n] for n in names], atol=1e-9)
        chosen = expected[str(entries.exits[plan[query]])]
        assert chosen >= max(expected.values()) - 1e-9


def _entries(rates):
    """Four rows on which exits are right as often as said; they are never right elsewhere."""
    entries = entries_of([0] * 4, np.ones((4, 3)), np.ones((4, 3)))
    never = {str(e): ([1] * 4, [1] * 4) for e in entries.exits}
    right = {name: ([0] * count + [1] * (4 - count), [1] * 4) for name, count in rates.items()}
    return saying(entries, never | right)


def _chosen(spec, entries, rows, distances) -> str:
    found = Neighbours(np.array([rows]), np.array([distances], np.float32))
    return str(entries.exits[int(kernel(spec, entries, found)[0])])


def test_of_equal_scores_the_lower_depth_wins():
    entries = _entries({"probe@1": 4, "probe@2": 4, "head@2": 4, "head@1": 4})
    assert _chosen(KernelPolicy(cost=0), entries, [0, 1], [1, 2]).endswith("@1")


def test_a_layer_must_be_worth_its_cost():
    # Depth 2 is right on 4 of 4 rows, depth 0 on 2: half a chance for a whole pass.
    entries = _entries({"probe@0": 2, "probe@2": 4})
    rows, distances = [0, 1, 2, 3], [1, 1, 1, 1]
    assert _chosen(KernelPolicy(cost=0.49), entries, rows, distances) == "probe@2"
    assert _chosen(KernelPolicy(cost=0.51), entries, rows, distances) == "probe@0"


def test_near_neighbours_count_more_than_far_ones():
    # Row 0 is near and right at depth 0 only, row 3 is far and right at depth 2 only.
    entries = saying(
        _entries({}), {"probe@0": ([0, 1, 1, 1], [1] * 4), "probe@2": ([1, 1, 1, 0], [1] * 4)}
    )
    spec = KernelPolicy(cost=0, bandwidth=0.3, smoothing=0.01)
    assert _chosen(spec, entries, [0, 3], [0.1, 1.9]) == "probe@0"
    assert _chosen(spec, entries, [3, 0], [0.1, 1.9]) == "probe@2"


def test_without_neighbours_the_rates_on_all_rows_decide():
    entries = _entries({"probe@0": 1, "probe@1": 3, "head@2": 2})
    assert _chosen(KernelPolicy(cost=0), entries, [-1, -1], [np.inf, np.inf]) == "probe@1"


def test_a_neighbour_that_was_not_read_whole_counts_for_nothing():
    entries = _entries({"head@0": 1, "probe@2": 3})
    confidences = entries.confidences.copy()
    confidences[0, entries.position_of("probe@2")] = np.nan
    entries = replace(entries, confidences=confidences)
    # Row 0 was right at head@0, and nobody else was; of it the probes are not known.
    assert _chosen(KernelPolicy(cost=0), entries, [0], [1]) == "probe@2"


def test_exits_below_the_first_key_are_not_chosen():
    entries = random_trial(4, (2, 3)).entries
    places = kernel_exits(KernelPolicy(readers=("head", "vote")), entries)
    asked = [str(entries.exits[i]) for i in places]
    assert asked == ["head@2", "vote@2", "head@3", "vote@3", "head@4"]


def test_a_database_without_its_readers_is_refused():
    swept = entries_of([0], [[0, 1]], [[1, 1]])
    exits = swept_exits(1, (0,))
    places = slice(len(exits))
    swept = replace(
        swept,
        exits=exits,
        answers=swept.answers[:, places],
        confidences=swept.confidences[:, places],
    )
    assert kernel_exits(KernelPolicy(), swept) == [0, 2, 1]
    with refused("the database has no exit of the readers probe, pool"):
        kernel_exits(KernelPolicy(readers=("probe", "pool")), swept)


@pytest.mark.parametrize("seed", range(3))
def test_the_neighbours_beyond_k_are_not_asked(seed):
    trial, spec = random_trial(3, seed=seed), KernelPolicy(k=2)
    few = kernel_scores(spec, trial.entries, trial.neighbours.first(2))
    np.testing.assert_array_equal(kernel_scores(spec, trial.entries, trial.neighbours), few)
