"""Paired comparison of answers to the same rows: McNemar's exact test, and a t-test for shares."""

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
    """Rows that only the first is right on."""
    losses: int

    def p_value(self, alternative: Literal["two-sided", "greater", "less"] = "two-sided") -> float:
        """P-value of "they are equally good", against the first being another, better, or worse."""
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


def worse_p_value(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """P-value of "ours are no worse than theirs", against ours being worse, on the same rows.

    Both (rows,), from 0 to 1: the share of some readers that are right on a row.  The test is a
    paired t-test, or McNemar's exact test if rows are right or wrong and nothing between.
    """
    from scipy.stats import ttest_1samp  # slow to import

    difference = ours - theirs
    if np.isin(difference, (-1.0, 0.0, 1.0)).all():
        return Paired(int((difference > 0).sum()), int((difference < 0).sum())).p_value("less")
    if len(difference) < 2:
        return 1.0
    return float(ttest_1samp(difference, 0.0, alternative="less").pvalue)
