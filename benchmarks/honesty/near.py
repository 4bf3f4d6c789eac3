"""How often near-copies are seen: if there are none, and if some were put in."""

from dataclasses import dataclass

import numpy as np

from benchmarks.honesty.pools import TASKS, Pool, pool
from raee.neighbours.index import new_index
from raee.neighbours.lists import nearest_other_texts
from raee.neighbours.near_copies import near_copies
from raee.texts import Texts

SHARES = (0.0, 0.05, 0.1, 0.2)
SIZES = {100: 40, 350: 20, 1_000: 10, 3_000: 4}
"""By size, how many draws each data set has."""
DEPTHS = (0, 4)
"""The depths of the key that are tried."""
_NEIGHBOURS = 12


@dataclass(frozen=True)
class Seen:
    """How many of a data set's draws near-copies were seen in."""

    task: str
    size: int
    share: float
    draws: int
    visible: int


def measure(task: str) -> list[Seen]:
    """Draw databases of a data set, with one-word copies of some of their rows, and look."""
    of, found = pool(task), []
    for size, draws in SIZES.items():
        for share in SHARES:
            # Only some rows have copies: a small pool gives no more.
            if size > 0.8 * len(of.label) or share * size > 0.9 * len(of.copied):
                continue
            seen = [
                _visible(of, size, share, depth, np.random.default_rng((seed, size)))
                for depth in DEPTHS
                for seed in range(draws)
            ]
            found.append(Seen(task, size, share, len(seen), sum(seen)))
    return found


def _visible(of: Pool, size: int, share: float, depth: int, rng: np.random.Generator) -> bool:
    copied = rng.permutation(len(of.copied))[: int(share * size)]
    others = np.setdiff1d(np.arange(len(of.label)), of.copied[copied])
    own = np.concatenate([of.copied[copied], rng.permutation(others)[: size - 2 * len(copied)]])
    keys = np.concatenate([of.states[depth, own], of.copies[depth, copied]])
    hashes = np.concatenate([of.hashes[own], of.hashes[of.copied[copied]] + np.uint64(1)])
    label = np.concatenate([of.label[own], of.label[of.copied[copied]]])
    index = new_index(keys.shape[1])
    index.add(keys)
    neighbours = nearest_other_texts(index, keys, _NEIGHBOURS, hashes, Texts(hashes))
    return near_copies(neighbours, label).visible


def tables(found: list[Seen]) -> str:
    """The table of BENCHMARKS.md."""
    lines = ["### Near-copies: draws in which they are seen\n"]
    lines.append("| rows | data sets | " + " | ".join(_title(share) for share in SHARES) + " |")
    lines.append("|---" * (len(SHARES) + 2) + "|")
    for size in SIZES:
        for group in (TASKS_OF_SENTENCES, ("trec",), ("mpqa",), ("cola",)):
            cells = []
            for share in SHARES:
                own = [f for f in found if f.task in group and (f.size, f.share) == (size, share)]
                draws = sum(f.draws for f in own)
                cells.append(f"{sum(f.visible for f in own) / draws:.0%}" if draws else "–")
            lines.append(f"| {size:,} | {', '.join(group)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


TASKS_OF_SENTENCES = tuple(t for t in TASKS if t not in ("trec", "mpqa", "cola"))


def _title(share: float) -> str:
    return f"{share:.0%} copies with a word dropped" if share else "as they are"
