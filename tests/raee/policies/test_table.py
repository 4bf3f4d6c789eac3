"""Policies say at which exit a row answers, as docs/method.md and the paper say it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raee.answers import Neighbours
from raee.config import (
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.exits import Exit, exits_of, swept_exits
from raee.neighbours.index import new_index
from raee.policies.table import (
    NO_NEIGHBOURS,
    POLICIES,
    Stepwise,
    cascade,
    check_policy,
    exits_used,
    fixed,
    full,
    layers_of,
    neighbours_planned_on,
    raee,
    raee_scores,
    retrieval,
)
from tasks.job import validated_policy
from tests.raee.entries import entries_of, saying
from tests.raee.errors import refused

_EXITS = exits_of(4, (1, 3))
_FIRST_FORMAT = swept_exits(4, (1,))


def _straight_scores(spec, label, answers, confidences, rows, distances) -> list[float]:
    """The paper's rule for one query, with loops: each head exit's score."""
    score = [0.0] * len(answers[0])
    for row, distance in list(zip(rows, distances, strict=True))[: spec.k]:
        if row < 0:
            continue
        weight = 1 / max(float(distance), 1e-12)
        right = [d for d in range(len(score)) if answers[row][d] == label[row]]
        exits = [d for d in right if confidences[row][d] >= np.float32(spec.threshold)]
        if not exits:
            exits = sorted(right, key=lambda d, row=row: (-confidences[row][d], d))[: spec.top]
        for depth in exits:
            score[depth] += weight * float(confidences[row][depth])
    return score


@st.composite
def _databases(draw):
    """Labels, answers and confidences of a small database; at times nothing in it is right."""
    rows, heads = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    n_labels = draw(st.integers(1, 3))
    label = draw(arrays(np.uint16, rows, elements=st.integers(0, n_labels - 1)))
    answers = draw(arrays(np.uint16, (rows, heads), elements=st.integers(0, n_labels - 1)))
    if draw(st.booleans()) and n_labels > 1:
        answers = ((label[:, None] + 1) % n_labels).repeat(heads, axis=1)
    # Few values, all 64ths: thresholds are met and scores tie, and sums are exact in any order.
    steps = arrays(np.float32, (rows, heads), elements=st.sampled_from([16, 32, 48, 58, 64]))
    return label, answers, draw(steps) / np.float32(64)


_SPECS = st.builds(
    RaeePolicy,
    k=st.integers(1, 12),
    threshold=st.sampled_from([0.0, 0.5, 0.75, 0.9, 1.0]),
    top=st.integers(1, 4),
)


@settings(max_examples=300)
@given(spec=_SPECS, database=_databases(), data=st.data())
def test_raee_is_the_papers_rule_written_with_loops(spec, database, data):
    label, answers, confidences = database
    # Places 0, 1 and 2 on a line: squared distances 0, 1 and 4, whose weights are exact.
    keys = data.draw(arrays(np.float32, (len(label), 1), elements=st.integers(0, 2)))
    queries = data.draw(arrays(np.float32, (3, 1), elements=st.integers(0, 2)))
    index = new_index(1)
    index.add(keys)
    found = index.search(queries, spec.k)
    entries = entries_of(label, answers, confidences)
    plan, found_scores = raee(spec, entries, found), raee_scores(spec, entries, found)
    for query in range(3):
        scores = _straight_scores(
            spec, label, answers, confidences, found.rows[query], found.distances[query]
        )
        assert all(np.isfinite(scores))
        assert found_scores[query].tolist() == scores
        none = max(scores) == 0
        assert plan[query] == (len(scores) - 1 if none else scores.index(max(scores)))


@given(spec=_SPECS, database=_databases(), data=st.data())
def test_raees_exit_has_the_highest_score_at_any_distances(spec, database, data):
    label, answers, confidences = database
    n = len(label)
    distances = data.draw(st.lists(st.floats(0, 4, width=32), min_size=n, max_size=n))
    rows = data.draw(st.permutations(range(n)))
    found = Neighbours(np.array([rows]), np.array([sorted(distances)], np.float32))
    (place,) = raee(spec, entries_of(label, answers, confidences), found)
    scores = _straight_scores(spec, label, answers, confidences, rows, found.distances[0])
    assert scores[place] >= max(scores) * (1 - 1e-9)


def _just_below(value: float) -> np.float32:
    return np.nextafter(np.float32(value), np.float32(0))


def _one_neighbour(entries, spec=None, distance=1.0):
    found = Neighbours(np.array([[0]]), np.array([[distance]], np.float32))
    return int(raee(RaeePolicy() if spec is None else spec, entries, found)[0])


@pytest.mark.parametrize(("first", "place"), [(np.float32(0.9), 0), (_just_below(0.9), 1)])
def test_a_right_exit_of_just_the_threshold_counts(first, place):
    # Depth 0 counts alone where it reaches the threshold: as entries store it, in float32, where
    # 0.9 is a little less than 0.9.  Otherwise depth 1 counts too, and its sum is higher.
    entries = entries_of([0, 0], [[0, 0], [1, 0]], [[first, 0.85], [1, 0.89]])
    found = Neighbours(np.array([[0, 1]]), np.ones((1, 2), np.float32))
    assert raee(RaeePolicy(threshold=0.9), entries, found).tolist() == [place]


def test_a_wrong_exit_never_counts_however_sure_it_is():
    assert _one_neighbour(entries_of([0], [[1, 0, 1]], [[1.0, 0.4, 1.0]])) == 1


def test_where_no_exit_is_right_the_row_runs_all_layers():
    assert _one_neighbour(entries_of([0], [[1, 1, 1]], [[0.9, 0.5, 0.6]])) == 2


def test_of_equal_scores_the_lower_depth_wins():
    assert _one_neighbour(entries_of([0], [[1, 0, 0, 0]], [[1.0, 0.95, 0.95, 0.95]])) == 1


def test_only_the_top_right_exits_count_where_none_is_sure():
    entries = entries_of(
        [0, 0], [[0, 0, 0, 0], [0, 1, 1, 1]], [[0.5, 0.6, 0.7, 0.8], [0.89, 1, 1, 1]]
    )
    found = Neighbours(np.array([[0, 1]]), np.array([[1.0, 2.0]], np.float32))
    # Depth 0 gets 0.445 of the second row, and 0.5 of the first only where its fourth exit counts.
    assert raee(RaeePolicy(top=3), entries, found).tolist() == [3]
    assert raee(RaeePolicy(top=4), entries, found).tolist() == [0]


def test_an_exact_duplicate_decides_alone():
    entries = entries_of(
        [0] * 3, [[0, 1, 1], [1, 0, 1], [1, 0, 1]], [[0.5, 1, 1]] + [[1, 1, 1]] * 2
    )
    found = Neighbours(np.array([[0, 1, 2]]), np.array([[0, 1e-6, 1e-6]], np.float32))
    assert raee(RaeePolicy(), entries, found).tolist() == [0]


def test_only_k_neighbours_are_asked():
    entries = entries_of([0] * 3, [[1, 0], [0, 1], [0, 1]], [[1, 1]] * 3)
    found = Neighbours(np.array([[0, 1, 2]]), np.array([[1, 1, 1]], np.float32))
    assert raee(RaeePolicy(k=1), entries, found).tolist() == [1]
    assert raee(RaeePolicy(k=3), entries, found).tolist() == [0]


def test_full_is_the_deepest_head():
    entries = entries_of([0], [[0, 1, 1]], [[1, 1, 1]])
    assert full(FullPolicy(), entries, NO_NEIGHBOURS).tolist() == [2]


def test_retrieval_is_the_vote_that_is_right_most_often():
    entries = entries_of([0, 0], [[0, 1, 0]] * 2, np.ones((2, 3)), key_depths=(0, 1, 2))
    entries = saying(entries, {"vote@0": ([0, 1], [1, 1])})
    (place,) = retrieval(RetrievalPolicy(), entries, NO_NEIGHBOURS)
    assert str(entries.exits[place]) == "vote@1"  # of equals the shallower


def test_retrieval_is_the_vote_that_is_named():
    entries = entries_of([0], [[0, 1, 0]], [[1, 1, 1]], key_depths=(0, 2))
    (place,) = retrieval(RetrievalPolicy(exit="vote@2"), entries, NO_NEIGHBOURS)
    assert str(entries.exits[place]) == "vote@2"
    with refused(r"policy\.exit 'probe@1' is no vote"):
        retrieval(RetrievalPolicy(exit="probe@1"), entries, NO_NEIGHBOURS)
    with refused(r"exit 'vote@1' is not in the database"):
        retrieval(RetrievalPolicy(exit="vote@1"), entries, NO_NEIGHBOURS)


def test_fixed_is_the_exit_that_is_named():
    entries = entries_of([0], [[0, 1, 1]], [[1, 1, 1]])
    for name in ("head@1", "vote@0", "probe@2", "pool@1", "de3@0", "logistic@2"):
        (place,) = fixed(FixedPolicy(exit=name), entries, NO_NEIGHBOURS)
        assert str(entries.exits[place]) == name
    with refused(r"exit 'head@7' is not in the database; it has head@0, head@1, head@2, vote@0"):
        fixed(FixedPolicy(exit="head@7"), entries, NO_NEIGHBOURS)


def test_fixed_is_the_exit_that_is_right_most_often_where_none_is_named():
    wrong = {f"{e}": ([1, 1, 1], [1, 1, 1]) for e in exits_of(2, (0,)) if e.reader != "de3"}
    entries = saying(entries_of([0] * 3, [[0] * 3] * 3, np.ones((3, 3))), wrong)
    entries = saying(entries, {name: ([0, 0, 1], [1, 1, 1]) for name in ("probe@1", "head@2")})
    (place,) = fixed(FixedPolicy(), entries, NO_NEIGHBOURS)
    # Of equals the shallower; `de3` is always right here, but it answers as the probe does.
    assert str(entries.exits[place]) == "probe@1"


def _exits_asked(spec, entries) -> list[str]:
    policy = POLICIES[spec.name]
    assert isinstance(policy, Stepwise)
    return [str(entries.exits[i]) for i in policy.checkpoints(spec, entries)]


ASKED = entries_of([0], [[0, 1, 1, 0]], [[1, 1, 1, 1]], key_depths=(0, 2))


def test_a_cascade_leaves_at_just_its_threshold():
    confidence = np.array([0.9, 0.91, 0.89], np.float32)
    assert cascade(CascadePolicy(threshold=0.9), 3, confidence).tolist() == [True, True, False]


def test_a_cascade_has_a_threshold_for_each_depth():
    spec = CascadePolicy(threshold=(0.2, 0.9, 0.5), first=1, last=3)
    confidence = np.array([0.1, 0.4, 0.6, 0.95], np.float32)
    left = [cascade(spec, depth, confidence).tolist() for depth in (1, 2, 3)]
    assert left == [
        [False, True, True, True],
        [False, False, False, True],
        [False, False] + [True] * 2,
    ]


def test_a_cascade_asks_its_readers_by_depth_and_at_a_depth_in_the_order_given():
    spec = CascadePolicy(readers=("vote", "probe"))
    asked = ["vote@0", "probe@0", "probe@1", "vote@2", "probe@2", "probe@3"]
    assert _exits_asked(spec, ASKED) == asked
    spec = CascadePolicy(readers=("pool", "vote", "head"), first=1, last=2)
    asked = ["pool@1", "head@1", "pool@2", "vote@2", "head@2"]
    assert _exits_asked(spec, ASKED) == asked


def test_a_cascade_asks_from_its_first_depth_to_its_last():
    assert _exits_asked(CascadePolicy(first=2), ASKED) == ["probe@2", "probe@3"]
    assert _exits_asked(CascadePolicy(last=1), ASKED) == ["probe@0", "probe@1"]
    assert _exits_asked(CascadePolicy(first=3, last=3), ASKED) == ["probe@3"]
    assert _exits_asked(De3Policy(first=2), ASKED) == ["de3@2", "de3@3"]
    with refused(r"policy\.first 4 is deeper than the backbone \(3 layers\)"):
        _exits_asked(CascadePolicy(first=4), ASKED)
    with refused(r"policy\.last 4 is deeper than the backbone \(3 layers\)"):
        _exits_asked(De3Policy(last=4), ASKED)


def test_a_cascade_that_has_nobody_to_ask_is_refused():
    with refused("has no exit of the readers vote from depth 3 to 3"):
        _exits_asked(CascadePolicy(readers=("vote",), first=3), ASKED)
    swept = replace(ASKED, exits=swept_exits(3, (0, 2)))
    with refused("has no exit of the readers probe from depth 0 to 3"):
        _exits_asked(CascadePolicy(), swept)


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        (RaeePolicy(), [2, 2, 3, 2]),  # its neighbours are known at depth 2
        (KernelPolicy(), [2, 2, 3, 2]),
        (CascadePolicy(), [0, 1, 3, 2]),
        (De3Policy(), [0, 1, 3, 2]),
        (FixedPolicy(exit="head@0"), [0, 1, 3, 2]),
        (RetrievalPolicy(), [0, 1, 3, 2]),
    ],
)
def test_a_row_that_waited_for_its_neighbours_has_run_the_keys_layers(spec, layers):
    entries = entries_of([0], [[0, 1, 1, 0]], [[1, 1, 1, 1]], key_depths=(2, 3))
    exits = np.array([0, 1, 3, entries.position_of("vote@2")])
    assert layers_of(spec, entries, exits).tolist() == layers


def test_only_raee_and_kernel_plan_on_neighbours():
    assert neighbours_planned_on(RaeePolicy(k=7)) == 7
    assert neighbours_planned_on(KernelPolicy(k=9)) == 9
    others = (FullPolicy(), FixedPolicy(), RetrievalPolicy(), CascadePolicy(), De3Policy())
    assert [neighbours_planned_on(spec) for spec in others] == [0] * 5


@pytest.mark.parametrize(
    ("spec", "used"),
    [
        (FullPolicy(), ["head@3"]),
        (FixedPolicy(exit="pool@1"), ["pool@1"]),
        (RetrievalPolicy(exit="vote@2"), ["vote@2"]),
        (RaeePolicy(), ["head@0", "head@1", "head@2", "head@3"]),
        (KernelPolicy(readers=("vote", "logistic")), ["vote@0", "vote@2", "logistic@3"]),
        (CascadePolicy(readers=("vote", "head"), first=2), ["vote@2", "head@2", "head@3"]),
        (De3Policy(last=1), ["de3@0", "de3@1"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_exits_that_a_policy_may_read_are_known_before_it_runs(spec, used):
    assert [str(ASKED.exits[i]) for i in exits_used(spec, ASKED)] == used


@pytest.mark.parametrize(
    "policy",
    [
        *("full", "fixed", "retrieval", "raee", "kernel", "cascade", "de3", "tuned"),
        FixedPolicy(exit="head@4"),
        FixedPolicy(exit="vote@1"),
        FixedPolicy(exit="logistic@4"),
        RetrievalPolicy(exit="vote@3"),
        CascadePolicy(first=4),
        CascadePolicy(readers=("vote",), first=2),
        De3Policy(first=1, last=2),
        RaeePolicy(k=99),
    ],
)
def test_policies_fit_the_exits_that_there_are(policy):
    check_policy(validated_policy(policy) if isinstance(policy, str) else policy, _EXITS)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (FixedPolicy(exit="head@5"), "exit 'head@5' is not in the database; it has head@0"),
        (FixedPolicy(exit="vote@0"), "exit 'vote@0' is not in the database"),
        (FixedPolicy(exit="nonsense"), "exit 'nonsense' is not in the database"),
        (FixedPolicy(exit="logistic@3"), "exit 'logistic@3' is not in the database"),
        (RetrievalPolicy(exit="head@1"), "policy.exit 'head@1' is no vote"),
        (CascadePolicy(first=5), "policy.first 5 is deeper than the backbone .4 layers."),
        (De3Policy(last=9), "policy.last 9 is deeper than the backbone .4 layers."),
        (
            CascadePolicy(readers=("vote",), first=2, last=2),
            "the database has no exit of the readers vote from depth 2 to 2",
        ),
    ],
)
def test_other_policies_are_refused(policy, match):
    with refused(match):
        check_policy(policy, _EXITS)


def test_of_many_exits_some_are_named():
    with refused("it has head@0, head@1, .*, head@9 and 46 more$"):
        check_policy(FixedPolicy(exit="head@99"), exits_of(12, (1, 3)))
    with refused(f"exit '{'x' * 77}.. is not in the database"):
        check_policy(FixedPolicy(exit="x" * 10_000), _EXITS)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (CascadePolicy(), "no exit of the readers probe from depth 0 to 4"),
        (De3Policy(), "no exit of the readers de3 from depth 0 to 4"),
        (KernelPolicy(readers=("probe",)), "no exit of the readers probe"),
        (FixedPolicy(exit="probe@2"), "exit 'probe@2' is not in the database; it has head@0"),
    ],
)
def test_a_version_without_probes_refuses_what_reads_them(policy, match):
    with refused(match):
        check_policy(policy, _FIRST_FORMAT)


@pytest.mark.parametrize(
    "policy", [*("full", "fixed", "retrieval", "raee", "tuned"), CascadePolicy(readers=("head",))]
)
def test_a_version_without_probes_runs_the_others(policy):
    check_policy(validated_policy(policy) if isinstance(policy, str) else policy, _FIRST_FORMAT)


@pytest.mark.parametrize(
    "spec",
    [
        FixedPolicy(exit="probes@1"),
        KernelPolicy(readers=("vote", "probes")),
        CascadePolicy(readers=("vote", "probes")),
    ],
    ids=str,
)
def test_a_reader_whose_place_another_has_taken_is_refused_by_name(spec):
    match = "names the reader 'probes', which the database has not: 'pool' has taken its place"
    with refused(match):
        check_policy(spec, exits_of(2, (0,)))
    with refused(match):
        exits_used(spec, ASKED)
    older = [e for e in exits_of(2, (0,)) if e.reader not in ("words", "pool")]
    check_policy(spec, (*older, *(Exit("probes", depth) for depth in range(3))))
