"""The cost of the orchestrator: the same shards in a plain loop, in a flow, and through workers.

`make benchmark-orchestration` classifies shards of ten short texts with a tiny model, so that next
to nothing but the orchestrator is measured: in a loop over the steps' own functions, with `raee
classify`, and as a run of `classify-corpus` on the server that `raee up` starts, in chunks of one
shard, four at once.  Real chunks are minutes of work: what a chunk costs here is added to that.
Workers look for runs every second, and not every ten as they do by default.

Numbers of chunks named as arguments replace 10, 100 and 1,000.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import yaml

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "orchestration"
BIN = Path(sys.executable).parent
PORT = 4310
API = f"http://127.0.0.1:{PORT}/api"
CHUNKS = (10, 100, 1_000)
SHARD_ROWS = 10
MORE_RUNS = 3
"""Chunks at once besides the one that the worker of `raee up` runs."""
WORDS = ("a", "good", "bad", "fine", "dull", "film", "story", "it", "was", "very")


def main() -> None:
    """Build, classify in every way, and print the table."""
    os.chdir(ROOT)
    sizes = [int(size) for size in sys.argv[1:]] or list(CHUNKS)
    shutil.rmtree(RESULTS, ignore_errors=True)
    (RESULTS / "prefect").mkdir(parents=True)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    os.environ["PREFECT_API_URL"] = API
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = "1"
    job = write_job()
    results = []
    with up(job):
        raee("build", job)
        for chunks in sizes:
            write_texts(RESULTS / f"{chunks}.parquet", chunks * SHARD_ROWS)
            before = database_bytes()
            seconds = {
                "loop": timed(plain_loop, job, chunks),
                "flow": timed(in_a_flow, job, chunks),
                "workers": timed(through_workers, job, chunks),
            }
            grown = database_bytes() - before
            results.append({"chunks": chunks, "database_bytes": grown, **seconds})
            print(json.dumps(results[-1]), file=sys.stderr)
    (RESULTS / "orchestration.json").write_text(json.dumps(results, indent=1))
    print(
        "| chunks of one shard | plain loop | flow, in this process | server and workers "
        "| a chunk through workers | server's database grew by |"
    )
    print("|---|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r['chunks']:,} | {r['loop']:.1f} s | {r['flow']:.1f} s | {r['workers']:.1f} s "
            f"| {r['workers'] / r['chunks']:.2f} s | {r['database_bytes'] / 1e6:.1f} MB |"
        )


def plain_loop(job: Path, chunks: int) -> None:
    """Call the steps' own functions, one after another, in a process of their own."""
    program = (
        "import sys; from tasks.classify import classification as c, plan as p; "
        "from tasks.job import load_job; job = load_job(sys.argv[1]); "
        "plan = p.plan_classification.fn(job, *sys.argv[2:4], None, job.policy); "
        "[s.run(plan.output, n) for s in c.CLASSIFICATION_STEPS"
        " for n in (range(plan.shards) if s.per_shard else [None])]; "
        "c.finish_classification.fn(plan.output, job.max_reject_fraction)"
    )
    texts, output = str(RESULTS / f"{chunks}.parquet"), str(RESULTS / f"loop-{chunks}")
    command = [sys.executable, "-c", program, str(job), texts, output]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def in_a_flow(job: Path, chunks: int) -> None:
    """Run the command, which has the flow in its own process and records on the same server."""
    texts, output = RESULTS / f"{chunks}.parquet", RESULTS / f"flow-{chunks}"
    raee("classify", job, "--input", texts, "--output", output)


def through_workers(job: Path, chunks: int) -> None:
    """Run the deployment, which gives each chunk to a run on the other pool."""
    parameters = {
        "job": yaml.safe_load(job.read_text("utf-8")),
        "input": str(RESULTS / f"{chunks}.parquet"),
        "output": str(RESULTS / f"workers-{chunks}"),
        "workers": {"chunk_seconds": 1e-6},
    }
    deployment = ask("GET", "deployments/name/classify-corpus/classify-corpus")["id"]
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    run = ask("POST", f"deployments/{deployment}/create_flow_run", body)["id"]
    while (state := ask("GET", f"flow_runs/{run}")["state"])["type"] != "COMPLETED":
        if state["type"] in ("FAILED", "CRASHED", "CANCELLED"):
            sys.exit(f"orchestration: the run is {state['name']}: {state['message']}")
        time.sleep(0.5)


def timed(way: Callable[[Path, int], None], job: Path, chunks: int) -> float:
    """Seconds, from the start of the command or the run to its end."""
    begun = time.monotonic()
    way(job, chunks)
    return time.monotonic() - begun


@contextmanager
def up(job: Path) -> Iterator[None]:
    """Within the block, all that `raee up` starts and one more worker run."""
    with (RESULTS / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / "raee"), "up", str(job), "--port", str(PORT)], stdout=log, stderr=log
        )
        more = None
        try:
            while "stop        Ctrl-C" not in (RESULTS / "up.log").read_text("utf-8"):
                if process.poll() is not None:
                    sys.exit((RESULTS / "up.log").read_text("utf-8"))
                time.sleep(0.2)
            worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu"]
            # A worker starts `python`: it must be this one.
            environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
            command = [*worker, "--limit", str(MORE_RUNS)]
            more = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            yield
        finally:
            if more is not None:
                more.terminate()
                more.wait(timeout=60)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def raee(*arguments: object) -> None:
    """Run a command; this program ends if it fails."""
    command = [str(BIN / "raee"), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ask(method: str, path: str, body: Any = None) -> Any:
    """The server's answer to a request."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{API}/{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def database_bytes() -> int:
    """Bytes of the server's database."""
    with closing(sqlite3.connect(RESULTS / "prefect" / "prefect.db")) as database:
        sizes = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        return database.execute(sizes).fetchone()[0]


def write_job() -> Path:
    """A job with a tiny model, and a corpus of 200 rows."""
    sys.path.append(str(ROOT))
    from tests.raee.models import save_model

    save_model("bert-encoder", RESULTS / "model")
    write_texts(RESULTS / "train.parquet", 200)
    job: dict[str, Any] = {
        "name": "tiny",
        "store": str(RESULTS / "store"),
        "corpus": {"uri": str(RESULTS / "train.parquet"), "id": "id"},
        "prompt": {"labels": [{"bad": "a bad film"}, {"good": "a good film"}]},
        "backbone": {"family": "sentence-encoder", "model": str(RESULTS / "model")},
        "policy": "full",
        "shard_rows": SHARD_ROWS,
    }
    path = RESULTS / "job.yaml"
    path.write_text(yaml.safe_dump(job), "utf-8")
    return path


def write_texts(path: Path, rows: int) -> None:
    """Write short texts of a few words, labelled at random."""
    dice = random.Random(rows)
    texts = [" ".join(dice.choices(WORDS, k=dice.randint(3, 9))) for _ in range(rows)]
    labels = [dice.choice(("bad", "good")) for _ in range(rows)]
    ids = [f"row-{number}" for number in range(rows)]
    pl.DataFrame({"id": ids, "text": texts, "label": labels}).write_parquet(path)


if __name__ == "__main__":
    main()
