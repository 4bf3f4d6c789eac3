"""All exits of some texts in one pass, and what policies do with the texts, without another one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raee.answers import Answers, Neighbours
from raee.classify import ABSTAINED, UNDECIDED
from raee.config import FarSpec, RunnablePolicy
from raee.cores import single_threaded_products
from raee.exits import Entries
from raee.far_rows import far_rows
from raee.model.batches import Batches, encode
from raee.model.walk import walk
from raee.neighbours.keys import retriever_keys
from raee.policies.replay import Trial, replay
from raee.policies.table import POLICIES, Planned, layers_of, neighbours_planned_on
from raee.readers.states import check_numbers
from raee.reading import BatchReader, Database
from raee.texts import TextHashes, text_hashes

_ROWS_AT_ONCE = 1_000
"""Rows replayed in one step: bounds what a plan's look at all their neighbours' exits takes."""


@dataclass(frozen=True)
class AllExits:
    """What all exits of a database say of some texts, and what lies near these."""

    read: Answers
    """(rows, exits) with confidences as policies take them."""
    neighbours: Neighbours
    """(rows, k) by the first key."""
    usual: NDArray[np.float32]
    """(rows,) p-value of "it is drawn as the database's rows were"; NaN before format 4."""
    hashes: TextHashes
    """(rows,) the hashes of the texts."""
    truncated: NDArray[np.bool_]
    """(rows,) True if the text did not fit the model and lost its end."""

    def trial(self, entries: Entries, label: NDArray[np.integer]) -> Trial:
        """The texts as fresh rows to try policies on.

        entries: the database's; label: (rows,) places of the right labels.
        """
        said = self.read.answers, self.read.confidences, self.hashes
        fresh = Entries(entries.exits, entries.labels, label.astype(np.uint16), *said)
        return Trial(entries, np.arange(len(label)), self.neighbours, fresh)


@dataclass(frozen=True)
class Outcome:
    """What a classification with a policy says of some rows, as far as it can be replayed."""

    labels: NDArray[np.int32]
    """(rows,); -1 if the row was left unlabelled."""
    exits: NDArray[np.int64]
    """(rows,) position of the exit that answered; ABSTAINED if none did."""
    layers: NDArray[np.int64]
    """(rows,) backbone layers run."""
    far: NDArray[np.bool_]
    """(rows,) True if the row is unlike the database's."""


def read_all(
    database: Database,
    texts: Sequence[str],
    asked: int,
    on_rows: Callable[[int], None] = lambda rows: None,
    ratio: NDArray[np.float64] | None = None,
) -> AllExits:
    """Read every exit of every text in one pass, as `raee.classify.classify` does each.

    asked: how many neighbours are kept of each row, or as many as vote if that is more.  on_rows is
    told of rows as they are done.  ratio: as in `classify`.  Raises InputError if the model answers
    a text with values that are no numbers.
    """
    entries, key_depth, k = database.entries, database.key.depth, max(asked, database.vote_k)
    rows, exits = len(texts), len(entries.exits)
    read = Answers(np.zeros((rows, exits), np.uint16), np.zeros((rows, exits), np.float32))
    near = Neighbours(np.full((rows, k), -1, np.int64), np.full((rows, k), np.inf, np.float32))
    usual = np.full(rows, np.nan, np.float32)
    at_depth = [np.flatnonzero(entries.depths == d) for d in range(database.backbone.depth + 1)]
    known = None
    if database.retriever is not None:
        known = database.index.search(retriever_keys(database.retriever, texts), k)
    encoded = encode(database.backbone, database.prompt, texts)
    with single_threaded_products():
        batches = Batches(database.backbone, encoded)
        for batch in batches:
            at = batch.rows
            reader = BatchReader(database, batch, range(exits), ratio)

            def visit(
                depth: int,
                states: Tensor,
                present: Tensor,
                at: NDArray[np.int64] = at,
                reader: BatchReader = reader,
            ) -> None:
                reader.enter(depth, states, present)
                if depth == key_depth:
                    found = reader.nearest(k, None if known is None else known[at])
                    near.rows[at], near.distances[at] = found.rows, found.distances
                    if database.far is not None:
                        usual[at] = reader.unlike(database.far, found)
                for position in at_depth[depth].tolist():
                    reading = reader.read(position)
                    read.answers[at, position] = reading.distributions.argmax(axis=1)
                    read.confidences[at, position] = reading.confidences

            with batches.room():
                walk(database.backbone.stack, batch.inputs, visit)
                check_numbers(database.backbone, texts, at, read.confidences[at])
                on_rows(len(at))
    return AllExits(read, near, usual, text_hashes(encoded.token_ids), encoded.truncated)


def outcome(
    database: Database,
    spec: RunnablePolicy,
    seen: AllExits,
    trial: Trial,
    far: FarSpec | None = None,
) -> Outcome:
    """What `raee.classify.classify` says of texts with a policy, out of what all exits say of them.

    trial: `seen` as rows to try policies on; far: as in `classify`.  Raises InputError if the
    database lacks an exit that the policy needs.
    """
    entries = database.entries
    starts = range(0, max(len(trial), 1), _ROWS_AT_ONCE)
    parts = [replay(spec, trial[start : start + _ROWS_AT_ONCE]) for start in starts]
    exits = np.concatenate([part.exits for part in parts])
    layers = np.concatenate([part.layers for part in parts])
    is_far = np.zeros(len(trial), dtype=bool)
    rule = far_rows(database, spec, far)
    if rule is not None:
        # Only a row that comes by the first key is looked at.
        planned_late = neighbours_planned_on(spec) > 0 and database.retriever is None
        in_walk = ~entries.before_walk[exits] | planned_late
        is_far = (layers >= entries.key_depth) & in_walk
        is_far &= rule.among(seen.neighbours.distances[:, 0], seen.usual)
        planned = isinstance(POLICIES[spec.name], Planned)
        plan = exits if planned else np.full(len(exits), UNDECIDED)
        redirected = is_far & ~rule.stay(plan, entries)
        exits = np.where(redirected, ABSTAINED if rule.exit is None else rule.exit, exits)
    answered = exits != ABSTAINED
    labels = np.full(len(exits), -1, np.int32)
    labels[answered] = seen.read.answers[np.flatnonzero(answered), exits[answered]]
    layers = np.full(len(exits), database.key.depth)
    layers[answered] = layers_of(spec, entries, exits[answered])
    return Outcome(labels, exits, layers, is_far)
