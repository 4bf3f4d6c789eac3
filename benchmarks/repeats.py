"""What is timed in turns, and how it is shown."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any


def timed(way: Callable[[], Any]) -> float:
    """The seconds that a call takes."""
    begun = time.perf_counter()
    way()
    return time.perf_counter() - begun


def in_turn(
    ways: Mapping[str, Callable[[], Any]], repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """By way, the seconds of each repeat: what else the machine does falls on all of them.

    warm_up: whether each way runs once before its time counts.
    """
    if warm_up:
        for way in ways.values():
            way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(timed(way))
    return found


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """The ratio of each repeat."""
    return [one / other for one, other in zip(over, under, strict=True)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and the least and the most."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    found = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in found)
