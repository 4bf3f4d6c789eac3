"""Prints the tables of what figures are worth, and writes the measurements as JSON."""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.honesty import copies, far, figures, gate, near, promise, pruning, shares
from benchmarks.honesty.pools import TASKS, read_pools

_RESULTS = Path(__file__).parents[1] / "results" / "honesty.json"
_PROCESSES = 2


def _one(call: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    """Run one measurement on one thread: as many run beside each other as there are cores."""
    measure, arguments = call
    with threadpool_limits(1):
        return measure(*arguments)


def main() -> None:
    """Measure all, side by side, and print."""
    read_pools()
    begun = time.monotonic()
    calls = {
        "gate": [(gate.measure, arguments) for arguments in gate.plan()],
        "figures": [(figures.measure, arguments) for arguments in figures.plan()],
        "copies": [(copies.measure, arguments) for arguments in copies.plan()],
        "near": [(near.measure, (task,)) for task in TASKS],
        "far": [(far.measure, arguments) for arguments in far.plan()],
        "pruning": [(pruning.measure, arguments) for arguments in pruning.plan()],
        "shares": [(shares.measure, arguments) for arguments in shares.plan()],
        "promise": [(promise.measure, ())],
    }
    every = [call for some in calls.values() for call in some]
    with ProcessPoolExecutor(_PROCESSES) as processes:
        results = iter(list(processes.map(_one, every)))
    found = {name: [next(results) for _ in some] for name, some in calls.items()}
    for name in ("near", "far", "shares"):
        found[name] = [one for many in found[name] for one in many]
    print(figures.tables(found["figures"]))
    print(copies.tables(found["copies"]))
    print(near.tables(found["near"]))
    print(found["promise"][0])
    print(far.tables(found["far"]))
    print(gate.tables(found["gate"]))
    print(pruning.tables(found["pruning"]))
    print(shares.tables(found["shares"]))
    del found["promise"]
    lists = {name: [asdict(one) for one in some] for name, some in found.items()}
    _RESULTS.write_text(json.dumps(lists, indent=1))
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
