"""Classification: each row runs through only the layers that its exit needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.backbones import Backbone
from raee.batches import Batch, encode, token_batches
from raee.config import KeySpec, PolicySpec
from raee.exits import Entries, Neighbours
from raee.index import Index
from raee.keys import layer_key, retriever_keys
from raee.policies import (
    NO_NEIGHBOURS,
    POLICIES,
    Plan,
    Planned,
    Stepwise,
    layers_of,
)
from raee.prompts import Prompt
from raee.readers import HeadReader, vote
from raee.walk import Visit, walk


@dataclass(frozen=True)
class Database:
    """A version in memory, with the models that it was built with."""

    backbone: Backbone
    prompt: Prompt
    head: HeadReader
    key: KeySpec
    retriever: Backbone | None
    """The key's model where that is not the backbone."""
    index: Index
    entries: Entries
    vote_k: int
    """Neighbours that vote."""


@dataclass(frozen=True)
class Predictions:
    """What a classification says of its rows, in their order."""

    labels: NDArray[np.uint16]
    """(rows,)."""
    confidences: NDArray[np.float32]
    """(rows,) the label's probability."""
    exits: NDArray[np.int64]
    """(rows,) place of the exit that answered, among the entries' exits."""
    layers: NDArray[np.int64]
    """(rows,) backbone layers run."""
    nearest: NDArray[np.float32]
    """(rows,) squared L2 distance to the nearest key; NaN where no neighbour was asked."""
    cut: NDArray[np.bool_]
    """(rows,) True where the text lost its end."""
    layers_run: int
    """Layers run over all rows, as the walk counted them."""


def classify(
    database: Database,
    spec: PolicySpec,
    texts: Sequence[str],
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Predictions:
    """Classify texts with a database and a policy.

    on_rows is told of rows as they are done.
    """
    entries, backbone = database.entries, database.backbone
    policy = POLICIES[spec.name]
    encoded = encode(backbone, database.prompt, texts)
    answers = _Answers(
        np.zeros((len(texts), len(entries.labels)), dtype=np.float32),
        np.zeros(len(texts), dtype=np.int64),
        np.full(len(texts), np.nan, dtype=np.float32),
    )
    visitor: Callable[[Batch], Visit]
    if isinstance(policy, Stepwise):
        plan = None
        visitor = partial(_stepwise_visit, database, spec, policy, answers)
    else:
        plan, neighbours = _known_before_pass(database, spec, policy, texts)
        visitor = partial(_planned_visit, database, spec, policy, answers, plan, neighbours)
    layers_run = 0
    for batch in token_batches(backbone, encoded, second=plan):
        layers_run += walk(backbone.stack, batch.inputs, visitor(batch))
        on_rows(len(batch.rows))
    labels = answers.distributions.argmax(axis=1)
    return Predictions(
        labels=labels.astype(np.uint16),
        confidences=np.take_along_axis(answers.distributions, labels[:, None], axis=1)[:, 0],
        exits=answers.exits,
        layers=layers_of(spec, entries, answers.exits, database.key.depth),
        nearest=answers.nearest,
        cut=encoded.cut,
        layers_run=layers_run,
    )


@dataclass(frozen=True)
class _Answers:
    """Where the visitors of a classification's batches write."""

    distributions: NDArray[np.float32]
    exits: NDArray[np.int64]
    nearest: NDArray[np.float32]

    def write(
        self, rows: NDArray[np.int64], place: int, distributions: NDArray[np.float32]
    ) -> None:
        """Rows (n,) answer at an exit with distributions (n, labels)."""
        self.distributions[rows] = distributions
        self.exits[rows] = place


def _known_before_pass(
    database: Database, spec: PolicySpec, policy: Planned, texts: Sequence[str]
) -> tuple[Plan | None, Neighbours | None]:
    """All rows' exits and neighbours, each where it is known before the backbone runs."""
    entries = database.entries
    planned_on, asked = policy.neighbours(spec), _neighbours_asked(database, spec, policy)
    neighbours = None
    if asked and database.retriever is not None:
        neighbours = database.index.search(retriever_keys(database.retriever, texts), asked)
    if not planned_on:
        plan = policy.plan(spec, entries, NO_NEIGHBOURS)
        return np.broadcast_to(plan, len(texts)), neighbours
    return None if neighbours is None else policy.plan(spec, entries, neighbours), neighbours


def _neighbours_asked(database: Database, spec: PolicySpec, policy: Planned) -> int:
    """How many neighbours a policy's rows ask for: for their plan, or for their vote."""
    if policy.neighbours(spec):
        return policy.neighbours(spec)
    place = int(policy.plan(spec, database.entries, NO_NEIGHBOURS)[0])
    return database.vote_k if database.entries.exits[place].reader == "vote" else 0


def _planned_visit(
    database: Database,
    spec: PolicySpec,
    policy: Planned,
    answers: _Answers,
    plan: Plan | None,
    neighbours: Neighbours | None,
    batch: Batch,
) -> Visit:
    """A visitor whose rows leave at their planned exits.

    plan, neighbours: of all rows, where they are known before the pass.  Where they are not, every
    head is read on the way to the key's depth, and the plan is made there.
    """
    entries, key = database.entries, database.key
    attention = batch.inputs["attention_mask"]
    depths = np.array([e.depth for e in entries.exits])
    asked = _neighbours_asked(database, spec, policy)
    plan = None if plan is None else plan[batch.rows]
    if neighbours is not None:
        neighbours = neighbours[batch.rows]
        answers.nearest[batch.rows] = neighbours.distances[:, 0]
    on_the_way: dict[int, NDArray[np.float32]] = {}

    def read_head(depth: int, states: Tensor, rows: Tensor) -> NDArray[np.float32]:
        read = database.head(depth, states, attention[rows], batch.mask_positions[rows])
        return read.cpu().numpy()

    def visit(depth: int, states: Tensor, rows: Tensor) -> Tensor | None:
        nonlocal plan, neighbours
        if plan is None:
            on_the_way[depth] = read_head(depth, states, rows)
        if asked and neighbours is None and depth == key.depth:
            keys = layer_key(database.backbone, states, attention)
            neighbours = database.index.search(keys, asked)
            answers.nearest[batch.rows] = neighbours.distances[:, 0]
            if plan is None:
                plan = policy.plan(spec, entries, neighbours)
        if plan is None:
            return None
        present = rows.cpu().numpy()
        leaving = depths[plan[present]] <= depth
        for place in np.unique(plan[present[leaving]]):
            due = np.flatnonzero(plan[present] == place)
            exit = entries.exits[place]
            if exit.reader == "vote":
                assert neighbours is not None, "a vote's neighbours are asked at the key's depth"
                read = vote(neighbours[present[due]], entries.label, len(entries.labels))
            elif exit.depth in on_the_way:
                read = on_the_way[exit.depth][present[due]]
            else:
                chosen = torch.as_tensor(due, device=rows.device)
                read = read_head(depth, states[chosen], rows[chosen])
            answers.write(batch.rows[present[due]], int(place), read)
        return torch.as_tensor(~leaving)

    return visit


def _stepwise_visit(
    database: Database, spec: PolicySpec, policy: Stepwise, answers: _Answers, batch: Batch
) -> Visit:
    """A visitor whose rows leave at the first checkpoint that lets them."""
    checkpoints = policy.checkpoints(spec, database.entries)
    place_at = {database.entries.exits[place].depth: place for place in checkpoints}
    attention = batch.inputs["attention_mask"]

    def visit(depth: int, states: Tensor, rows: Tensor) -> Tensor | None:
        if depth not in place_at:
            return None
        place = place_at[depth]
        read = database.head(depth, states, attention[rows], batch.mask_positions[rows])
        distributions = read.cpu().numpy()
        leaving = policy.leave(spec, distributions.max(axis=1)) | (place == checkpoints[-1])
        present = batch.rows[rows.cpu().numpy()]
        answers.write(present[leaving], place, distributions[leaving])
        return torch.as_tensor(~leaving)

    return visit
