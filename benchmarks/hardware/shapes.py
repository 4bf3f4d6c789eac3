"""The shapes of models that are measured, how much of each, and what arithmetic a layer is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import BertConfig


@dataclass(frozen=True)
class Shape:
    """A BERT of random weights, and how much of it there is time for on two slow cores."""

    title: str
    config: Any
    batches: int
    """Whole batches that are walked, at full depth and with exits."""
    swept: int
    """Rows of them, at most, that are swept."""
    repeats: int
    useful: float
    """The target of useful arithmetic, as a share of the machine's."""


def _bert(width: int, layers: int, heads: int) -> BertConfig:
    return BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )


SHAPES = {
    "large": Shape("BERT large", _bert(1_024, 24, 16), 1, 48, 3, 0.75),
    "base": Shape("BERT base", _bert(768, 12, 12), 1, 96, 3, 0.70),
    "minilm": Shape("MiniLM-L6", _bert(384, 6, 12), 4, 384, 5, 0.50),
}


def layer_operations(config: Any, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """(rows,) additions and multiplications of one layer for rows of so many tokens each.

    With width h, inner width f and t tokens of a row:
    linear layers: 2 t (4 h h + 2 h f), of query, key, value, output, and the two inner ones;
    attention: 2 t t h for the scores, and as many for the sum of the values by them.
    Norms, activation and softmax count as nothing: they are no matrix products.
    """
    width, inner = config.hidden_size, config.intermediate_size
    linear = 2 * tokens * (4 * width * width + 2 * width * inner)
    return linear + 4 * tokens * tokens * width


def evenly(lengths: NDArray[np.int64], depth: int, seed: int = 0) -> NDArray[np.int64]:
    """(rows,) depths from 1 on at which rows leave, equally many at each.

    Of rows of neighbouring lengths there is one for each depth, in random order: so the layers that
    tokens run are as many, on average, as those that rows do.
    """
    dice = np.random.default_rng(seed)
    drawn = [dice.permutation(depth) + 1 for _ in range(-(-len(lengths) // depth))]
    plan = np.empty(len(lengths), np.int64)
    plan[np.argsort(-lengths, kind="stable")] = np.concatenate(drawn)[: len(lengths)]
    return plan
