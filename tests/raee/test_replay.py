"""Replay on the database's own rows says what classification will do."""

from dataclasses import replace

import numpy as np
import pytest

from raee.classify import classify
from raee.config import (
    CascadePolicy,
    FixedPolicy,
    FullPolicy,
    KeySpec,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.exits import Entries, Neighbours, exits_of
from raee.replay import replay, scores
from tests.raee.databases import build, without

FILMS = (
    ("a warm and great story", 1),
    ("a dull and boring story", 0),
    ("the actor was terrible", 0),
    ("the actor was great", 1),
    ("the actor was great .", 1),
    ("bravo , bravo , bravo !", 1),
    ("never again", 0),
    ("never was a film so good", 1),
    ("it made me laugh and cry", 1),
    ("it made me cry , it was so bad", 0),
    ("bad plot , bad actor , bad film", 0),
    ("okay", 1),
    ("okay , but dull", 0),
    ("a good scene and a bad scene and a good scene", 1),
    ("the plot is a boring mess from the first scene to the last one", 0),
    ("one of the best films of the year , with a cast that never puts a foot wrong", 1),
    ("i left before the end", 0),
    ("i saw it twice", 1),
    ("", 0),
    ("what a waste of time and of talent", 0),
    ("funny , warm and wise", 1),
    ("the music is the only thing that works here", 0),
    ("a small gem", 1),
    ("too long by an hour", 0),
)
"""24 texts with labels, two of them near duplicates."""

TEXTS, GOOD = zip(*FILMS, strict=True)

POLICIES = (
    FullPolicy(),
    FixedPolicy(exit="head@1"),
    FixedPolicy(exit="head@3"),
    RetrievalPolicy(),
    RaeePolicy(k=5),
    RaeePolicy(k=3, threshold=0.6, top=1),
    CascadePolicy(threshold=0.7),
    CascadePolicy(threshold=0.6, first=2),
)

CASES = {
    "bert, key at depth 0": ("bert", KeySpec(layer=0)),
    "modernbert, key at depth 2": ("modernbert", KeySpec(layer=2)),
    "deberta, key of a retriever": ("deberta-v2", KeySpec(model="mpnet")),
    "mpnet, key at depth 1": ("mpnet-encoder", KeySpec(layer=1)),
    "minilm, key at depth 0": ("minilm", KeySpec(layer=0)),
    "minilm, key at full depth": ("minilm", KeySpec(layer=6)),
}


def _stable(spec, entries: Entries, neighbours: Neighbours, key_depth: int):
    """(rows,) where no exit hangs on a difference of 1e-4 in a confidence or a distance."""
    own = replay(spec, entries, neighbours, key_depth)
    stable = np.ones(len(entries), dtype=bool)
    generator = np.random.default_rng(0)
    for _ in range(20):
        noise = generator.uniform(-1e-4, 1e-4, entries.confidences.shape).astype(np.float32)
        relative = generator.uniform(-1e-4, 1e-4, neighbours.distances.shape).astype(np.float32)
        shaken = replay(
            spec,
            replace(entries, confidences=entries.confidences + noise),
            Neighbours(neighbours.rows, neighbours.distances * (1 + relative)),
            key_depth,
        )
        stable &= shaken.exits == own.exits
    return stable


@pytest.mark.parametrize(("name", "key"), CASES.values(), ids=CASES)
def test_a_row_that_is_classified_without_itself_gets_what_replay_said(backbone_of, name, key):
    retriever = None if key.of_backbone else backbone_of("mpnet-encoder")
    built = build(backbone_of(name), TEXTS, GOOD, key, retriever)
    entries = built.database.entries
    others = [without(built, row) for row in range(len(TEXTS))]
    for spec in POLICIES:
        said = replay(spec, entries, built.neighbours, key.depth)
        stable = _stable(spec, entries, built.neighbours, key.depth)
        assert stable.sum() >= 20
        done = [classify(other, spec, [text]) for other, text in zip(others, TEXTS, strict=True)]
        for field, own in (
            ("exits", said.exits),
            ("labels", said.answers),
            ("layers", said.layers),
        ):
            classified = np.concatenate([getattr(found, field) for found in done])
            np.testing.assert_array_equal(
                classified[stable], own[stable], err_msg=f"{spec} {field}"
            )


def _entries() -> Entries:
    return Entries(
        exits=exits_of(2, 1),
        labels=("a", "b"),
        label=np.array([0, 1, 1], np.uint16),
        answers=np.array([[0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1]], np.uint16),
        confidences=np.array(
            [[0.9, 0.8, 0.7, 1], [0.6, 0.8, 0.9, 1], [0.6, 0.7, 0.5, 1]], np.float32
        ),
    )


def _neighbours() -> Neighbours:
    return Neighbours(np.array([[1, 2], [0, 2], [1, 0]]), np.ones((3, 2), np.float32))


def test_a_cascade_leaves_at_the_first_sure_head_and_at_the_last_one_anyway():
    done = replay(CascadePolicy(threshold=0.8), _entries(), _neighbours(), 1)
    assert done.exits.tolist() == [0, 1, 2]
    assert done.answers.tolist() == [0, 1, 1]
    assert done.layers.tolist() == [0, 1, 2]


def test_raee_asks_the_neighbours_and_pays_for_the_keys_depth():
    done = replay(RaeePolicy(k=1, threshold=0.6), _entries(), _neighbours(), 1)
    # Row 1 is right at depths 1 and 2 and surer at 2, row 0 only at depth 0.
    assert done.exits.tolist() == [2, 0, 2]
    assert done.answers.tolist() == [0, 0, 1]
    assert done.layers.tolist() == [2, 1, 2]


def test_retrieval_replays_the_vote_that_was_stored():
    done = replay(RetrievalPolicy(), _entries(), _neighbours(), 1)
    assert done.answers.tolist() == [0, 0, 1]
    assert done.layers.tolist() == [1, 1, 1]


def test_scores_are_those_of_the_textbook():
    label, answers = np.array([0, 0, 1, 1], np.uint16), np.array([0, 1, 1, 1], np.uint16)
    found = scores(answers, label, np.array([0, 1, 2, 2]))
    assert found == {
        "accuracy": pytest.approx(3 / 4),
        "macro_f1": pytest.approx((2 / 3 + 4 / 5) / 2),
        "matthews": pytest.approx(1 / np.sqrt(3)),
        "mean_layers": pytest.approx(5 / 4),
    }


def test_one_label_has_no_correlation_and_no_warning():
    same = np.zeros(3, np.uint16)
    found = scores(same, same, np.ones(3, np.int64))
    assert found["accuracy"] == found["macro_f1"] == 1
    assert found["matthews"] == 0
