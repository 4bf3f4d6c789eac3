"""`make benchmark-hardware`: the share of the processor's arithmetic that is put to use.

Models of random weights, in the shapes of BERT large, BERT base and MiniLM, take whole batches of
sentences through their layers, in each number format that the processor multiplies natively, on two
cores.  Printed are: the speed-up by exits that are drawn evenly, known before the pass, as a share
of what the layers saved would allow; the arithmetic of real tokens in layers that are run, over the
rate of the machine's fastest matrix product of that kind in the same format; and the time of a
sweep over a plain forward of the same batches.  What is compared takes turns.

RAEE_DATA: the folder of the data sets, with sst2/test.parquet.
SHAPES: large, base or minilm; all three by default.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from benchmarks.hardware.measure import measured
from benchmarks.hardware.rate import fastest
from benchmarks.hardware.shapes import SHAPES
from benchmarks.hardware.tables import tables_of
from benchmarks.peers.machine import machine, machine_line, use_two_cores_alone, versions
from benchmarks.peers.rows import read_rows
from benchmarks.peers.table import RESULTS, THREADS
from benchmarks.random_models import random_model
from raee.model.native import native_formats


def main(*shapes: str) -> None:
    """Measure all shapes in all formats, and print the tables."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("hardware: set RAEE_DATA to the folder of the data sets")
    if unknown := set(shapes) - set(SHAPES):
        sys.exit(f"hardware: {min(unknown)} is none of {', '.join(SHAPES)}")
    use_two_cores_alone()
    torch.set_num_threads(THREADS)
    texts = read_rows(Path(os.environ["RAEE_DATA"]) / "sst2", "test").texts
    products = {dtype: fastest(dtype) for dtype in native_formats()}
    for dtype, product in products.items():
        print(f"hardware: {dtype}: {product.title}", file=sys.stderr, flush=True)
    kept = RESULTS / "hardware"
    kept.mkdir(parents=True, exist_ok=True)
    found = []
    for name in shapes or SHAPES:
        folder = random_model(SHAPES[name].config, kept / name)
        for dtype, product in products.items():
            print(f"hardware: {name}, {dtype}", file=sys.stderr, flush=True)
            found.append(measured(SHAPES[name], folder, dtype, texts, product))
        shutil.rmtree(folder)  # a large one is more than a gigabyte
    record = {
        **machine(),
        "versions": versions("torch", "transformers", "tokenizers"),
        "products": {dtype: product.title for dtype, product in products.items()},
        "found": found,
    }
    (kept / "hardware.json").write_text(json.dumps(record, indent=1), "utf-8")
    print(machine_line(record, record["versions"]), end="\n\n")
    print(tables_of(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
