"""What leaving early saves on a GPU: seconds a row by the layer at which rows leave.

`make benchmark-gpu` takes long reviews through all-MiniLM-L6-v2 and through models of random
weights as large as BERT large and Llama 3.2 1B: first a plain sorted, token-budget `transformers`
loop, then the project's classification with every row leaving at the same layer, and with the rows
leaving evenly over all layers, a sweep, and tokenising alone.  Each takes 2,000 reviews that warm
it up and then as many others, three times: a GPU is fast on shapes of batches that it has seen, and
a corpus brings new ones.  Everything is counted but reading the texts and loading the model.
`make benchmark-speed` measures the commands as a user gives them.

RAEE_DATA: the folder of the data sets, with imdb/unlabelled.parquet.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, LlamaConfig

from benchmarks.forward import Sweeping
from benchmarks.peers.machine import machine, machine_line, versions
from benchmarks.random_models import MINILM, random_model
from benchmarks.repeats import ratios, spread, timed
from benchmarks.speed import DESCRIPTIONS, DEVICE, RESULTS, plain_loop
from raee.classify import classify
from raee.config import BackboneSpec, CascadePolicy, FarSpec, FixedPolicy, KeySpec, RunnablePolicy
from raee.exits import Entries, swept_exits
from raee.model.backbones import Backbone
from raee.model.batches import encode
from raee.model.loading import load_backbone
from raee.model.prompts import Prompt
from raee.neighbours.gpu import search_on
from raee.neighbours.index import new_index
from raee.readers.head import head_reader, read_centre
from raee.reading import Database
from raee.sweep import Sweep, sweep

ROWS, TRIES = 2_000, 3
LABELS = ("bad", "good")
TOKENISING = "tokenising alone"
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
SIZES: dict[str, Any] = {
    "all-MiniLM-L6-v2": None,
    "BERT large's size": BertConfig(
        hidden_size=1_024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4_096
    ),
    "Llama 3.2 1B's size": LlamaConfig(
        vocab_size=30_522,
        hidden_size=2_048,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=8_192,
    ),
}


def main() -> None:
    """Measure all models and print a table."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("gpu: set RAEE_DATA to the folder of the data sets")
    path = Path(os.environ["RAEE_DATA"]) / "imdb" / "unlabelled.parquet"
    texts = pq.read_table(path)["text"].slice(0, (1 + TRIES) * ROWS).to_pylist()
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name() if DEVICE.type == "cuda" else None,
        **machine(),
        "versions": versions("raee", "torch", "transformers", "tokenizers"),
        "figures": {},
    }
    print(found["gpu"] or "no GPU", machine_line(machine(), found["versions"]), end="\n\n")
    print("| milliseconds a row | layers run | measured | times the loop | of that tokenising |")
    print("|---|---|---|---|---|", flush=True)
    for size, config in SIZES.items():
        figures = measure(model_of(config), texts)
        found["figures"][size] = figures
        loop, alone = figures["plain loop"][1], figures[TOKENISING][1]
        for name, (layers, seconds) in figures.items():
            shown = spread([1_000 * s for s in seconds], ".3f")
            times, share = spread(ratios(seconds, loop)), spread(ratios(alone, seconds))
            print(f"| {size}, {name} | {layers:.1f} | {shown} | {times} | {share} |")
        sys.stdout.flush()
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(found, indent=1))


def model_of(config: Any) -> Path:
    """The folder of a model of random weights; without a configuration, of the small model."""
    if config is None:
        return MINILM
    return random_model(config, RESULTS / config.model_type, DTYPE, str(DEVICE))


def measure(folder: Path, texts: list[str]) -> dict[str, tuple[float, list[float]]]:
    """By way of classifying the texts, the layers a row and the seconds a row of each try.

    folder: the model's.
    """
    backbone = load_backbone(BackboneSpec(family="sentence-encoder", model=str(folder)))
    depth = backbone.depth
    figures = {"plain loop": (float(depth), seconds_of_plain_loop(folder, texts))}
    database, swept = database_of(backbone, texts[:ROWS])
    ways: dict[str, RunnablePolicy] = {
        f"`raee`, layer {layer}": FixedPolicy(exit=f"head@{layer}")
        for layer in sorted({depth, 3 * depth // 4, depth // 2, depth // 4, 0}, reverse=True)
    }
    ways["`raee`, evenly"] = leaving_evenly(swept.confidences)
    for name, policy in ways.items():
        layers_run: list[int] = []

        def run(
            some: list[str],
            policy: RunnablePolicy = policy,
            layers_run: list[int] = layers_run,
        ) -> None:
            layers_run.append(classify(database, policy, some, far=FarSpec()).layers_run)

        seconds = seconds_a_row(run, texts)
        figures[name] = sum(layers_run[1:]) / (TRIES * ROWS), seconds
    figures["sweep"] = float(depth), seconds_a_row(lambda some: sweep_of(database, some), texts)
    alone = seconds_a_row(lambda some: encode(backbone, database.prompt, some), texts)
    figures[TOKENISING] = 0.0, alone
    return figures


def seconds_of_plain_loop(folder: Path, texts: list[str]) -> list[float]:
    """Seconds a row of each try at full depth, without the project."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=DTYPE).eval().to(DEVICE)
    return seconds_a_row(lambda some: plain_loop(tokenizer, model, some), texts)


def seconds_a_row(run: Callable[[list[str]], object], texts: list[str]) -> list[float]:
    """Seconds a row of runs over ROWS texts each, without the first run."""
    parts = [texts[start : start + ROWS] for start in range(0, len(texts), ROWS)]
    run(parts[0])
    return [timed(lambda part=part: run(part)) / ROWS for part in parts[1:]]


def database_of(backbone: Backbone, texts: list[str]) -> tuple[Database, Sweep]:
    """A database of the texts with meaningless labels: enough to run, not to be right."""
    prompt = Prompt(LABELS, tuple(DESCRIPTIONS))
    head = head_reader(backbone, prompt, read_centre(backbone, prompt, texts))
    swept = sweep(backbone, prompt, head, KeySpec(), None, texts)
    (keys,) = swept.keys
    index = new_index(keys.shape[1])
    index.add(keys)
    unread = np.full((len(texts), 1), np.nan, dtype=np.float32)
    entries = Entries(
        exits=swept_exits(backbone.depth, (0,)),
        labels=LABELS,
        label=np.arange(len(texts), dtype=np.uint16) % len(LABELS),
        answers=np.column_stack([swept.answers, np.zeros(len(texts), np.uint16)]),
        confidences=np.column_stack([swept.confidences, unread]),
        hashes=swept.hashes,
    )
    database = Database(
        backbone=backbone,
        prompt=prompt,
        head=head,
        key=KeySpec(),
        retriever=None,
        indexes=(search_on(backbone.device, index),),
        entries=entries,
        vote_k=12,
        nearest=np.full(len(texts), 4.0, dtype=np.float32),  # no unit vector is farther
    )
    return database, swept


def sweep_of(database: Database, texts: list[str]) -> None:
    """All that a build reads of its rows."""
    label = database.entries.label
    read = database.backbone, database.prompt, database.head, database.key
    Sweeping(*read, texts, label, len(LABELS)).sweep()


def leaving_evenly(confidences: np.ndarray) -> CascadePolicy:
    """A cascade in which equally many of the rows leave at each layer.

    confidences: (rows, depths) of the head.
    """
    rows, depths = confidences.shape
    there = np.ones(rows, dtype=bool)
    thresholds = []
    for depth in range(depths):
        share = 1 - 1 / (depths - depth)
        thresholds.append(float(np.quantile(confidences[there, depth], share)) if share else 0.0)
        there &= confidences[:, depth] < thresholds[-1]
    return CascadePolicy(readers=("head",), last=depths - 1, threshold=tuple(thresholds))


if __name__ == "__main__":
    main()
