"""Labelled texts for tests, of words that the tiny models know."""

import random

LABELS = ("bad", "good", "odd")

WORDS = (
    *("a", "the", "film", "was", "it", "great", "terrible", "bad", "okay", "good", "dull", "warm"),
    *("story", "actor", "plot", "scene", "made", "me", "laugh", "cry", "and", "never", "again"),
    *("bravo", "boring"),
)
"""Words that are one token after a space for each of the tokenizers."""


def sentences(rows: int, seed: int = 0) -> list[dict[str, str]]:
    """Labelled rows of words that the tiny models know; some texts stand more than once."""
    dice = random.Random(seed)
    texts = [" ".join(dice.choices(WORDS, k=dice.randint(1, 15))) for _ in range(rows)]
    texts[3::17] = texts[2::17][: len(texts[3::17])]
    return [
        {"id": f"row-{i:03d}", "text": text, "label": dice.choice(LABELS)}
        for i, text in enumerate(texts)
    ]
