"""Prints the tables of what figures are worth, and writes what was measured as JSON."""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.honesty import copies, far, figures, gate, near, promise, pruning
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
    of_gate = [
        (t, k, s) for t in gate.TASKS for k, seeds in gate.SEEDS.items() for s in range(seeds)
    ]
    of_copies = [(*case, seed) for case in copies.CASES for seed in range(copies.SEEDS)]
    calls = {
        "gate": [(gate.measure, arguments) for arguments in of_gate],
        "figures": [(figures.measure, arguments) for arguments in figures.plan()],
        "copies": [(copies.measure, arguments) for arguments in of_copies],
        "near": [(near.measure, (task,)) for task in TASKS],
        "far": [(far.measure, arguments) for arguments in far.plan()],
        "pruning": [(pruning.measure, arguments) for arguments in pruning.plan()],
        "promise": [(promise.measure, ())],
    }
    every = [call for some in calls.values() for call in some]
    with ProcessPoolExecutor(_PROCESSES) as processes:
        results = iter(list(processes.map(_one, every)))
    found = {name: [next(results) for _ in some] for name, some in calls.items()}
    seen = [one for of_task in found["near"] for one in of_task]
    print(figures.tables(found["figures"]))
    print(copies.tables(found["copies"]))
    print(near.tables(seen))
    print(found["promise"][0])
    print(far.tables(found["far"]))
    print(gate.tables(found["gate"]))
    print(pruning.tables(found["pruning"]))
    lists = {n: f for n, f in found.items() if n not in ("near", "promise")} | {"near": seen}
    _RESULTS.write_text(
        json.dumps({n: [asdict(one) for one in some] for n, some in lists.items()}, indent=1)
    )
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
