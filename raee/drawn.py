"""Some of many rows."""

import numpy as np
from numpy.typing import NDArray


def evenly(rows: int, most: int) -> NDArray[np.int64]:
    """Positions of some of so many rows, evenly spread: all if they are no more than `most`."""
    return np.linspace(0, rows - 1, min(rows, most)).astype(np.int64)
