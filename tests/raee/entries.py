"""Entries written by hand or drawn at random: tests of policies need no model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from raee.answers import Neighbours
from raee.exits import Entries, exits_of
from raee.policies.replay import Trial
from raee.texts import Copies

LABELS = ("a", "b", "c")


def entries_of(label, answers, confidences, key_depths: Sequence[int] = (0,)) -> Entries:
    """Entries with these head exits; (rows, heads).  All others are right and sure."""
    label, heads = np.array(label, np.uint16), np.array(answers, np.uint16)
    exits = exits_of(heads.shape[1] - 1, key_depths)
    others = len(exits) - heads.shape[1]
    return Entries(
        exits=exits,
        labels=LABELS,
        label=label,
        answers=np.column_stack([heads, label[:, None].repeat(others, axis=1)]),
        confidences=np.column_stack(
            [np.array(confidences, np.float32), np.ones((len(label), others), np.float32)]
        ),
        hashes=np.arange(len(label), dtype=np.uint64),
    )


def each_once(label) -> Copies:
    """Rows of which no two have equal texts.  label: (rows,)."""
    return Copies(label.astype(np.int64)[:, None], np.ones((len(label), 1), np.int64))


def saying(entries: Entries, said: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Entries:
    """The entries with other answers and confidences (rows,) at some exits, by their names."""
    answers, confidences = entries.answers.copy(), entries.confidences.copy()
    for name, (own_answers, own_confidences) in said.items():
        place = entries.position_of(name)
        answers[:, place], confidences[:, place] = own_answers, own_confidences
    return replace(entries, answers=answers, confidences=confidences)


def random_trial(
    depth: int,
    key_depths: Sequence[int] = (0,),
    seed: int = 0,
    rows: int = 24,
    k: int = 5,
    unread: int = 0,
) -> Trial:
    """The complete rows of entries that mean nothing, in no order, with neighbours to match.

    unread: rows, spread among the others, of which the probes were not read.
    """
    generator = np.random.default_rng(seed)
    exits = exits_of(depth, key_depths)
    confidences = generator.random((rows, len(exits))).astype(np.float32)
    swept = depth + 1 + len(key_depths)
    confidences[generator.permutation(rows)[:unread], swept:] = np.nan
    entries = Entries(
        exits=exits,
        labels=LABELS,
        label=generator.integers(0, 3, rows).astype(np.uint16),
        answers=generator.integers(0, 3, (rows, len(exits))).astype(np.uint16),
        confidences=confidences,
        hashes=np.arange(rows, dtype=np.uint64),
    )
    complete = generator.permutation(entries.complete)
    found = np.stack(
        [generator.choice(np.delete(np.arange(rows), row), k, replace=False) for row in complete]
    )
    distances = np.sort(generator.random((len(complete), k)).astype(np.float32), axis=1)
    return Trial(entries, complete, Neighbours(found, distances, complete))
