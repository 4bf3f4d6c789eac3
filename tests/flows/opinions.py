"""Rows that a tiny model can learn: some at once, others only from its deeper layers.

Half of the texts of `opinions` hold words that give their label away.  The labels of the others are
read off the model's own states at depth `DEPTH`, so that the readers there do better than those
before.  Some labels are wrong.
"""

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

DEPTH = 3
NOISE = 0.06

_WORDS = {
    "bad": ("terrible", "bad", "dull", "boring"),
    "good": ("great", "good", "warm", "bravo"),
    "odd": ("okay", "again", "never", "cry"),
}
_OTHERS = (
    "a",
    "the",
    "film",
    "was",
    "it",
    "story",
    "actor",
    "plot",
    "scene",
    "made",
    "me",
    "laugh",
)
LABELS = tuple(_WORDS)


def opinions(
    encoder: str,
    rows: int,
    seed: int = 0,
    shares: Sequence[float] = (1, 1, 1),
    noise: float = NOISE,
    telling: float = 0.5,
) -> list[dict[str, str]]:
    """Labelled rows for the tiny encoder in a folder.

    shares: of the labels among the texts whose words tell; telling: how many texts those are.
    """
    dice = random.Random(seed)
    texts, labels = [], []
    for _ in range(rows):
        told = dice.random() < telling
        label = dice.choices(LABELS, shares)[0]
        words = dice.choices(_OTHERS, k=dice.randint(3, 10))
        words += dice.choices(_WORDS[label], k=2) if told else []
        dice.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label if told else None)
    silent = [text for text, label in zip(texts, labels, strict=True) if label is None]
    read = iter(_as_the_model_reads(encoder, silent) if silent else [])
    found = []
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        right = label or LABELS[next(read)]
        if dice.random() < noise:
            right = dice.choice([other for other in LABELS if other != right])
        found.append({"id": f"o{seed}-{i:04d}", "text": text, "label": right})
    return found


def plain_words(rows: int, seed: int = 0) -> list[dict[str, str]]:
    """Labelled rows of which most could go: a label's few words, all of them, and one other.

    Of six rows three are bad, two good and one odd.
    """
    dice = random.Random(seed)
    found = []
    for i in range(rows):
        label = LABELS[(0, 1, 0, 2, 0, 1)[i % 6]]
        words = [*_WORDS[label] * 2, dice.choice(_OTHERS)]
        dice.shuffle(words)
        found.append({"id": f"w{seed}-{i:04d}", "text": " ".join(words), "label": label})
    return found


def mean_states(encoder: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """(depths, texts, width) unit vectors of the tokens' means, by plain `transformers` calls."""
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)
    found = []
    with torch.inference_mode():
        for text in texts:
            read = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            found.append(torch.stack([h[0].mean(dim=0) for h in read.hidden_states]))
    states = torch.nn.functional.normalize(torch.stack(found, dim=1), dim=-1)
    return states.numpy()


def _as_the_model_reads(encoder: str, texts: Sequence[str]) -> NDArray[np.int64]:
    """A label for each text: the sector of the plane in which such texts differ most."""
    centre, plane = _plane(encoder)
    sectors = np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    return ((mean_states(encoder, texts)[DEPTH] - centre) @ plane @ sectors.T).argmax(axis=1)


@cache
def _plane(encoder: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    dice = random.Random("plane")
    texts = [" ".join(dice.choices(_OTHERS, k=dice.randint(3, 10))) for _ in range(150)]
    states = mean_states(encoder, texts)[DEPTH]
    centre = states.mean(axis=0)
    _, lengths, directions = np.linalg.svd(states - centre, full_matrices=False)
    return centre, directions[:2].T / lengths[:2]
