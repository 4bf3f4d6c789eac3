"""What becomes of rows unlike a database's: which they are under a policy, and where they leave."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raee.config import FarSpec, KeySpec, RunnablePolicy
from raee.exits import Entries
from raee.policies.table import Plan, exits_used, neighbours_planned_on
from raee.reading import Database
from raee.statistics.shift import far_distance


@dataclass(frozen=True)
class FarRows:
    """Which rows are far, and where they leave.

    A row is looked at when it passes the first key; it never runs a layer to find out.
    """

    limit: float
    """P-value down to which a row is far; by distance, the squared L2 distance beyond which."""
    by_distance: bool
    """Whether the nearest distance alone says it, as before format 4."""
    exit: int | None
    """Position of the exit at which far rows leave; None: they get no answer."""

    def among(self, nearest: NDArray[np.float32], usual: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(rows,) which are far.

        nearest: (rows,) squared L2 distances to the nearest row by the first key; usual: (rows,)
        p-values of "it is drawn as the database's rows were".
        """
        return nearest > self.limit if self.by_distance else usual <= self.limit

    def stay(self, plan: Plan, entries: Entries) -> NDArray[np.bool_]:
        """(rows,) far rows that leave where they would anyway: at full depth, as planned.

        plan: (rows,) positions of their exits; negative if no plan says one.
        """
        if self.exit is None:
            return np.zeros(len(plan), dtype=bool)
        return (plan >= 0) & (entries.depths[plan] == entries.depths[entries.full])


def asks_neighbours(database: Database, spec: RunnablePolicy) -> bool:
    """Whether a policy's rows ask their neighbours by the first key, for votes or a plan."""
    entries = database.entries
    votes = {*exits_used(spec, entries)} & {*entries.votes}
    return (
        any(entries.exits[i].depth == database.key.depth for i in votes)
        or neighbours_planned_on(spec) > 0
    )


def deepest_run(entries: Entries, key: KeySpec, spec: RunnablePolicy, far: FarSpec | None) -> int:
    """The most layers that a row may run under a policy: what lies above them is never needed.

    Raises InputError if the database lacks an exit that the policy needs.
    """
    used = exits_used(spec, entries)
    deepest = max((int(entries.depths[i]) for i in used if not entries.before_walk[i]), default=0)
    if neighbours_planned_on(spec):
        deepest = max(deepest, key.depth)
    # Far rows are among those that come to the key, and may leave at full depth.
    if far is not None and far.then == "full" and deepest >= key.depth:
        return entries.exits[entries.full].depth
    return deepest


def far_rows(database: Database, spec: RunnablePolicy, far: FarSpec | None) -> FarRows | None:
    """What becomes of far rows under a policy; None if nobody looks at them."""
    # With an encoder of its own, a key costs a pass: too much for distances alone.
    looks = database.key.of_backbone or asks_neighbours(database, spec)
    if far is None or database.nearest is None or not looks:
        return None
    by_distance, entries = database.far is None, database.entries
    limit = far_distance(database.nearest, far.quantile) if by_distance else 1 - far.quantile
    # Not an average over depths: every row would be read at all of them for the few.
    full = [i for i in entries.at_full_depth if not entries.exits[i].of.adds_up]
    return FarRows(limit, by_distance, entries.best(full) if far.then == "full" else None)
