"""Texts, prompts, readings and small databases that several tests look at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raee.backbones import Backbone
from raee.batches import encode, token_batches
from raee.classify import Database
from raee.config import KeySpec
from raee.exits import Entries, Neighbours, exits_of
from raee.index import new_index
from raee.prompts import Prompt
from raee.readers import HeadReader, head_reader, read_centre, vote
from raee.sweep import sweep
from tests.raee.models import MASKED_LMS

TEXTS = (
    "a dull story",
    "great , great plot and a warm actor made me laugh again , and never was it boring !",
    "",
    "the film made me cry .",
    "was it okay ? never again",
    "bravo",
    "the actor was bad and the plot was terrible and the story never made me laugh or cry",
    "scene 42 , xylophone zzz 2001",
    "warm warm warm warm warm warm warm warm warm warm warm warm warm warm warm warm warm",
    "it was good .",
    "\U0001f600 ünïcödé",
    "boring actor , boring scene , boring plot",
)
"""Short and long ones, in no order: one batch of them is padded to many lengths."""

LABELS = ("bad", "good", "so so")
MASKED = Prompt(LABELS, ("terrible", "great", "okay"), "{text} It was {mask}.")
DESCRIBED = Prompt(LABELS, ("a terrible , bad film", "a great story", "it was okay"))


def is_masked_lm(name: str) -> bool:
    return name in MASKED_LMS or name == "minilm-mlm"


def prompt_of(name: str) -> Prompt:
    """What the tests ask of the model of a name."""
    return MASKED if is_masked_lm(name) else DESCRIBED


def prompt_for(backbone: Backbone) -> Prompt:
    """What the tests ask of a loaded model."""
    return MASKED if backbone.family == "masked-lm" else DESCRIBED


def head_for(backbone: Backbone, texts: Sequence[str] = TEXTS) -> HeadReader:
    """The head of `prompt_for`, a sentence encoder's with its centre over the texts."""
    prompt = prompt_for(backbone)
    masked_lm = backbone.family == "masked-lm"
    return head_reader(
        backbone, prompt, None if masked_lm else read_centre(backbone, prompt, list(texts))
    )


def whole_batch(backbone: Backbone, texts: Sequence[str] = TEXTS):
    """All texts in one padded batch of a token budget that takes them."""
    (batch,) = token_batches(backbone, encode(backbone, prompt_for(backbone), texts), budget=10**6)
    return batch


def plain_distributions(plain, prompt: Prompt, texts: Sequence[str] = TEXTS) -> NDArray[np.float32]:
    """(depths, texts, labels): the head's reading, by plain `transformers` calls."""
    if "{mask}" in prompt.template:
        mask = plain.tokenizer.mask_token
        rendered = [prompt.template.format(text=text, mask=mask) for text in texts]
        return np.stack([plain.mask_distribution(text, prompt.words) for text in rendered], axis=1)
    centre = torch.stack([plain.embeddings(text) for text in texts]).mean(dim=0)
    return plain.cosine_distribution(texts, prompt.words, centre)


@dataclass(frozen=True)
class Built:
    """A database with what its rows found among each other."""

    database: Database
    neighbours: Neighbours
    keys: NDArray[np.float32]


def build(
    backbone: Backbone,
    texts: Sequence[str],
    labels: Sequence[int],
    key: KeySpec,
    retriever: Backbone | None = None,
    vote_k: int = 5,
) -> Built:
    """Sweep texts and put them into a database, the vote leave-one-out."""
    prompt, head = prompt_for(backbone), head_for(backbone, texts)
    swept = sweep(backbone, prompt, head, key, retriever, texts)
    label = np.array(labels, dtype=np.uint16)
    index = new_index(swept.keys.shape[1])
    index.add(swept.keys)
    neighbours = index.search(swept.keys, vote_k, exclude=np.arange(len(texts)))
    votes = vote(neighbours, label, len(prompt.labels))
    entries = Entries(
        exits=exits_of(backbone.depth, key.depth),
        labels=prompt.labels,
        label=label,
        answers=np.column_stack([swept.answers, votes.argmax(axis=1)]).astype(np.uint16),
        confidences=np.column_stack([swept.confidences, votes.max(axis=1)]),
    )
    database = Database(backbone, prompt, head, key, retriever, index, entries, vote_k)
    return Built(database, neighbours, swept.keys)


def without(built: Built, row: int) -> Database:
    """The database less one of its rows; readings are against the same centre."""
    database, others = built.database, np.arange(len(built.keys)) != row
    index = new_index(built.keys.shape[1])
    index.add(built.keys[others])
    entries = database.entries
    return Database(
        database.backbone,
        database.prompt,
        database.head,
        database.key,
        database.retriever,
        index,
        Entries(
            entries.exits,
            entries.labels,
            entries.label[others],
            entries.answers[others],
            entries.confidences[others],
        ),
        database.vote_k,
    )
