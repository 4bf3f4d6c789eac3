"""Copies in a corpus: the figures that are reported with them, and those of fresh rows."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.honesty.builds import COSTS, Rows, build, rows_of, split
from benchmarks.honesty.pools import Pool, pool
from raee.config import RiskSpec, TunedPolicy
from raee.neighbours.near_copies import near_copies
from raee.policies.choosing import try_all
from raee.policies.replay import replay
from raee.policies.tuning import study
from raee.statistics.shift import drift

Kind = Literal["clean", "exact", "one word dropped"]

SHARE = 0.2
CASES: tuple[tuple[str, int, Kind], ...] = tuple(
    (task, 3_000, kind)
    for task in ("sst2", "trec", "mr", "subj", "mpqa")
    for kind in ("clean", "exact", "one word dropped")  # type: ignore[misc]
)
SEEDS = 3
_RISK = RiskSpec(max_loss=0.01)


@dataclass(frozen=True)
class Copied:
    """A build of a corpus with copies."""

    task: str
    kind: Kind
    reported: float
    fresh: float
    layers: float
    layers_reported: float
    certified: bool
    lost: float
    """Accuracy that the promised policy lost against its baseline, on fresh rows."""
    visible: bool
    """Whether near-copies were seen."""
    drifted: bool
    """Whether drift was found in a corpus of clean rows."""


def plan() -> list[tuple[str, int, Kind, int]]:
    """Task, size, kind and seed of every build."""
    return [(*case, seed) for case in CASES for seed in range(SEEDS)]


def measure(task: str, size: int, kind: Kind, seed: int) -> Copied:
    """Build with a fifth of the rows copies of others, and judge on fresh rows."""
    of = pool(task)
    own, held = split(of, size, seed)
    rows = rows_of(of, own)
    if kind != "clean":
        # A copy replaces another row.
        wanted = int(SHARE * size)
        rng = np.random.default_rng(seed)
        copies = _exact(rows, wanted, rng) if kind == "exact" else _dropped(of, own, wanted)
        rows = rows[: size - len(copies)] + copies
    built = build(rows, rows_of(of, held), of.names)
    barred = "near-copies" if near_copies(built.trial.neighbours, rows.label).visible else None
    found = study(built.trial, COSTS, TunedPolicy(), barred=barred).tuning
    picked = found.pick(TunedPolicy())
    done = replay(picked.policy, built.fresh)
    label = built.fresh.label
    step = found.promise.certified(_RISK)
    right = try_all([found.promise.baseline.policy, step.policy], built.fresh, COSTS).right
    moved = drift(built.fresh.neighbours.distances[:, 0], built.trial.neighbours.distances[:, 0])
    return Copied(
        task=task,
        kind=kind,
        reported=picked.cross_fitted.accuracy,
        fresh=float((done.answers == label).mean()),
        layers=float(done.layers.mean()),
        layers_reported=picked.cross_fitted.mean_layers,
        certified=step.policy != found.promise.baseline.policy,
        lost=float(right[0].mean() - right[1].mean()),
        visible=barred is not None,
        drifted=moved is not None and moved.statistic >= 0.05 and moved.p_value < 0.001,
    )


def _exact(rows: Rows, wanted: int, rng: np.random.Generator) -> Rows:
    """Copies of rows that stay."""
    return rows[rng.permutation(len(rows) - wanted)[:wanted]]


def _dropped(of: Pool, own: np.ndarray, wanted: int) -> Rows:
    """Copies of rows that stay, with one word dropped."""
    stay = own[: len(own) - wanted]
    there = np.flatnonzero(np.isin(of.copied, stay))[:wanted]
    source = rows_of(of, of.copied[there])
    hashes = source.hashes + np.uint64(1)  # another text
    ids = of.copied_ids[there]
    return replace(source, hashes=hashes, states=of.copies[:, there], token_ids=ids)


def tables(found: list[Copied]) -> str:
    """The table of BENCHMARKS.md."""
    lines = ["### Copies in the corpus\n"]
    lines.append(
        "| data set, 3,000 rows | of them copies | reported | fresh | layers reported | fresh | "
        "loss of .01 certified | lost on fresh rows | near-copies seen | drift found |"
    )
    lines.append("|---" * 10 + "|")
    for task, _, kind in CASES:
        own = [f for f in found if (f.task, f.kind) == (task, kind)]
        mean = {
            f: float(np.mean([getattr(c, f) for c in own]))
            for f in ("reported", "fresh", "layers", "layers_reported", "lost")
        }
        lines.append(
            f"| {task} | {kind} | {mean['reported']:.3f} | {mean['fresh']:.3f} | "
            f"{mean['layers_reported']:.2f} | {mean['layers']:.2f} | "
            f"{sum(c.certified for c in own)} of {len(own)} | {100 * mean['lost']:.2f} points | "
            f"{sum(c.visible for c in own)} of {len(own)} | "
            f"{sum(c.drifted for c in own)} of {len(own)} |"
        )
    return "\n".join(lines) + "\n"
