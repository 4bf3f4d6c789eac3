"""Rows that are unlike the database's: how many are found, and how many fresh ones are flagged."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.honesty.builds import rows_of, split
from benchmarks.honesty.pools import TASKS, Pool, pool
from raee.neighbours.index import Index, new_index
from raee.neighbours.lists import nearest_other_texts
from raee.readers.discriminant import scatter_at
from raee.readers.sums import sums_of
from raee.statistics.far import Far, far_of, p_values
from raee.statistics.shift import far_distance
from raee.texts import Texts, copies_of

SIZES = {100: 6, 350: 4, 1_000: 2, 3_000: 1}
LEVELS = (0.05, 0.01, 0.001)

_OTHERS = 500
"""Rows that are asked of each other data set."""


@dataclass(frozen=True)
class Found:
    """What a database of one data set found in rows of its own pool or of another set."""

    task: str
    size: int
    other: str
    """The data set whose rows were asked; `fresh` for held-out ones of the same pool."""
    area: tuple[float, float]
    """AUROC against held-out rows, by the nearest distance alone and by all three distances."""
    flagged: tuple[tuple[float, float], ...]
    """By level, the share of these rows that each of the two flags."""


def plan() -> list[tuple[str, int, int]]:
    """Task, size and seed of every database."""
    return [
        (task, size, seed)
        for size, seeds in SIZES.items()
        for task in TASKS
        for seed in range(seeds)
        if not (task == "cr" and size == 3_000)
    ]


def measure(task: str, size: int, seed: int) -> list[Found]:
    """Ask a database held-out rows, and rows of all other data sets and of long reviews."""
    of = pool(task)
    own, held = split(of, size, seed)
    rows = rows_of(of, own)
    keys = rows.states[0]
    index = new_index(keys.shape[1])
    index.add(keys)
    near = nearest_other_texts(index, keys, 1, rows.hashes, Texts(rows.hashes)).distances[:, 0]
    labels = len(of.names)
    copies = copies_of(rows.hashes, rows.hashes, rows.label, labels)
    scatter = scatter_at(sums_of(rows.states[:1], rows.label, labels), 0)
    far = far_of(scatter, keys, rows.label, copies, near)
    limits = [far_distance(near, 1 - level) for level in LEVELS]
    fresh = _asked(far, index, of, held)
    found = [Found(task, size, "fresh", (0.5, 0.5), _flagged(fresh, limits))]
    for other in (*TASKS, "imdb"):
        if other == task:
            continue
        more = pool(other)
        some = np.random.default_rng(seed).permutation(len(more.label))[:_OTHERS]
        asked = _asked(far, index, more, some)
        found.append(Found(task, size, other, _area(fresh, asked), _flagged(asked, limits)))
    return found


def _asked(far: Far, index: Index, of: Pool, some: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """(rows,) nearest distances and p-values of rows of a pool."""
    states = of.states[0, some]
    nearest = index.search(states, 1).distances[:, 0]
    return nearest, p_values(far, states, nearest)


def _area(fresh: tuple[NDArray, NDArray], other: tuple[NDArray, NDArray]) -> tuple[float, float]:
    is_other = np.repeat([0, 1], [len(fresh[0]), len(other[0])])
    alone, three = (np.concatenate([f, o]) for f, o in zip(fresh, other, strict=True))
    return float(roc_auc_score(is_other, alone)), float(roc_auc_score(is_other, -three))


def _flagged(
    asked: tuple[NDArray, NDArray], limits: list[float]
) -> tuple[tuple[float, float], ...]:
    nearest, p = asked
    return tuple(
        (float((nearest > limit).mean()), float((p <= level).mean()))
        for limit, level in zip(limits, LEVELS, strict=True)
    )


def tables(found: list[Found]) -> str:
    """The tables of BENCHMARKS.md; in each cell the nearest distance alone, then all three."""
    lines = ["### Far rows: fresh rows of the same pool that are flagged\n"]
    lines.append("| rows | " + " | ".join(f"nominal {level:g}" for level in LEVELS) + " |")
    lines.append("|---" * (len(LEVELS) + 1) + "|")
    for size in SIZES:
        own = [f for f in found if (f.size, f.other) == (size, "fresh")]
        cells = [_pair(np.mean([f.flagged[i] for f in own], axis=0), 4) for i in range(len(LEVELS))]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    lines.append("\n### Far rows: rows of other data sets\n")
    lines.append(
        "| rows | other | AUROC, mean | worst difference | flagged at .01 | flagged at .001 |"
    )
    lines.append("|---" * 6 + "|")
    for size in SIZES:
        for name, others in (("other data sets", TASKS), ("long film reviews", ("imdb",))):
            own = [f for f in found if f.size == size and f.other in others]
            areas = np.array([f.area for f in own])
            worst = (areas[:, 1] - areas[:, 0]).min()
            flags = [_pair(np.mean([f.flagged[i] for f in own], axis=0), 3) for i in (1, 2)]
            lines.append(
                f"| {size:,} | {name} | {_pair(areas.mean(axis=0), 3)} | {worst:+.3f} | "
                f"{flags[0]} | {flags[1]} |"
            )
    return "\n".join(lines) + "\n"


def _pair(values: NDArray, digits: int) -> str:
    return f"{values[0]:.{digits}f}, {values[1]:.{digits}f}"
