"""What classifying a row takes: a cost table, measured once per backbone and machine.

The seconds of a policy follow from it without running the model, so policies can be compared by
what they cost rather than by their layers alone: a reading is cheap, but it is not free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raee.config import ReaderName
from raee.exits import Entries, Exit
from raee.readers.table import reader


@dataclass(frozen=True)
class Costs:
    """Seconds a row, of the corpus's usual length."""

    encode: float
    """Seconds of tokenising, padding and embedding."""
    layer: float
    """Seconds of one layer."""
    reads: dict[ReaderName, float]
    """By reader, seconds of reading a state: one more depth for a reader that adds up, the search
    for a vote."""
    retriever: float = 0.0
    """Seconds of a pass through the key's own model, if there is one."""
    enter: float = 0.0
    """Seconds of batching a row and embedding its tokens, for all but exits before the walk; 0 in
    tables from before there were such exits, whose `encode` has them."""
    once: dict[ReaderName, list[ReaderName]] = field(default_factory=dict)
    """By reader that adds up, the readers that it asks once on a row's way."""

    def walked(self, layers: NDArray[np.int64]) -> NDArray[np.float64]:
        """(rows,) seconds of rows that run so many layers, (rows,), without what `read` has."""
        return self.encode + self.layer * layers.astype(np.float64)

    def read(self, exit: Exit, above: Mapping[ReaderName, int] | None = None) -> float:
        """Seconds of reading an exit, the embedding of a row's tokens included.

        above: by reader that was asked before, the depth of its deepest exit that was read, from
        which a reader that adds up goes on.
        """
        before = {} if above is None else above
        seconds = self.reads.get(exit.reader, 0.0)
        if exit.of.adds_up:
            seconds *= exit.depth - before.get(exit.reader, -1)
            asked = self.once.get(exit.reader, []) if exit.reader not in before else []
            seconds += sum(self.reads.get(name, 0.0) for name in asked if name not in before)
        elif exit.of.source == "neighbours":
            seconds += self.retriever
        entered = any(not reader(name).before_walk for name in before)
        return seconds + (0.0 if entered or exit.of.before_walk else self.enter)

    def asked(self, positions: Sequence[int], entries: Entries) -> NDArray[np.float64]:
        """(checkpoints,) seconds of the readings up to each checkpoint, as `read` has them.

        positions: of the checkpoints' exits, in order.
        """
        above: dict[ReaderName, int] = {}
        seconds = []
        for position in positions:
            exit = entries.exits[position]
            seconds.append(self.read(exit, above))
            above[exit.reader] = exit.depth
        return np.cumsum(seconds)


LAYERS = Costs(encode=0.0, layer=1.0, reads={})
"""The table if nothing was measured: a row costs the layers it runs."""
