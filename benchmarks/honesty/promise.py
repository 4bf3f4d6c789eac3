"""Coverage of the promise at the boundary: how often a policy that loses just the loss gets it."""

from itertools import product

import numpy as np

from raee.config import CascadePolicy, FixedPolicy, RiskSpec
from raee.policies.objectives import Figures, Promise, Step

BUILDS = 1_000
_ROWS = (1_000, 3_000)
_LOSSES = (0.01, 0.02)
_DIFFERING = (0.0, 0.02, 0.08)
"""Shares of rows that the policy answers differently, beyond those that it loses."""


def measure() -> str:
    """Simulate builds whose cascades are harmless but for the last, which loses just the loss.

    Certifying that one is a false promise.  Of another share of the rows, `differing`, it wins one
    half and loses the other.  Returns the table of BENCHMARKS.md.
    """
    lines = ["### Coverage of the promise at the boundary, simulated\n"]
    lines.append("| rows | loss | rows won and lost beside it | builds | false promises |")
    lines.append("|---" * 5 + "|")
    for rows, loss, differing in product(_ROWS, _LOSSES, _DIFFERING):
        rng = np.random.default_rng(0)
        risk = RiskSpec(max_loss=loss, confidence=0.95)
        false = np.mean([_breaks(rng, rows, risk, differing) for _ in range(BUILDS)])
        lines.append(f"| {rows:,} | {loss} | {differing:.0%} | {BUILDS:,} | {false:.1%} |")
    return "\n".join(lines) + "\n"


def _breaks(rng: np.random.Generator, rows: int, risk: RiskSpec, differing: float) -> bool:
    """Whether a policy is certified that loses just as much as it must not."""
    share = [risk.max_loss + differing / 2, differing / 2, 1 - risk.max_loss - differing]
    lost, gained, _ = rng.multinomial(rows, share)
    counts = [(0, 0), (0, 0), (0, 0), (int(lost), int(gained))]
    steps = [
        Step(
            policy=CascadePolicy(threshold=1 - n / 10) if n else FixedPolicy(exit="pool@6"),
            figures=Figures(accuracy=0.8, mean_layers=6 - n, seconds_per_row=6 - n),
            lost=losses,
            gained=gains,
        )
        for n, (losses, gains) in enumerate(counts)
    ]
    promise = Promise(baseline=steps[0], steps=steps[1:], texts=rows)
    return promise.certified(risk) == steps[-1]
