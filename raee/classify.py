"""Classification: each row runs through only the layers that its exit needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.answers import Neighbours
from raee.config import FarSpec, RunnablePolicy
from raee.cores import single_threaded_products
from raee.far_rows import FarRows, asks_neighbours, far_rows
from raee.model.batches import Batch, Batches, Encoded, encode
from raee.model.walk import walk
from raee.neighbours.keys import retriever_keys
from raee.policies.table import (
    NO_NEIGHBOURS,
    POLICIES,
    Plan,
    Planned,
    Stepwise,
    exits_used,
    layers_of,
    neighbours_planned_on,
)
from raee.readers.states import check_numbers
from raee.reading import BatchReader, Database, Read, TextReader
from raee.statistics.calibration import Line, as_sure_as

UNDECIDED, ABSTAINED = -1, -2
"""What is written instead of an exit: for a row whose exit is not known yet, and for one that gets
no answer."""

_ROWS_AT_ONCE = 2_000
"""Rows read before the walk in one step: bounds what their distributions take."""


@dataclass(frozen=True)
class Predictions:
    """What a classification says of its rows, in their order."""

    labels: NDArray[np.int32]
    """(rows,); -1 if the row was left unlabelled."""
    confidences: NDArray[np.float32]
    """(rows,) how likely the label is right, calibrated by exit; NaN if there is none."""
    exits: NDArray[np.int64]
    """(rows,) position of the exit that answered, among the entries' exits; -2 if none did."""
    layers: NDArray[np.int64]
    """(rows,) backbone layers run."""
    nearest: NDArray[np.float32]
    """(rows,) squared L2 distance to the nearest row by the first key; NaN if nobody asked."""
    usual: NDArray[np.float32]
    """(rows,) p-value of "it is drawn as the database's rows were" (`raee.statistics.far`); NaN if
    nobody asked."""
    far: NDArray[np.bool_]
    """(rows,) True if the row is unlike the database's."""
    truncated: NDArray[np.bool_]
    """(rows,) True if the text did not fit the model and lost its end."""
    layers_run: int
    """Layers run over all rows, as the walk counted them."""
    tokens: int
    """Tokens of all rows, special ones included."""
    distributions: NDArray[np.float32] | None = None
    """(rows, labels) what the answering exits say of all labels, as sure of the answer as
    `confidences`; NaN if the row was left unlabelled.  None if that was not asked."""


@dataclass(frozen=True)
class Begun:
    """A classification as far as it goes without a model."""

    texts: Sequence[str]
    encoded: Encoded
    run: "_Run"
    before: "_BeforeWalk | None"
    """None if a model says which exits are planned."""


def begin(
    database: Database,
    spec: RunnablePolicy,
    texts: Sequence[str],
    far: FarSpec | None = None,
    ratio: NDArray[np.float64] | None = None,
    lines: Mapping[int, Line] | None = None,
    all_labels: bool = False,
) -> Begun:
    """Tokenize texts, and answer those that leave before the walk.

    It may run in a thread while another classification is finished: it runs no model.  The
    arguments are those of `classify`.
    """
    encoded = encode(database.backbone, database.prompt, texts)
    run = _Run.of(database, spec, far, ratio, lines or {}, len(texts), all_labels)
    by_model = run.asks_key and database.retriever is not None
    return Begun(texts, encoded, run, None if by_model else _before_walk(run, encoded, None))


def finish(begun: Begun, on_rows: Callable[[int], None] = lambda rows: None) -> Predictions:
    """Walk the rows that are left through the model.

    on_rows: as in `classify`.  Raises InputError as `classify` does.
    """
    texts, encoded, run = begun.texts, begun.encoded, begun.run
    database, before, known = run.database, begun.before, None
    if before is None:
        known = _known_before_pass(run, texts)
        before = _before_walk(run, encoded, known)
    on_rows(int((~before.stays).sum()))
    layers_run = 0
    with single_threaded_products():
        # A planned exit sorts rows of one length, so that they leave a batch together.
        batches = Batches(database.backbone, encoded, before.plan, some=before.stays)
        for batch in batches:
            with batches.room():
                visit = _Visitor(run, batch, before.plan, known).visit
                layers_run += walk(database.backbone.stack, batch.inputs, visit)
                rows = batch.rows[run.exits[batch.rows] != ABSTAINED]
                check_numbers(database.backbone, texts, rows, run.confidences[rows])
                on_rows(len(batch.rows))
    answered = run.exits != ABSTAINED
    layers = np.full(len(texts), database.key.depth)
    layers[answered] = layers_of(run.spec, database.entries, run.exits[answered])
    return Predictions(
        labels=np.where(answered, run.labels, -1),
        confidences=np.where(answered, run.confidences, np.float32(np.nan)),
        exits=run.exits,
        layers=layers,
        nearest=run.nearest,
        usual=run.usual,
        far=run.far,
        truncated=encoded.truncated,
        layers_run=layers_run,
        tokens=int(encoded.lengths.sum()),
        distributions=run.distributions,
    )


def classify(
    database: Database,
    spec: RunnablePolicy,
    texts: Sequence[str],
    on_rows: Callable[[int], None] = lambda rows: None,
    far: FarSpec | None = None,
    ratio: NDArray[np.float64] | None = None,
    lines: Mapping[int, Line] | None = None,
    all_labels: bool = False,
) -> Predictions:
    """Classify texts with a database and a policy.

    on_rows is told of rows as they are done.  far: what becomes of rows unlike the database's;
    by default nothing.  A row is checked only if it reaches its key anyway: it never runs a layer
    to find out.  ratio: (labels,) the corpus's label shares divided by the database's, for readers
    that learnt the latter.  lines: by exit what calibrates the confidences that are written (see
    `raee.statistics.calibration.policy_lines`); by default they are as they were read.  all_labels:
    whether distributions are kept.  Raises InputError if the model answers a text with values that
    are no numbers.
    """
    return finish(begin(database, spec, texts, far, ratio, lines, all_labels), on_rows)


@dataclass(frozen=True)
class _Run:
    """A classification under way: what is asked of every batch, and where its answers go."""

    database: Database
    spec: RunnablePolicy
    policy: Planned | Stepwise
    uses: list[int]
    """Positions of the exits that may be read."""
    asks_key: bool
    """Whether rows ask their neighbours at the first key's depth."""
    far_rows: FarRows | None
    """What becomes of far rows; None if nobody looks at them."""
    ratio: NDArray[np.float64] | None
    lines: Mapping[int, Line]
    """By exit, what calibrates the confidences that are written."""
    labels: NDArray[np.int32]
    confidences: NDArray[np.float32]
    exits: NDArray[np.int64]
    nearest: NDArray[np.float32]
    usual: NDArray[np.float32]
    far: NDArray[np.bool_]
    distributions: NDArray[np.float32] | None

    @classmethod
    def of(
        cls,
        database: Database,
        spec: RunnablePolicy,
        far: FarSpec | None,
        ratio: NDArray[np.float64] | None,
        lines: Mapping[int, Line],
        rows: int,
        all_labels: bool,
    ) -> "_Run":
        rule = far_rows(database, spec, far)
        return cls(
            database=database,
            spec=spec,
            policy=POLICIES[spec.name],
            uses=exits_used(spec, database.entries),
            asks_key=rule is not None or asks_neighbours(database, spec),
            far_rows=rule,
            ratio=ratio,
            lines=lines,
            labels=np.full(rows, -1, dtype=np.int32),
            confidences=np.full(rows, np.nan, dtype=np.float32),
            exits=np.full(rows, UNDECIDED),
            nearest=np.full(rows, np.nan, dtype=np.float32),
            usual=np.full(rows, np.nan, dtype=np.float32),
            far=np.zeros(rows, dtype=bool),
            distributions=np.full((rows, len(database.entries.labels)), np.nan, dtype=np.float32)
            if all_labels
            else None,
        )

    def write(self, rows: NDArray[np.int64], position: int, reading: Read) -> None:
        """Rows (n,) answer at an exit."""
        self.labels[rows] = reading.distributions.argmax(axis=1)
        if position in self.lines:
            labels = len(self.database.entries.labels)
            self.confidences[rows] = self.lines[position](reading.confidences, labels)
        elif self.database.entries.exits[position].of.answers_as is not None:
            # Its confidence in another reader's answer is no probability by itself.
            self.confidences[rows] = reading.distributions.max(axis=1)
        else:
            self.confidences[rows] = reading.confidences
        if self.distributions is not None:
            self.distributions[rows] = as_sure_as(reading.distributions, self.confidences[rows])
        self.exits[rows] = position


@dataclass(frozen=True)
class _BeforeWalk:
    """What is known of rows before the walk."""

    plan: Plan | None
    """(rows,) exits; None if rows decide on their way."""
    stays: NDArray[np.bool_]
    """(rows,) which of them walk; the others are answered."""


def _known_before_pass(run: _Run, texts: Sequence[str]) -> Neighbours | None:
    """All rows' neighbours if the key has a model of its own and they are asked, else None."""
    database = run.database
    if not run.asks_key or database.retriever is None:
        return None
    asked = max(neighbours_planned_on(run.spec), database.vote_k)
    return database.index.search(retriever_keys(database.retriever, texts), asked)


def _plan_before_pass(run: _Run, known: Neighbours | None) -> Plan | None:
    """All rows' exits if they are known before the backbone runs, else None.

    known: the rows' neighbours if the key has a model of its own and they are asked, else None.
    """
    if isinstance(run.policy, Stepwise):
        return None
    entries = run.database.entries
    if not run.policy.neighbours(run.spec):
        plan = run.policy.plan(run.spec, entries, NO_NEIGHBOURS)
        return np.broadcast_to(plan, len(run.exits))
    return None if known is None else run.policy.plan(run.spec, entries, known)


def _before_walk(run: _Run, encoded: Encoded, known: Neighbours | None) -> _BeforeWalk:
    """Answer the rows that leave before the walk.

    They are read in bulk, since they are in no batch.  known: as in `_plan_before_pass`.
    """
    plan = _plan_before_pass(run, known)
    entries, reader = run.database.entries, TextReader(run.database, encoded, run.ratio)
    stays = np.ones(len(run.exits), dtype=bool)
    asked, last = run.uses, None
    if isinstance(run.policy, Stepwise):
        asked = [*takewhile(lambda i: entries.before_walk[i], run.uses)]
        last = run.uses[-1]
    elif plan is None:
        return _BeforeWalk(plan, stays)
    for position in (i for i in asked if entries.before_walk[i]):
        due = np.flatnonzero(stays if plan is None else plan == position)
        for start in range(0, len(due), _ROWS_AT_ONCE):
            rows = due[start : start + _ROWS_AT_ONCE]
            reading = reader.read(position, rows)
            if isinstance(run.policy, Stepwise) and position != last:
                sure = run.policy.leave(run.spec, 0, reading.confidences)
                rows = rows[sure]
                reading = Read(reading.distributions[sure], reading.confidences[sure])
            run.write(rows, position, reading)
            stays[rows] = False
    return _BeforeWalk(plan, stays)


class _Visitor:
    """Decides, batch by batch, at which depth rows leave, and reads their answers there."""

    def __init__(
        self, run: _Run, batch: Batch, plan: Plan | None, known: Neighbours | None
    ) -> None:
        self._run, self._rows = run, batch.rows
        size = len(batch.rows)
        self._plan = np.full(size, UNDECIDED) if plan is None else plan[batch.rows].copy()
        self._known = None if known is None else known[batch.rows]
        self._reader = BatchReader(run.database, batch, run.uses, run.ratio)
        self._on_the_way: dict[int, Read] = {}

    def visit(self, depth: int, states: Tensor, rows: Tensor) -> Tensor | None:
        """Which rows go deeper, (n,) bool; None if all do."""
        run, reader = self._run, self._reader
        reader.enter(depth, states, rows)
        present = rows.numpy()
        if depth == run.database.key.depth and run.asks_key:
            self._ask(present)
        elif isinstance(run.policy, Planned) and (self._plan == UNDECIDED).any():
            # The plan may still choose an exit that the row is passing.
            for position in run.policy.exits(run.spec, run.database.entries):
                if run.database.entries.depths[position] == depth:
                    self._on_the_way[position] = reader.read(position)
        leaving = self._leave_as_planned(depth, present)
        if isinstance(run.policy, Stepwise):
            self._leave_if_sure(run.policy, depth, present, leaving)
        return torch.as_tensor(~leaving) if leaving.any() else None

    def _ask(self, present: NDArray[np.int64]) -> None:
        """Look at the neighbours: which rows are far, and where the others leave."""
        run, plan = self._run, self._plan
        known = None if self._known is None else self._known[present]
        found = self._reader.nearest(neighbours_planned_on(run.spec), known)
        run.nearest[self._rows[present]] = found.distances[:, 0]
        if isinstance(run.policy, Planned) and (plan[present] == UNDECIDED).any():
            plan[present] = run.policy.plan(run.spec, run.database.entries, found)
        rows = self._rows[present]
        if run.database.far is not None:
            run.usual[rows] = self._reader.unlike(run.database.far, found)
        if run.far_rows is not None:
            far = present[run.far_rows.among(run.nearest[rows], run.usual[rows])]
            run.far[self._rows[far]] = True
            redirected = far[~run.far_rows.stay(plan[far], run.database.entries)]
            plan[redirected] = ABSTAINED if run.far_rows.exit is None else run.far_rows.exit

    def _leave_as_planned(self, depth: int, present: NDArray[np.int64]) -> NDArray[np.bool_]:
        run = self._run
        planned = self._plan[present]
        leaving = planned == ABSTAINED
        run.exits[self._rows[present[leaving]]] = ABSTAINED
        reached = (planned >= 0) & (run.database.entries.depths[planned] <= depth)
        for position in np.unique(planned[reached]):
            due = np.flatnonzero(reached & (planned == position))
            if position in self._on_the_way:
                before = self._on_the_way[position]
                rows = present[due]
                reading = Read(before.distributions[rows], before.confidences[rows])
            else:
                reading = self._reader.read(int(position), due)
            run.write(self._rows[present[due]], int(position), reading)
        return leaving | reached

    def _leave_if_sure(
        self, policy: Stepwise, depth: int, present: NDArray[np.int64], leaving: NDArray[np.bool_]
    ) -> None:
        """Marks in `leaving` the undecided rows that a checkpoint at this depth lets go."""
        run = self._run
        checkpoints = policy.checkpoints(run.spec, run.database.entries)
        for position in checkpoints:
            entries = run.database.entries
            if entries.depths[position] != depth or entries.before_walk[position]:
                continue
            due = np.flatnonzero((self._plan[present] == UNDECIDED) & ~leaving)
            if not len(due):
                return
            reading = self._reader.read(position, due)
            sure = policy.leave(run.spec, depth, reading.confidences) | (
                position == checkpoints[-1]
            )
            going = due[sure]
            sure_ones = Read(reading.distributions[sure], reading.confidences[sure])
            run.write(self._rows[present[going]], position, sure_ones)
            leaving[going] = True
