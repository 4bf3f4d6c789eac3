"""What spoke for an answer: the n-grams of a text, and the experts of a pool."""

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from raee.exits import Exit
from raee.model.batches import Batches, encode
from raee.model.walk import walk
from raee.readers.head import READER as HEAD
from raee.readers.linear import Array
from raee.readers.ngrams import token_ids, tokens_of
from raee.readers.pool import READER as POOL
from raee.readers.pool import Pools, head_logs, weights_at
from raee.readers.words import READER as WORDS
from raee.readers.words import Ngrams
from raee.reading import BatchReader, Database


class NgramSay(BaseModel):
    """An n-gram of a text, and what it says of a label."""

    model_config = ConfigDict(frozen=True)

    ngram: str
    """Its tokens, as the tokenizer writes them."""
    log_odds: float
    """What it adds to the label's score, less what it adds to the other labels' on average."""


class ExpertSay(BaseModel):
    """An expert of a pool on a text."""

    model_config = ConfigDict(frozen=True)

    expert: str
    """`words`, or an exit such as `probe@2`."""
    weight: float
    probability: float
    """Of the label, from 0 to 1, as the expert says by itself."""


def ngrams_on(database: Database, text: str, label: int) -> list[NgramSay]:
    """The n-grams of a text that say something of a label, what speaks for it most first.

    label: its index.  Empty if the database has no n-grams, or no other label.
    """
    if database.fits is None or WORDS.name not in database.fits.parameters:
        return []
    if len(database.entries.labels) == 1:
        return []
    fitted: Ngrams = database.fits.parameters[WORDS.name]
    row = fitted.rows(token_ids(encode(database.backbone, database.prompt, [text]).own_ids))
    weights = fitted.map.weights[row.indices].astype(np.float64)
    others = np.delete(weights, label, axis=1).mean(axis=1)
    says = fitted.temperature * row.data * (weights[:, label] - others)
    order = [i for i in np.argsort(-says, kind="stable") if says[i] != 0]
    codes = [int(fitted.codes[row.indices[i]]) for i in order]
    names = [database.backbone.tokenizer.decode(tokens_of(code)).strip() for code in codes]
    return [
        NgramSay(ngram=name, log_odds=float(says[i])) for name, i in zip(names, order, strict=True)
    ]


def experts_on(database: Database, text: str, exit: Exit, label: int) -> list[ExpertSay]:
    """The experts of the pool at an exit on a text, those that count most first.

    exit: a pool's; of others there are none.  label: index of the label that they are asked about.
    """
    if exit.reader != POOL.name:
        return []
    pools: Pools = database.parameters(POOL.name)
    weights = weights_at(pools, exit.depth)
    batches = Batches(database.backbone, encode(database.backbone, database.prompt, [text]))
    position = database.entries.position_of(str(exit))
    logs: dict[str, Array] = {}
    for batch in batches:
        reader = BatchReader(database, batch, [position])

        def visit(depth: int, states: Tensor, rows: Tensor, reader: BatchReader = reader) -> None:
            reader.enter(depth, states, rows)
            if depth == exit.depth:
                logs.update(reader.so_far(POOL.name, slice(None)))
                logs[HEAD.name] = head_logs(reader.head(slice(None)))

        with batches.room():
            walk(database.backbone.stack, batch.inputs, visit, deepest=exit.depth)
    return [
        ExpertSay(
            expert=f"{HEAD.name}@{exit.depth}" if expert == HEAD.name else expert,
            weight=weight,
            probability=float(np.exp(logs[expert][0, label])),
        )
        for expert, weight in sorted(weights.items(), key=lambda item: -item[1])
    ]
