"""Reported figures against fresh rows': accuracy, layers, promises, targets, confidences."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.honesty.builds import COSTS, Built, build, rows_of, split
from benchmarks.honesty.pools import TASKS, pool
from raee.config import FixedPolicy, RiskSpec, RunnablePolicy, TunedPolicy
from raee.errors import InputError
from raee.policies.choosing import cross_fitted, try_all, worth
from raee.policies.replay import replay
from raee.policies.tuning import candidates, may_be_picked, study
from raee.statistics.calibration import policy_lines, written

SEEDS = {100: 10, 350: 8, 1_000: 8, 3_000: 4}
"""By size, how many builds each data set has; cr has no 3,000 rows."""

LOSSES = (0.01, 0.02)
PRICES = (0.0, 0.02, 0.03, 0.05, 0.07, 0.1)

_BINS = 10
_DRAWS = 20


@dataclass(frozen=True)
class Build:
    """The figures that one build reports, and those of fresh rows."""

    task: str
    size: int
    reported: float
    """Accuracy of the pick, cross-fitted."""
    flattered: float
    """Accuracy of the pick on the rows that it was picked on."""
    fresh: float
    """Accuracy of the pick on fresh rows."""
    layers: float
    """Mean layers that fresh rows ran."""
    full: float
    """Fresh accuracy of the best exit at full depth."""
    logistic: float
    """Fresh accuracy of logistic regression at full depth."""
    words: float
    """Fresh accuracy of the n-grams alone."""
    majority: float
    promises: tuple[tuple[bool, float, float], ...]
    """By loss: whether a policy is certified, its layers, and the accuracy that fresh rows lost."""
    target: float
    """The wanted accuracy: three quarters of the way from the majority's to full depth's."""
    reached: float | None
    """The accuracy of fresh rows with it; None if it was refused."""
    calibration: float
    """Expected calibration error of written confidences on fresh rows, less a perfect reader's."""
    prices: tuple[tuple[float, float, float], ...]
    """By price: fresh accuracy, layers, and the cross-fitted accuracy."""


def plan() -> list[tuple[str, int, int]]:
    """Task, size and seed of every build, the largest first."""
    return [
        (task, size, seed)
        for size in sorted(SEEDS, reverse=True)
        for task in TASKS
        for seed in range(SEEDS[size])
        if not (task == "cr" and size == 3_000)
    ]


def measure(task: str, size: int, seed: int) -> Build:
    """Build, and judge on held-out rows."""
    of = pool(task)
    own, held = split(of, size, seed)
    built = build(rows_of(of, own), rows_of(of, held), of.names)
    trial, label, entries = built.trial, built.fresh.label, built.trial.entries
    found = study(trial, COSTS, TunedPolicy()).tuning
    picked = found.pick(TunedPolicy())
    done = replay(picked.policy, built.fresh)
    majority = np.bincount(trial.label).argmax()
    full = replay(found.full_depth.policy, built.fresh)
    logistic = replay(FixedPolicy(exit="logistic@6"), built.fresh)
    words = replay(FixedPolicy(exit="words@0"), built.fresh)
    baseline = replay(found.promise.baseline.policy, built.fresh).answers == label
    promises = []
    for loss in LOSSES:
        step = found.promise.certified(RiskSpec(max_loss=loss))
        right = replay(step.policy, built.fresh).answers == label
        promises.append(
            (
                step.policy != found.promise.baseline.policy,
                step.figures.mean_layers,
                float(baseline.mean() - right.mean()),
            )
        )
    low = float((trial.label == majority).mean())
    target = round(0.25 * low + 0.75 * found.full_depth.cross_fitted.accuracy, 2)
    try:
        policy = found.pick(TunedPolicy(accuracy=target)).policy
        reached = float((replay(policy, built.fresh).answers == label).mean())
    except InputError:
        reached = None
    return Build(
        task=task,
        size=size,
        reported=picked.cross_fitted.accuracy,
        flattered=picked.fitted.accuracy,
        fresh=float((done.answers == label).mean()),
        layers=float(done.layers.mean()),
        full=float((full.answers == label).mean()),
        logistic=float((logistic.answers == label).mean()),
        words=float((words.answers == label).mean()),
        majority=float((label == majority).mean()),
        promises=tuple(promises),
        target=target,
        reached=reached,
        calibration=_calibration(built, picked.policy, len(entries.labels)),
        prices=_prices(built, found.full_depth.fitted.seconds_per_row),
    )


def _prices(built: Built, full_seconds: float) -> tuple[tuple[float, float, float], ...]:
    trial, entries = built.trial, built.trial.entries
    pickable = (p for p in candidates(entries) if may_be_picked(p, entries))
    tried = try_all(pickable, trial, COSTS)
    fold = trial.texts.folds(5, 0)
    found = []
    for price in PRICES:
        rule = worth(price, full_seconds)
        done = replay(tried.policies[rule(tried.means())], built.fresh)
        crossed = cross_fitted(tried, rule, fold).answers == trial.label
        found.append(
            (
                float((done.answers == built.fresh.label).mean()),
                float(done.layers.mean()),
                float(crossed.mean()),
            )
        )
    return tuple(found)


def _calibration(built: Built, policy: RunnablePolicy, labels: int) -> float:
    lines = policy_lines(replay(policy, built.trial, COSTS), built.trial)
    done = replay(policy, built.fresh)
    read = built.fresh.tried.confidences[built.fresh.rows, done.exits]
    sure = written(lines, done.exits, read, labels)
    rng = np.random.default_rng(0)
    perfect = np.mean([expected_error(sure, rng.random(len(sure)) < sure) for _ in range(_DRAWS)])
    return expected_error(sure, done.answers == built.fresh.label) - float(perfect)


def expected_error(sure: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over ten bins.  sure: (rows,) confidences; right: (rows,)."""
    bin_of = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gap = np.bincount(bin_of, right, _BINS) - np.bincount(bin_of, sure, _BINS)
    return float(np.abs(gap).sum() / len(sure))


def tables(builds: list[Build]) -> str:
    """The tables of BENCHMARKS.md."""
    sizes = sorted({b.size for b in builds})
    lines = ["### What is reported, and what fresh rows got\n"]
    lines.append(
        "| rows | builds | reported | fresh | error | on the rows it was picked on | layers | "
        "standard deviation of layers | best exit at full depth | logistic regression | "
        "n-grams + logistic regression | majority |"
    )
    lines.append("|---" * 12 + "|")
    for size in sizes:
        own = [b for b in builds if b.size == size]
        spread = np.mean(
            [np.std([b.layers for b in own if b.task == t]) for t in {b.task for b in own}]
        )
        mean = {f: _mean(own, f) for f in ("reported", "fresh", "flattered", "layers", "full")}
        mean |= {f: _mean(own, f) for f in ("logistic", "words", "majority")}
        lines.append(
            f"| {size:,} | {len(own)} | {mean['reported']:.3f} | {mean['fresh']:.3f} | "
            f"{100 * (mean['reported'] - mean['fresh']):+.1f} points | {mean['flattered']:.3f} | "
            f"{mean['layers']:.2f} | {spread:.2f} | {mean['full']:.3f} | {mean['logistic']:.3f} | "
            f"{mean['words']:.3f} | {mean['majority']:.3f} |"
        )
    lines += ["\n### What a price buys\n", "| price | " + " | ".join(f"{s:,} rows" for s in sizes)]
    lines[-1] += " |"
    lines.append("|---" * (len(sizes) + 1) + "|")
    for i, price in enumerate(PRICES):
        cells = []
        for size in sizes:
            own = [b for b in builds if b.size == size]
            accuracy, layers = (
                np.mean([_by_task(own, t, i, j) for t in {b.task for b in own}]) for j in (0, 1)
            )
            cells.append(f"{accuracy:.3f} @ {layers:.2f}")
        lines.append(f"| {price:g} | {' | '.join(cells)} |")
    lines.append("\n### The promise\n")
    lines.append(
        "| rows | loss | certified | layers | lost on fresh rows, mean | beyond the loss |"
    )
    lines.append("|---" * 6 + "|")
    for size in sizes:
        own = [b for b in builds if b.size == size]
        for i, loss in enumerate(LOSSES):
            held = [b.promises[i] for b in own]
            lost = np.array([h[2] for h in held])
            lines.append(
                f"| {size:,} | {loss} | {np.mean([h[0] for h in held]):.0%} | "
                f"{np.mean([h[1] for h in held]):.2f} | {100 * lost.mean():.2f} points | "
                f"{(lost > loss).sum()} of {len(own)} |"
            )
    lines.append("\n### Targets and confidences\n")
    lines.append("| rows | targets refused | met on fresh rows | calibration error beyond chance |")
    lines.append("|---" * 4 + "|")
    for size in sizes:
        own = [b for b in builds if b.size == size]
        met = [b.reached >= b.target for b in own if b.reached is not None]
        lines.append(
            f"| {size:,} | {len(own) - len(met)} | {np.mean(met):.0%} | "
            f"{np.mean([b.calibration for b in own]):.3f} |"
        )
    return "\n".join(lines) + "\n"


def _mean(builds: list[Build], field: str) -> float:
    """The mean over data sets, of which each has the mean of its builds."""
    tasks = {b.task for b in builds}
    return float(
        np.mean([np.mean([getattr(b, field) for b in builds if b.task == t]) for t in tasks])
    )


def _by_task(builds: list[Build], task: str, price: int, which: int) -> float:
    return float(np.mean([b.prices[price][which] for b in builds if b.task == task]))
