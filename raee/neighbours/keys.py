"""Keys: the vectors by which neighbours are found."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raee.config import KeySpec
from raee.errors import InputError
from raee.model.backbones import Backbone, Outline
from raee.model.batches import Batches, encode
from raee.model.prompts import Prompt
from raee.model.walk import walk
from raee.readers.states import check_numbers, pooled, token_mean

PLAIN_TEXT = Prompt(labels=(), words=())
"""The prompt of a key's own model: the text and nothing else."""


def check_key(key: KeySpec, backbone: Outline) -> None:
    """Raises InputError if a key's layer is deeper than the backbone."""
    deepest = key.depths[-1]
    if deepest > backbone.depth:
        name = "layers" if key.layers else "layer"
        raise InputError(
            f"key.{name} {deepest} is deeper than the backbone ({backbone.depth} layers)"
        )


def layer_key(
    backbone: Backbone, depth: int, states: Tensor, attention: Tensor
) -> NDArray[np.float32]:
    """Keys (n, hidden) out of a pass: the mean over each row's own tokens, unit vectors.

    It is the mean whatever the encoder's own pooling is, because every text has the same first
    token at depth 0.  states: (n, tokens, hidden) of a depth; attention: (n, tokens), 1 at a
    row's own tokens.
    """
    return token_mean(backbone, depth, states, attention).cpu().numpy()


def retriever_keys(retriever: Backbone, texts: Sequence[str]) -> NDArray[np.float32]:
    """Keys (n, pooled size) of a sentence encoder of their own: its embeddings, unit vectors.

    They are pooled as the encoder's configuration says.  Raises InputError if the encoder answers
    a text with values that are no numbers.
    """
    keys = np.zeros((len(texts), retriever.pooled_size), dtype=np.float32)
    batches = Batches(retriever, encode(retriever, PLAIN_TEXT, texts))
    for batch in batches:
        at, attention = batch.rows, batch.own

        def visit(
            depth: int,
            states: Tensor,
            rows: Tensor,
            at: NDArray[np.int64] = at,
            attention: Tensor = attention,
        ) -> None:
            if depth == retriever.depth:
                keys[at] = pooled(retriever, depth, states, attention).cpu().numpy()

        with batches.room():
            walk(retriever.stack, batch.inputs, visit)
            check_numbers(retriever, texts, at, keys[at])
    return keys
