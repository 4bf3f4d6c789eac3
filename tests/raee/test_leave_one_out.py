"""Replay on the database's own rows says what classification without their texts will do."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from raee.classify import classify
from raee.config import (
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    KeySpec,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.policies.replay import Trial, replay
from raee.policies.table import POLICIES, Stepwise
from tests.raee.databases import Built, build, without

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
    ("okay", 2),
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
    ("never again", 0),
    ("never again", 1),
    ("i saw it twice", 1),
    ("i saw it twice", 1),
)
"""28 rows with labels: two are near duplicates, one is the only one of its label, and two texts
occur more than once, one of them with two labels."""

TEXTS, LABELS = zip(*FILMS, strict=True)


CASES = {
    "bert, key at depth 0": ("bert", KeySpec(layer=0), "mean"),
    "roberta, keys at depths 1 and 3": ("roberta", KeySpec(layers=(1, 3)), "answer"),
    "electra, key of a retriever": ("electra", KeySpec(model="mpnet"), "mean"),
    "mpnet, key at depth 2": ("mpnet-encoder", KeySpec(layer=2), "mean"),
    "minilm, keys at depth 0 and full depth": ("minilm", KeySpec(layers=(0, 6)), "mean"),
}
"""The model, its key, and what its probes read."""


def _policies(built: Built) -> Iterator:
    """Policies of every kind, the cascades with thresholds at which about half of the rows go."""
    depths, full = built.database.key.depths, built.database.backbone.depth
    yield FullPolicy()
    for name in ("head@1", "probe@2", "probe@3", "de3@1", f"vote@{depths[-1]}"):
        yield FixedPolicy(exit=name)
    yield RetrievalPolicy(exit=f"vote@{depths[0]}")
    yield RaeePolicy(k=5)
    yield RaeePolicy(k=3, threshold=0.6, top=1)
    yield KernelPolicy(k=5)
    yield KernelPolicy(k=3, readers=("probe", "de3"), smoothing=0.5, cost=0.02)
    for reader in ("head", "probe"):
        middle = tuple(_middle(built, (reader,), depth) for depth in range(full + 1))
        yield CascadePolicy(readers=(reader,), threshold=middle, last=full)
    yield CascadePolicy(readers=("head",), threshold=_middle(built, ("head",), 2), first=2)
    yield CascadePolicy(readers=("vote",), threshold=_middle(built, ("vote",), depths[0]))
    for readers in (("vote", "probe"), ("probe", "head", "vote")):
        middle = tuple(_middle(built, readers, depth) for depth in (1, 2, 3))
        yield CascadePolicy(readers=readers, threshold=middle, first=1, last=3)
    for first, last in ((1, full), (0, 2)):
        middle = tuple(_middle(built, ("de3",), depth) for depth in range(first, last + 1))
        yield De3Policy(threshold=middle, first=first, last=last)


def _middle(built: Built, readers, depth: int) -> float:
    """Half of the rows have a reader at a depth that is surer, and half of them none."""
    entries = built.database.entries
    there = [i for i, e in enumerate(entries.exits) if e.reader in readers and e.depth == depth]
    return float(np.median(entries.confidences[:, there].max(axis=1)))


def _stable(spec, trial: Trial):
    """(rows,) where no exit hangs on a difference of 3e-5 in a confidence or a distance."""
    own = replay(spec, trial)
    stable = np.ones(len(trial), dtype=bool)
    generator = np.random.default_rng(0)
    for _ in range(8):
        entries, found = trial.entries, trial.neighbours
        noise = generator.uniform(-3e-5, 3e-5, entries.confidences.shape).astype(np.float32)
        relative = generator.uniform(-3e-5, 3e-5, found.distances.shape).astype(np.float32)
        shaken = Trial(
            replace(entries, confidences=entries.confidences + noise),
            trial.rows,
            replace(found, distances=found.distances * (1 + relative)),
        )
        stable &= replay(spec, shaken).exits == own.exits
    return stable


@pytest.mark.parametrize(("name", "key", "state"), CASES.values(), ids=CASES)
def test_a_row_that_is_classified_without_its_text_gets_what_replay_said(
    backbone_of, name, key, state
):
    retriever = None if key.of_backbone else backbone_of("mpnet-encoder")
    built = build(backbone_of(name), TEXTS, LABELS, key, retriever, state=state)
    # The only row of its label is among the few, too.
    some = np.r_[2:24:3, 6, 25] if name == "minilm" else np.r_[1:24:2, 6, 25]
    assert LABELS[11] == 2
    assert 11 in some
    trial, databases = built.trial[some], [without(built, row) for row in some]
    compared = []
    for spec in _policies(built):
        said, stable = replay(spec, trial), _stable(spec, trial)
        compared.append(stable.mean())
        policy = POLICIES[spec.name]
        if isinstance(policy, Stepwise) and len(policy.checkpoints(spec, trial.entries)) > 3:
            assert len(np.unique(replay(spec, built.trial).exits)) >= 3
        done = [
            classify(database, spec, [TEXTS[row]])
            for database, row in zip(databases, some, strict=True)
        ]
        for field, own in (
            ("exits", said.exits),
            ("labels", said.answers),
            ("layers", said.layers),
        ):
            classified = np.concatenate([getattr(found, field) for found in done])
            np.testing.assert_array_equal(
                classified[stable], own[stable], err_msg=f"{spec} {field}"
            )
        entries = trial.entries
        surely = stable & (np.array([entries.exits[i].reader for i in said.exits]) != "de3")
        np.testing.assert_allclose(
            np.concatenate([found.confidences for found in done])[surely],
            entries.confidences[trial.rows, said.exits][surely],
            atol=1e-4,
            err_msg=str(spec),
        )
    assert np.mean(compared) > 0.9
