"""Paired comparison of two right-or-wrong answers to the same rows: McNemar's exact test."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NOISE_LEVEL = 0.05
"""One-sided level of the test by which one thing must beat another."""


@dataclass(frozen=True)
class Paired:
    """Rows on which just one of two is right."""

    wins: int
    """Those that the first is right on."""
    losses: int

    def p_value(self, alternative: Literal["two-sided", "greater", "less"] = "two-sided") -> float:
        """Of "they are equally good", against the first being another, better, or worse."""
        from scipy.stats import binomtest  # slow to import

        rows = self.wins + self.losses
        return float(binomtest(self.wins, rows, alternative=alternative).pvalue) if rows else 1.0


def paired(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Paired:
    """Compare right answers (rows,) of two on the same rows."""
    return Paired(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))


def better_beyond_noise(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], level: float = NOISE_LEVEL
) -> bool:
    """Whether right answers `ours` (rows,) beat `theirs` on the same rows by more than chance."""
    return paired(ours, theirs).p_value("greater") < level
