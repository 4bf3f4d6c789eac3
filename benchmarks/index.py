"""Build time, memory, recall and speed of the index that is chosen by size.

`make benchmark-index` builds one for 100,000, 1,000,000 and 10,000,000 keys in overlapping random
clusters, 384 wide, that come in chunks, as a build's shards do; sizes named as arguments replace
these.  Each size runs in a process of its own, for a peak memory of its own.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.config import PAPER_NEIGHBOURS
from raee.neighbours.choice import choose_index, recall_rows, training_rows
from raee.neighbours.index import open_index
from raee.neighbours.training import exact_neighbours, trained_index, tune_index

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SIZES = (100_000, 1_000_000, 10_000_000)
WIDTH, LATENT, CLUSTERS, CHUNK = 384, 48, 10_000, 50_000
SPREAD = 0.6
"""The spread of a cluster as a share of that of the centres: clusters overlap, as texts' do."""


def main() -> None:
    """Build for each size and print a table."""
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    results = [in_own_process(size) for size in sizes]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "index.json").write_text(json.dumps(results, indent=1))
    print("| rows | index | searched | build s | peak memory | file | recall@12 | ms a query |")
    print("|---|---|---|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r['rows']:,} | {r['spec']} | {r['searched'] or 'all'} | {r['build_seconds']:.0f} "
            f"| {r['peak_bytes'] / 1e9:.2f} GB | {r['file_bytes'] / 1e9:.2f} GB "
            f"| {'exact' if r['exact'] else format(r['recall'], '.3f')} "
            f"| {r['query_milliseconds']:.2f} |"
        )


def in_own_process(rows: int) -> dict[str, Any]:
    """The figures that `measure` has for a number of keys."""
    command = [sys.executable, __file__, "--measure", str(rows)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def measure(rows: int) -> dict[str, Any]:
    """The figures of building, tuning, writing and searching an index of so many keys."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=RESULTS) as folder:
        path = Path(folder) / "keys.faiss"
        result = build(rows, path)
        index = open_index(path)
        own = np.arange(1_000)
        queries = chunk(0)[own]
        index.search(queries, PAPER_NEIGHBOURS, exclude=own)  # reads what is mapped
        begun = time.perf_counter()
        index.search(queries, PAPER_NEIGHBOURS, exclude=own)
        seconds = time.perf_counter() - begun
        return result | {
            "file_bytes": path.stat().st_size,
            "query_milliseconds": seconds / len(own) * 1000,
        }


def build(rows: int, path: Path) -> dict[str, Any]:
    """Write the index; returns its record, and the seconds of training, adding and writing."""
    spec = choose_index(rows, WIDTH)
    sample = keys_of(training_rows(spec, rows, WIDTH), rows)
    begun = time.perf_counter()
    index = trained_index(spec, WIDTH, sample)
    seconds = time.perf_counter() - begun
    log(f"{spec} trained on {len(sample):,} keys")
    del sample

    def adding() -> Iterator[NDArray[np.float32]]:
        nonlocal seconds
        for keys in chunks(rows):
            begun = time.perf_counter()
            index.add(keys)
            seconds += time.perf_counter() - begun
            log(f"{len(index):,} of {rows:,} keys")
            yield keys

    asked = recall_rows(spec, rows)
    queries = keys_of(asked, rows)
    exact = exact_neighbours(queries, adding(), exclude=asked)
    record = tune_index(index, spec, queries, exact)
    begun = time.perf_counter()
    with path.open("wb") as file:
        index.write(file.write)
    return record.model_dump() | {
        "build_seconds": seconds + time.perf_counter() - begun,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def chunk(number: int) -> NDArray[np.float32]:
    """(CHUNK, WIDTH) the keys of a chunk, always the same."""
    shared, own = np.random.default_rng(0), np.random.default_rng((1, number))
    centres = shared.standard_normal((CLUSTERS, LATENT), dtype=np.float32)
    basis = shared.standard_normal((LATENT, WIDTH), dtype=np.float32)
    latent = centres[own.integers(CLUSTERS, size=CHUNK)]
    latent = latent + SPREAD * own.standard_normal((CHUNK, LATENT), dtype=np.float32)
    keys = latent @ basis
    return keys / np.linalg.norm(keys, axis=1, keepdims=True)


def chunks(rows: int) -> Iterator[NDArray[np.float32]]:
    """All keys, chunk by chunk, (CHUNK, WIDTH) or fewer."""
    for start in range(0, rows, CHUNK):
        yield chunk(start // CHUNK)[: rows - start]


def keys_of(asked: NDArray[np.int64], rows: int) -> NDArray[np.float32]:
    """(asked, WIDTH) the keys of some rows.  asked: their positions, ascending."""
    parts = [np.empty((0, WIDTH), dtype=np.float32)]
    for number, keys in enumerate(chunks(rows) if len(asked) else ()):
        here = asked[(asked >= number * CHUNK) & (asked < number * CHUNK + len(keys))]
        parts.append(keys[here - number * CHUNK])
    return np.concatenate(parts)


def log(message: str) -> None:
    """Print a line of progress."""
    print(f"index: {message}", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main()
