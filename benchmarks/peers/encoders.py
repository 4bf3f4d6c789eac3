"""The sentence encoder at full depth: by sentence-transformers, and by a loop that is done well."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from benchmarks.peers.regression import fit_vectors
from benchmarks.peers.rows import Made, Task
from benchmarks.peers.table import THREADS

MAX_TOKENS = 256
"""What the encoder's own configuration takes of a text."""
TOKEN_BUDGET = 1_024
"""Of 256 to 4,096, the fastest: larger batches pad short texts more, smaller ones fill no core."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to unit vectors (rows, width)."""


def sentence_transformers_float32(task: Task) -> Made:
    """The recipe: `encode`, which sorts by length, and logistic regression."""
    return _with_regression(task, _sentence_transformer(task.model, torch.float32))


def sentence_transformers_bfloat16(task: Task) -> Made:
    """The recipe in bfloat16."""
    return _with_regression(task, _sentence_transformer(task.model, torch.bfloat16))


def full_depth(task: Task) -> Made:
    """Plain transformers in float32, sorted, in batches of a token budget."""
    return _with_regression(task, plain_loop(task.model))


def _with_regression(task: Task, embed: Embed) -> Made:
    model, notes = fit_vectors(embed(task.train.texts), task.train.labels)
    return Made(lambda texts: model.predict(embed(texts)), notes)


def _sentence_transformer(model: str, dtype: torch.dtype) -> Embed:
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    encoder = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": dtype})
    return partial(encoder.encode, show_progress_bar=False)


def plain_loop(model: str) -> Embed:
    """Full depth done well: sorted by length, batches of a token budget, mean pooling."""
    torch.set_num_threads(THREADS)
    tokenizer = AutoTokenizer.from_pretrained(model)
    pooled = Pooled(AutoModel.from_pretrained(model, dtype=torch.float32).eval())

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), pooled.width), np.float32)
        for rows, ids, mask in batches(tokenizer, texts, TOKEN_BUDGET):
            found[rows] = pooled(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return found

    return embed


class Pooled(torch.nn.Module):
    """An encoder, and the unit vector of the mean over real tokens."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.width = encoder, encoder.config.hidden_size

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(n, width); both (n, tokens)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask.unsqueeze(2).to(states.dtype)
        return torch.nn.functional.normalize((states * real).sum(1) / real.sum(1), dim=1)


def batches(
    tokenizer: Any, texts: Sequence[str], budget: int
) -> Iterator[tuple[list[int], NDArray[np.int64], NDArray[np.int64]]]:
    """Rows by length, longest first, at most `budget` tokens a batch, padding included.

    Positions (n,), token ids and mask (n, tokens).
    """
    encoded = tokenizer([*texts], truncation=True, max_length=MAX_TOKENS)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row]))
    start = 0
    while start < len(order):
        longest = len(encoded[order[start]])
        rows = order[start : start + max(1, budget // longest)]
        ids = np.full((len(rows), longest), tokenizer.pad_token_id, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(encoded[row])] = encoded[row]
            mask[i, : len(encoded[row])] = 1
        yield rows, ids, mask
        start += len(rows)
