"""What was measured, in Markdown."""

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.table import ALONE, FULL_DEPTH, INT8, OURS, PEERS
from benchmarks.quality import LEVEL
from benchmarks.repeats import spread, table
from raee.statistics.paired import Paired, paired

Found = dict[str, Any]
"""The figures of a data set, as `benchmarks.peers.__main__.measure` writes them."""


class Against(NamedTuple):
    """How raee compares with a peer on a data set's test rows."""

    points: float
    """Accuracy more than the peer's, in points."""
    rows: Paired
    p_value: float
    """Of McNemar's exact test, two-sided."""

    @property
    def is_told(self) -> bool:
        """Whether the difference is beyond noise."""
        return self.p_value < LEVEL


def right_of(found: Found, name: str) -> NDArray[np.bool_]:
    """(rows,) on which a peer is right."""
    return np.array(found["peers"][name]["answers"]) == np.array(found["labels"])


def against(found: Found, peer: str, ours: str = OURS) -> Against:
    """Compare raee with a peer, row by row."""
    mine, theirs = right_of(found, ours), right_of(found, peer)
    rows = paired(mine, theirs)
    return Against(100 * float(mine.mean() - theirs.mean()), rows, rows.p_value())


def others(found: Found) -> list[str]:
    """The peers that are not raee."""
    return [name for name in found["peers"] if name not in (OURS, ALONE)]


def best_peer(found: Found) -> str:
    """The peer with the best accuracy on the test rows; of equal ones the first."""
    return max(others(found), key=lambda name: right_of(found, name).mean())


def rates(found: Found, name: str) -> list[float]:
    """rows/s of each repeat."""
    return [len(found["labels"]) / seconds for seconds in found["peers"][name]["seconds"]]


def times(found: Found, peer: str) -> float:
    """How many times a peer's rows/s raee has: the median of repeats, in which they took turns."""
    pairs = zip(rates(found, OURS), rates(found, peer), strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def tables_of(all_found: Sequence[Found]) -> str:
    """All tables, with machine and versions before them."""
    dates = sorted({found["date"] for found in all_found})
    versions = {
        f"{package} {version}{'' if PEERS[name].own else ' (peers)'}"
        for found in all_found
        for name, peer in found["peers"].items()
        for package, version in peer["versions"].items()
    }
    parts = [
        f"{all_found[0]['machine']}, {' to '.join(dates)}; {', '.join(sorted(versions))}.",
        _accuracies(all_found),
        _against_the_best(all_found),
        _speeds(all_found),
        _figures(all_found),
    ]
    return "\n\n".join(parts)


def _accuracies(all_found: Sequence[Found]) -> str:
    """A line a data set, the best in bold; with the p-value of each peer against raee."""
    names = [*all_found[0]["peers"]]
    lines = []
    for found in all_found:
        accuracy = {name: float(right_of(found, name).mean()) for name in names}
        top = max(accuracy.values())
        cells = []
        for name in names:
            shown = f"{accuracy[name]:.3f}"
            p = "" if name in (OURS, ALONE) else f" ({against(found, name).p_value:.2g})"
            cells.append((f"**{shown}**" if accuracy[name] == top else shown) + p)
        lines.append([found["task"], *cells])
    means = [fmean(right_of(found, name).mean() for found in all_found) for name in names]
    lines.append(["mean", *(f"{mean:.3f}" for mean in means)])
    return table(["accuracy (p against raee)", *(PEERS[name].title for name in names)], lines)


def _against_the_best(all_found: Sequence[Found]) -> str:
    """Compare raee with the best peer of each data set."""
    lines = []
    for found in all_found:
        name = best_peer(found)
        ours, alone = against(found, name), against(found, name, ALONE)
        winner = "neither"
        if ours.is_told:
            winner = PEERS[OURS if ours.points > 0 else name].title
        one = [f"{ours.points:+.1f}", str(ours.rows.wins), str(ours.rows.losses)]
        cells = [*one, f"{ours.p_value:.2g}", winner, f"{alone.points:+.1f}"]
        lines.append([found["task"], PEERS[name].title, *cells, f"{alone.p_value:.2g}"])
    heads = ["", "best peer", "points more", "rows only raee gets right", "only the peer", "p"]
    heads += ["better beyond noise", "points more, `balance: database`", "p"]
    return table(heads, lines)


def _speeds(all_found: Sequence[Found]) -> str:
    """Median rows/s of each, with the least and the most, and how many times them raee has."""
    names = [*all_found[0]["peers"]]

    def cell(found: Found, name: str) -> str:
        return spread(rates(found, name), ",.0f")

    lines = [[found["task"], *(cell(found, name) for name in names)] for found in all_found]
    means = [fmean(times(found, name) for found in all_found) for name in names]
    lines.append(["raee, times it (mean)", *(f"{mean:.2f}" for mean in means)])
    return table(["rows/s (least to most)", *(PEERS[name].title for name in names)], lines)


def _figures(all_found: Sequence[Found]) -> str:
    """The figures that have targets."""

    def speed_line(peer: str, target: float) -> list[str]:
        found = [times(one, peer) for one in all_found]
        compared = [against(one, peer) for one in all_found]
        worse = sum(one.is_told and one.points < 0 for one in compared)
        points = fmean(one.points for one in compared)
        figure = (
            f"{fmean(found):.1f} ({min(found):.1f} to {max(found):.1f}), accuracy {points:+.1f} "
            f"points, significantly lower on {worse}"
        )
        return [f"rows/s of raee / {PEERS[peer].title}", figure, f">= {target:g}"]

    best = [against(one, best_peer(one)) for one in all_found]
    worse = sum(one.is_told and one.points < 0 for one in best)
    better = sum(one.is_told and one.points > 0 for one in best)
    verdict = (
        f"significantly (p < {LEVEL}) worse on {worse}, better on {better} of {len(best)}; "
        f"{fmean(one.points for one in best):+.1f} points on average"
    )
    lines = [
        speed_line(FULL_DEPTH, 12),
        speed_line(INT8, 3),
        ["accuracy of raee against the best peer of each data set", verdict, "worse on 0; +1.0"],
    ]
    return table(["figure", "found", "target"], lines)
