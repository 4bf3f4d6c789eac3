"""Replay: run a policy on a database's own rows, leave-one-out, without the model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, matthews_corrcoef

from raee.config import PolicySpec
from raee.exits import Entries, Neighbours
from raee.policies import NO_NEIGHBOURS, POLICIES, Planned, layers_of


@dataclass(frozen=True)
class Replayed:
    """What a policy did with the database's rows."""

    exits: NDArray[np.int64]
    """(rows,) place of the exit at which each row answered."""
    answers: NDArray[np.uint16]
    """(rows,)."""
    layers: NDArray[np.int64]
    """(rows,) backbone layers run."""


def replay(spec: PolicySpec, entries: Entries, neighbours: Neighbours, key_depth: int) -> Replayed:
    """Run a policy on every entry.

    neighbours: (rows, k) of each row among the others; a policy that asks more of them gets k.
    key_depth: layers that a row has run when its neighbours are known.
    """
    policy = POLICIES[spec.name]
    rows = np.arange(len(entries))
    if isinstance(policy, Planned):
        asked = neighbours if policy.neighbours(spec) else NO_NEIGHBOURS
        exits = np.broadcast_to(policy.plan(spec, entries, asked), len(entries))
    else:
        checkpoints = policy.checkpoints(spec, entries)
        leave = np.stack(
            [policy.leave(spec, entries.confidences[:, place]) for place in checkpoints], axis=1
        )
        leave[:, -1] = True
        exits = np.asarray(checkpoints)[leave.argmax(axis=1)]
    layers = layers_of(spec, entries, exits, key_depth)
    return Replayed(exits, entries.answers[rows, exits], layers)


def scores(
    answers: NDArray[np.uint16], label: NDArray[np.uint16], layers: NDArray[np.int64]
) -> dict[str, float]:
    """Accuracy, macro-F1 and Matthews correlation of some answers, and the mean layers run."""
    # scikit-learn warns of a correlation where there is only one label; it is 0.
    varied = len(np.union1d(answers, label)) > 1
    return {
        "accuracy": float(np.mean(answers == label)),
        "macro_f1": float(f1_score(label, answers, average="macro", zero_division=0)),
        "matthews": float(matthews_corrcoef(label, answers)) if varied else 0.0,
        "mean_layers": float(np.mean(layers)),
    }
