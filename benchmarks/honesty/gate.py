"""The promotion gate night after night: streams of new rows, half of them mislabelled or none."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.honesty.builds import COSTS, Built, Rows, build, rows_of, split
from benchmarks.honesty.pools import pool
from raee.config import TunedPolicy
from raee.policies.replay import replay
from raee.policies.tuning import study
from raee.statistics.paired import worse_p_value
from tasks.build.gate import LEVEL

TASKS = ("sst2", "trec")
NIGHTS = {"clean": 30, "half mislabelled": 15}
SEEDS = {"clean": 6, "half mislabelled": 6}

_ROWS = 1_000
_NEW = 30
"""Rows that come every night: three in a hundred of the first version's."""


@dataclass(frozen=True)
class Stream:
    """The decisions of a gate on a stream of nights."""

    task: str
    kind: str
    stopped: int | None
    """The first night whose version was refused; None if none was."""
    by_pinned: bool
    """Whether the pinned version refused it, and production would not have."""
    lost: float
    """Fresh accuracy of production at the end minus that of the first version."""
    without: float
    """The same if the gate had refused nothing, and the last night's version were promoted."""


@dataclass(frozen=True)
class _Version:
    answers: NDArray[np.uint16]
    """(rows, depths) the probes' answers for its own rows, each without its text."""
    fresh: float
    """Accuracy of its policy on fresh rows."""


def plan() -> list[tuple[str, str, int]]:
    """Task, kind and seed of every stream."""
    return [(t, k, s) for t in TASKS for k, seeds in SEEDS.items() for s in range(seeds)]


def measure(task: str, kind: str, seed: int) -> Stream:
    """Run a stream through the gate, up to the first refusal."""
    of = pool(task)
    own, held = split(of, _ROWS + _NEW * NIGHTS[kind], seed)
    rows, fresh = rows_of(of, own), rows_of(of, held)
    if kind != "clean":
        rows = _mislabelled(rows, len(of.names), seed)
    first = production = _version(rows[:_ROWS], fresh, of.names)
    before = _ROWS
    for night in range(1, NIGHTS[kind] + 1):
        size = _ROWS + night * _NEW
        new = _version(rows[:size], fresh, of.names)
        label = rows.label
        against_production = _p_value(new, production, label, before)
        against_pinned = _p_value(new, first, label, _ROWS)
        by_production = against_production < LEVEL
        if by_production or against_pinned < LEVEL:
            lost = production.fresh - first.fresh
            return Stream(task, kind, night, not by_production, lost, new.fresh - first.fresh)
        production, before = new, size
    lost = production.fresh - first.fresh
    return Stream(task, kind, None, False, lost, lost)


def _p_value(new: _Version, old: _Version, label: NDArray[np.uint16], common: int) -> float:
    right, before = (
        (version.answers[:common] == label[:common, None]).mean(axis=1) for version in (new, old)
    )
    return worse_p_value(right, before)


def _version(rows: Rows, fresh: Rows, names: NDArray[np.str_]) -> _Version:
    built: Built = build(rows, fresh, names)
    entries = built.trial.entries
    policy = study(built.trial, COSTS, TunedPolicy()).picked.policy
    right = replay(policy, built.fresh).answers == fresh.label
    return _Version(entries.answers[:, entries.positions("probe")], float(right.mean()))


def _mislabelled(rows: Rows, labels: int, seed: int) -> Rows:
    """The rows, with another label on every second new one."""
    rng, label = np.random.default_rng(seed), rows.label.copy()
    wrong = np.arange(_ROWS, len(label), 2)
    label[wrong] = (label[wrong] + rng.integers(1, labels, len(wrong))) % labels
    return replace(rows, label=label)


def tables(found: list[Stream]) -> str:
    """The table of BENCHMARKS.md."""
    lines = ["### The gate, night after night\n"]
    lines.append(
        "| data set | stream | nights | streams | refused | by the pinned version alone | night, "
        "median and last | production lost, mean and most |"
    )
    lines.append("|---" * 8 + "|")
    for task in TASKS:
        for kind, nights in NIGHTS.items():
            own = [f for f in found if (f.task, f.kind) == (task, kind)]
            stopped = [f.stopped for f in own if f.stopped is not None]
            lost = [-100 * f.lost for f in own]
            when = f"{np.median(stopped):.0f}, {max(stopped)}" if stopped else "–"
            lines.append(
                f"| {task} | {kind} | {nights} | {len(own)} | {len(stopped)} | "
                f"{sum(f.by_pinned for f in own)} | {when} | "
                f"{np.mean(lost):.1f}, {max(lost):.1f} points |"
            )
    return "\n".join(lines) + "\n"
