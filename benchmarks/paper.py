"""The paper's figures of a model beside ours, on its data sets, for whoever has the weights.

`make benchmark-paper MODEL=roberta-large` builds a database of each data set's train split, as
examples/jobs/MODEL/TASK.yaml says, evaluates it on the split that the paper tests on, and prints a
table in Markdown.  TASKS="sst2 cola" names some of the data sets.  Results that are there are not
made again: remove benchmarks/results to start anew.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and TASK/test.parquet; sst2/dev.parquet.
RAEE_MODEL: the folder of the weights; without it they come from the hub.
RAEE_STORE: where databases lie; benchmarks/results/store without it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from flows.cli.app import app, run
from flows.orchestrator.server import orchestrator

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WEIGHTS = {
    "roberta-large": "FacebookAI/roberta-large",
    "t5-large": "google-t5/t5-large",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "gemma-7b": "google/gemma-7b",
}
"""Hub names, by the folders of examples/jobs."""
TASKS = ("sst2", "sst5", "mr", "cr", "mpqa", "subj", "trec", "cola")
SPLITS = {"sst2": "dev"}
"""The split that the paper tests on, if it is not `test`: for sst2 it is GLUE's."""
METRICS = {"cola": "matthews"}
"""What the paper reports, if it is not the accuracy."""
PAPER = {
    "roberta-large": {
        "full depth": (83.60, 34.98, 80.80, 79.55, 67.60, 51.45, 32.40, 2.03),
        "RAEE": (84.63, 33.57, 81.55, 68.05, 78.55, 84.05, 62.40, 14.48),
    }
}
"""The paper's own figures (arXiv 2405.15198), by model and data set; other models' are not here."""
OURS = ("full", "raee", "tuned")


def main(model: str = "", *tasks: str) -> None:
    """Build and evaluate what is missing, and print the table.  tasks: all, if none is named."""
    tasks = tasks or TASKS
    if model not in WEIGHTS or not set(tasks) <= set(TASKS):
        sys.exit(
            f"paper: make benchmark-paper MODEL=.., one of {', '.join(WEIGHTS)}; for some data "
            f"sets only TASKS='..', out of {', '.join(TASKS)}"
        )
    if "RAEE_DATA" not in os.environ:
        sys.exit("paper: set RAEE_DATA to the folder of the data sets")
    os.environ.setdefault("RAEE_MODEL", WEIGHTS[model])
    os.environ.setdefault("RAEE_STORE", str(RESULTS / "store"))
    RESULTS.mkdir(parents=True, exist_ok=True)
    missing = [task for task in tasks if not figures_of(model, task).exists()]
    if missing:
        with orchestrator() as wait:  # one server for all builds
            wait()
            for task in missing:
                measure(model, task)
    print(table_of(model, tasks))


def measure(model: str, task: str) -> None:
    """Build a data set's database and write the figures of its evaluation."""
    job = str(ROOT / "examples" / "jobs" / model / f"{task}.yaml")
    split = f"{os.environ['RAEE_DATA']}/{task}/{SPLITS.get(task, 'test')}.parquet"
    figures = str(figures_of(model, task))
    for command in (["build", job], ["evaluate", job, "--input", split, "--json", figures]):
        # In this process, which loads the weights once.
        if code := run(app, command):
            sys.exit(code)


def figures_of(model: str, task: str) -> Path:
    """The file of an evaluation's figures."""
    return RESULTS / f"{model}-{task}.json"


def table_of(model: str, tasks: tuple[str, ...]) -> str:
    """The paper's rows, if they are known, and ours, in Markdown."""
    heads = [f"{task} (Matthews)" if task in METRICS else task for task in tasks]
    lines = [f"| {model} | {' | '.join(heads)} |", "|---" * (len(tasks) + 1) + "|"]
    for name, figures in PAPER.get(model, {}).items():
        cells = [f"{figures[TASKS.index(task)]:.2f}" for task in tasks]
        lines.append(f"| the paper's {name} | {' | '.join(cells)} |")
    found = [json.loads(figures_of(model, task).read_text("utf-8"))["policies"] for task in tasks]
    for policy in OURS:
        measured = zip(tasks, found, strict=True)
        cells = [cell(task, policies[policy]) for task, policies in measured]
        lines.append(f"| `{policy}` | {' | '.join(cells)} |")
    lines.append("\nA cell of ours has the figure, in percent, @ mean layers run.")
    return "\n".join(lines)


def cell(task: str, figures: dict[str, Any]) -> str:
    """What the paper reports of a data set, in percent, and the mean layers."""
    return f"{100 * figures[METRICS.get(task, 'accuracy')]:.2f} @ {figures['mean_layers']:.2f}"


if __name__ == "__main__":
    main(*sys.argv[1:])
