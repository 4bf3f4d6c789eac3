"""Paired comparison of answers to the same rows.

McNemar's exact test, an interval for the difference, and a t-test for shares.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NOISE_LEVEL = 0.05
"""One-sided level of the test by which one thing must beat another."""

_NO_VARIANCE, _BESIDE_THE_END = 1e-300, 1e-9
"""Instead of 0, and off a difference of 1: there a score would be 0 / 0."""


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

    def difference_interval(self, rows: int, confidence: float) -> tuple[float, float]:
        """Interval of the first one's accuracy less the second one's, on so many rows.

        It holds the differences that a score test does not refuse (Tango, Statistics in Medicine
        17, 1998), and has a width even if the two never differ.
        """
        from scipy.optimize import brentq  # both are slow to import
        from scipy.stats import norm

        apart, only_one = self.wins - self.losses, self.wins + self.losses
        limit = float(norm.ppf((1 + confidence) / 2))

        def score(difference: float) -> float:
            # With the chance of a loss that is likeliest under the difference.
            free = difference * (1 - difference)
            half = (2 * rows - apart) * difference - only_one
            root = np.sqrt(max(half**2 + 8 * rows * self.losses * free, 0.0))
            loss = (root - half) / (4 * rows)
            gap = apart - rows * difference
            return float(gap / np.sqrt(max(rows * (2 * loss + free), _NO_VARIANCE)))

        found, end = apart / rows, 1.0 - _BESIDE_THE_END
        low = -1.0 if score(-end) < limit else brentq(lambda d: score(d) - limit, -end, found)
        high = 1.0 if score(end) > -limit else brentq(lambda d: score(d) + limit, found, end)
        return low, high


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
