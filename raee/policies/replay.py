"""Replay: run a policy on rows whose exits were all read, without the model.

They are a database's own rows, each without its text, or fresh ones.  A thousand policies on ten
thousand rows are a matter of seconds.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.config import RunnablePolicy
from raee.exits import Entries
from raee.policies.costs import LAYERS, Costs
from raee.policies.table import NO_NEIGHBOURS, POLICIES, Planned, layers_of
from raee.texts import Texts

NO_EXIT = -1
"""Instead of an exit's position, for a row that is answered without one."""


@dataclass(frozen=True)
class Trial:
    """Rows to try policies on: a database's own, or fresh ones."""

    entries: Entries
    """All entries of the database: plans look up their neighbours there."""
    rows: NDArray[np.int64]
    """Positions in `tried` of the rows that are tried, all of them complete."""
    neighbours: Neighbours
    """(rows, k) of each tried row among the database's, without its text if it is one of them; a
    policy that asks for more gets k."""
    fresh: Entries | None = None
    """What the same exits say of rows that the database has not; None if its own are tried."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: NDArray | slice) -> "Trial":
        """Some of the rows."""
        return replace(self, rows=self.rows[some], neighbours=self.neighbours[some])

    @property
    def tried(self) -> Entries:
        """Whose rows are tried: what their exits say, and what is right."""
        return self.entries if self.fresh is None else self.fresh

    @property
    def label(self) -> NDArray[np.uint16]:
        """(rows,) the right labels."""
        return self.tried.label[self.rows]

    @property
    def texts(self) -> Texts:
        """Which of the rows have equal texts."""
        return Texts(self.tried.hashes[self.rows])


@dataclass(frozen=True)
class Replayed:
    """What a policy did with the rows of a trial."""

    exits: NDArray[np.int64]
    """(rows,) position of the exit at which each row answered; NO_EXIT if none did."""
    answers: NDArray[np.uint16]
    """(rows,) the index of the label."""
    layers: NDArray[np.int64]
    """(rows,) backbone layers run."""
    seconds: NDArray[np.float64]
    """(rows,) seconds as the cost table models them."""

    def __getitem__(self, some: NDArray) -> "Replayed":
        """Some of the rows."""
        return Replayed(self.exits[some], self.answers[some], self.layers[some], self.seconds[some])


def replay(spec: RunnablePolicy, trial: Trial, costs: Costs = LAYERS) -> Replayed:
    """Run a policy on a trial's rows.  Raises InputError if the database lacks an exit it needs."""
    policy, entries = POLICIES[spec.name], trial.entries
    if isinstance(policy, Planned):
        asked = policy.neighbours(spec)
        neighbours = trial.neighbours if asked else NO_NEIGHBOURS
        exits = np.broadcast_to(policy.plan(spec, entries, neighbours), len(trial))
        reads = np.array([costs.read(e) for e in entries.exits])
        extra = reads[exits]
        if asked:
            # The first key is searched and the exits on the way to it are read before the plan is
            # known: every row pays for them, and a row that leaves at one of them pays no more.
            way = [i for i in policy.exits(spec, entries) if entries.depths[i] < entries.key_depth]
            first = entries.votes[0]
            searched = {entries.exits[first].reader: entries.key_depth}
            then = np.array([costs.read(e, searched) for e in entries.exits])
            others = np.where(np.isin(exits, [first, *way]), 0.0, then[exits])
            extra = reads[first] + then[way].sum() + others
    else:
        positions = np.asarray(policy.checkpoints(spec, entries))
        step = np.full(len(trial), len(positions) - 1)
        for i in range(len(positions) - 2, -1, -1):
            sure = policy.leave(
                spec,
                int(entries.depths[positions[i]]),
                trial.tried.confidences[trial.rows, positions[i]],
            )
            step[sure] = i
        exits = positions[step]
        extra = costs.asked(positions.tolist(), entries)[step]
    layers = layers_of(spec, entries, exits)
    answers = trial.tried.answers[trial.rows, exits]
    return Replayed(exits, answers, layers, costs.walked(layers) + extra)


def figures(replayed: Replayed, trial: Trial) -> dict[str, Any]:
    """How good a policy is on a trial, for tables and manifests.

    They are its `scores`, its modelled seconds a row, its rows by exit, and each label's rows,
    precision and recall.
    """
    label, names = trial.label, trial.entries.labels
    left = replayed.exits[replayed.exits != NO_EXIT]
    counts = np.bincount(left, minlength=len(trial.entries.exits))
    right = replayed.answers == label
    times_given = np.bincount(replayed.answers, minlength=len(names))
    there = np.bincount(label, minlength=len(names))
    hits = np.bincount(label[right], minlength=len(names))
    return {
        **scores(replayed.answers, label, replayed.layers),
        "seconds_per_row": float(replayed.seconds.mean()),
        "exits": {str(e): int(n) for e, n in zip(trial.entries.exits, counts, strict=True) if n},
        "by_label": {
            name: {
                "rows": int(there[i]),
                "precision": float(hits[i] / max(times_given[i], 1)),
                "recall": float(hits[i] / max(there[i], 1)),
            }
            for i, name in enumerate(names)
        },
    }


def scores(
    answers: NDArray[np.integer], label: NDArray[np.integer], layers: NDArray[np.int64]
) -> dict[str, float]:
    """Accuracy, macro-F1 and Matthews correlation of some answers, and the mean layers run.

    answers, label, layers: (rows,); an answer is -1 for a row that is left unlabelled, which is
    wrong, but no label of its own.
    """
    from sklearn.metrics import f1_score, matthews_corrcoef  # slow to import

    there = np.union1d(answers, label)
    # scikit-learn warns if there is only one label; the correlation is then 0.
    varied = len(there) > 1
    macro = f1_score(label, answers, labels=there[there >= 0], average="macro", zero_division=0)
    return {
        "accuracy": float(np.mean(answers == label)),
        "macro_f1": float(macro),
        "matthews": float(matthews_corrcoef(label, answers)) if varied else 0.0,
        "mean_layers": float(np.mean(layers)),
    }
