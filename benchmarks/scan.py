"""The look over a corpus before any work, beside a bare query and Python's loops.

`make benchmark-scan` writes 3,000,000 short rows as Parquet, CSV and JSON lines and has each looked
over in a process of its own, which reports its CPU seconds and its memory: by raee, labelled and
not; by a polars query of the same questions (labels, missing values, duplicate ids), which keeps
nothing to draw a sample with, names no reject and works in one go; and by a loop over rows, on a
tenth of them.
"""

import csv
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from storage.corpus import CorpusSpec
from storage.scan import count, scan

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ROWS, FEW = 3_000_000, 300_000
FORMATS = ("parquet", "csv", "jsonl")
COMMAND = [sys.executable, "-m", "benchmarks.scan"]


def main() -> None:
    """Write the corpora, have them looked over, and print a table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=RESULTS) as folder:
        for rows in (FEW, ROWS):  # in another process, too: a child is told its parent's memory
            subprocess.run([*COMMAND, "write", f"{folder}/{rows}"], check=True, cwd=ROOT)
        results = {
            (form, way): [in_own_process(way, f"{folder}/{rows}.{form}") for rows in (FEW, ROWS)]
            for form in FORMATS
            for way in WAYS
        }
    (RESULTS / "scan.json").write_text(
        json.dumps([{"format": f, "way": w, "runs": r} for (f, w), r in results.items()], indent=1)
    )
    print("| | labelled | times the loop | bytes a row | not labelled | polars query | loop |")
    print("|---" * 7 + "|")
    for form in FORMATS:
        of = {way: results[form, way] for way in WAYS}
        ours, loop = speed(of["labelled"]), speed(of["loop"][:1])
        print(
            f"| {form} | {ours:,.0f} | {ours / loop:.1f} | {bytes_a_row(of['labelled']):.0f} "
            f"| {speed(of['counted']):,.0f} | {speed(of['query']):,.0f} | {loop:,.0f} |"
        )


def write(path: str) -> int:
    """Write a corpus of short messages in three labels, in all formats; returns its rows."""
    rows = int(Path(path).name)
    number = pl.int_range(rows, eager=True)
    table = pl.DataFrame(
        {
            "id": pl.select(pl.format("row-{}", number)).to_series(),
            "text": pl.select(pl.format("a short message about order {}", number)).to_series(),
            "label": (number % 3).replace_strict({0: "billing", 1: "delivery", 2: "product"}),
        }
    )
    table.write_parquet(f"{path}.parquet")
    table.write_csv(f"{path}.csv")
    table.write_ndjson(f"{path}.jsonl")
    return rows


def speed(runs: list[dict[str, Any]]) -> float:
    """Rows a CPU second in the largest run."""
    return runs[-1]["rows"] / runs[-1]["cpu_seconds"]


def bytes_a_row(runs: list[dict[str, Any]]) -> float:
    """Bytes of memory that one row more takes."""
    few, many = runs
    return (many["peak_bytes"] - few["peak_bytes"]) / (many["rows"] - few["rows"])


def in_own_process(way: str, path: str) -> dict[str, Any]:
    """The figures that `measure` has."""
    done = subprocess.run([*COMMAND, way, path], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def measure(way: str, path: str) -> dict[str, Any]:
    """The rows, CPU seconds and peak memory of looking over a corpus in one way."""
    if way == "loop" and not path.endswith(f"/{FEW}.{path.rpartition('.')[2]}"):
        return {}
    begun = time.process_time()
    rows = write(path) if way == "write" else WAYS[way](path)
    return {
        "rows": rows,
        "cpu_seconds": time.process_time() - begun,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def labelled(path: str) -> int:
    """Look over a corpus as a build does; returns its rows."""
    return scan(CorpusSpec(uri=path, id="id")).rows


def counted(path: str) -> int:
    """Look over a corpus as a classification does; returns its rows."""
    return count(CorpusSpec(uri=path, id="id")).rows


def query(path: str) -> int:
    """Ask polars the same questions; returns the rows."""
    read: Callable[[str], pl.LazyFrame] = {
        ".parquet": pl.scan_parquet,
        ".csv": pl.scan_csv,
        ".jsonl": pl.scan_ndjson,
    }[Path(path).suffix]
    frame = read(path)
    found, labels = pl.collect_all(
        [
            frame.select(
                rows=pl.len(),
                missing=pl.col("text").is_null().sum(),
                blank=(pl.col("text").str.strip_chars() == "").sum(),
                ids=pl.col("id").n_unique(),
                characters=pl.col("text").str.len_chars().sum(),
            ),
            frame.group_by("label").len(),
        ]
    )
    assert labels["len"].sum() == found["ids"].item()
    return int(found["rows"].item())


def loop(path: str) -> int:
    """Answer the same questions a row at a time; returns the rows."""
    labels: Counter[str] = Counter()
    content, ids, numbers, characters = hashlib.sha256(), set(), [], 0
    for row in _rows(path):
        name, text, label = row["id"], row["text"], str(row["label"]).strip()
        content.update(json.dumps([name, text, label]).encode())
        if not isinstance(text, str) or not text or text.isspace() or not label or not name:
            continue
        labels[label] += 1
        ids.add(hashlib.blake2b(str(name).encode(), digest_size=16).digest())
        numbers.append(hashlib.sha256(text.encode()).digest()[:8])
        characters += len(text)
    assert len(ids) == len(numbers)
    return sum(labels.values())


def _rows(path: str) -> Iterator[dict[str, Any]]:
    if path.endswith(".parquet"):
        for batch in pq.ParquetFile(path).iter_batches(1_000):
            yield from batch.to_pylist()
        return
    with Path(path).open(newline="") as file:
        yield from csv.DictReader(file) if path.endswith(".csv") else map(json.loads, file)


WAYS: dict[str, Callable[[str], int]] = {
    "labelled": labelled,
    "counted": counted,
    "query": query,
    "loop": loop,
}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        main()
