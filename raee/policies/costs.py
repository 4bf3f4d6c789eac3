"""What classifying a row takes: a cost table, measured once per backbone and machine.

The seconds of a policy follow from it without running the model, so policies can be compared by
what they cost rather than by their layers alone: a reading is cheap, but it is not free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raee.config import ReaderName
from raee.exits import Entries, Exit


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

    def walked(self, layers: NDArray[np.int64]) -> NDArray[np.float64]:
        """(rows,) seconds of rows that run so many layers, (rows,), readings left out."""
        return self.encode + self.layer * layers.astype(np.float64)

    def read(self, exit: Exit, above: int = -1) -> float:
        """Seconds of reading an exit.

        above: depth of the deepest exit of the same reader that was read before, from which a
        reader that adds up goes on; -1 if none was.
        """
        seconds = self.reads.get(exit.reader, 0.0)
        if exit.of.adds_up:
            return seconds * (exit.depth - above)
        return seconds + (self.retriever if exit.of.source == "neighbours" else 0.0)

    def asked(self, positions: Sequence[int], entries: Entries) -> NDArray[np.float64]:
        """(checkpoints,) seconds of the readings up to each checkpoint.

        positions: of the checkpoints' exits, in order.
        """
        above: dict[ReaderName, int] = {}
        seconds = []
        for position in positions:
            exit = entries.exits[position]
            seconds.append(self.read(exit, above.get(exit.reader, -1)))
            above[exit.reader] = exit.depth
        return np.cumsum(seconds)


LAYERS = Costs(encode=0.0, layer=1.0, reads={})
"""The table if nothing was measured: a row costs the layers it runs."""
