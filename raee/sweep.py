"""The sweep: one pass a row, and every exit's answer with its confidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.backbones import Backbone
from raee.batches import encode, token_batches
from raee.config import KeySpec
from raee.keys import check_key, layer_key, retriever_keys
from raee.prompts import Prompt
from raee.readers import HeadReader
from raee.walk import walk


@dataclass(frozen=True)
class Sweep:
    """What a sweep read of its rows."""

    answers: NDArray[np.uint16]
    """(rows, depths) the head's answer at each depth."""
    confidences: NDArray[np.float32]
    """(rows, depths) its probability."""
    keys: NDArray[np.float32]
    """(rows, width)."""


def sweep(
    backbone: Backbone,
    prompt: Prompt,
    head: HeadReader,
    key: KeySpec,
    retriever: Backbone | None,
    texts: Sequence[str],
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Sweep:
    """Read every exit of every text, and its key.

    retriever: the key's model where that is not the backbone.  on_rows is told of rows as they
    are done.  Raises InputError where the key's layer is deeper than the backbone.
    """
    check_key(key, backbone)
    depths = backbone.depth + 1
    answers = np.zeros((len(texts), depths), dtype=np.uint16)
    confidences = np.zeros((len(texts), depths), dtype=np.float32)
    if retriever is None:
        keys = np.zeros((len(texts), backbone.hidden_size), dtype=np.float32)
    else:
        keys = retriever_keys(retriever, texts)
    for batch in token_batches(backbone, encode(backbone, prompt, texts)):
        attention, positions = batch.inputs["attention_mask"], batch.mask_positions
        read = torch.zeros(2, depths, len(batch.rows), device=backbone.device)

        def visit(
            depth: int,
            states: Tensor,
            rows: Tensor,
            places: NDArray[np.int64] = batch.rows,
            attention: Tensor = attention,
            positions: Tensor = positions,
            read: Tensor = read,
        ) -> None:
            read[1, depth], answer = head(depth, states, attention, positions).max(dim=1)
            read[0, depth] = answer.float()
            if retriever is None and depth == key.layer:
                keys[places] = layer_key(backbone, states, attention)

        walk(backbone.stack, batch.inputs, visit)
        answer, confidence = read.cpu().numpy()
        answers[batch.rows] = answer.T.astype(np.uint16)
        confidences[batch.rows] = confidence.T
        on_rows(len(batch.rows))
    return Sweep(answers, confidences, keys)
