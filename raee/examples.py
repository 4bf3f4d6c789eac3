"""Demonstrations: labelled rows of a corpus that are shown to a model before the text it answers.

A version picks them once, and they are no rows of it: nor is any row with an equal text, since it
would be read with its own label before it, and every figure of a database's own rows is what texts
get that nobody has seen.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from unicodedata import normalize

import numpy as np

from raee.model.prompts import Example, Prompt

EXAMPLE_CHARACTERS = 400
"""Characters that are shown of a text.  Texts that are no longer are taken first."""

_SPARE = 8
"""Rows of a label beyond those asked for that are kept in mind: some may not be fit to be shown."""

_SEED = 0
"""Of the order in which labels are shown."""


def text_key(text: str) -> str:
    """The name of a text, the same for texts that no tokenizer tells apart: 128 bits in hex.

    Letters' cases, widths and accents' encodings are one, and so is all white space.
    """
    plain = " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())
    return sha256(plain.encode()).hexdigest()[:32]


def rows_left(prompt: Prompt, texts: Iterable[str]) -> list[bool]:
    """(rows,) False if a row has the text of a demonstration, and is no row of the database."""
    shown = {example.key for example in prompt.shown}
    return [not shown or text_key(text) not in shown for text in texts]


class Candidates:
    """Rows that may be shown, as a corpus is read; memory is bounded by labels, not by rows.

    They are drawn by their texts: by nothing of their order, and the same in every process.
    """

    def __init__(self, examples: int, before: Prompt | None = None) -> None:
        """Begin without rows.

        examples: how many of each label are asked for.  before: the parent's prompt, whose
        demonstrations are kept if all are still in the corpus.
        """
        self._examples = examples
        self._most = 2 * examples + _SPARE
        self._by_label: dict[str, dict[str, tuple[bool, str, str]]] = {}
        alike = before is not None and before.examples == examples
        self._before = before.shown if before is not None and alike else ()
        self._gone = {(example.key, example.label) for example in self._before}

    def add(self, texts: Iterable[str], labels: Iterable[str]) -> None:
        """Take usable rows, both (rows,).  labels: by their names."""
        if not self._examples:
            return
        for text, label in zip(texts, labels, strict=True):
            key = text_key(text)
            self._gone.discard((key, label))
            own = self._by_label.setdefault(label, {})
            own.setdefault(key, (len(text) > EXAMPLE_CHARACTERS, key, _shown(text.strip())))
            if len(own) > 4 * self._most:
                self._by_label[label] = {row[1]: row for row in self._least(own)}

    def pick(self, labels: Sequence[str], fit: Callable[[str], bool]) -> tuple[Example, ...]:
        """The demonstrations, labels interleaved: `examples` of each label, or fewer.

        No label gives more than half of its texts.  labels: in the prompt's order.  fit: whether a
        text can be shown.
        """
        kept = self._kept(labels, fit)
        if kept is not None:
            return kept
        picked: dict[str, list[Example]] = {}
        taken: set[str] = set()
        for label in labels:
            own = self._least(self._by_label.get(label, {}))
            found = [(key, text) for _, key, text in own if key not in taken and fit(text)]
            found = found[: min(self._examples, len(own) // 2)]
            picked[label] = [Example(text, label, key) for key, text in found]
            taken.update(key for key, _ in found)
        return tuple(_interleaved([*picked.values()]))

    def _kept(
        self, labels: Sequence[str], fit: Callable[[str], bool]
    ) -> tuple[Example, ...] | None:
        """The parent's demonstrations if they still serve, else None."""
        of_labels = {example.label for example in self._before}
        serve = (
            bool(self._before)
            and not self._gone
            and of_labels <= {*labels}
            and all(fit(example.text) for example in self._before)
            and all(label in of_labels for label, own in self._by_label.items() if len(own) > 1)
        )
        return self._before if serve else None

    def _least(self, own: dict[str, tuple[bool, str, str]]) -> list[tuple[bool, str, str]]:
        return heapq.nsmallest(self._most, own.values())


def _shown(text: str) -> str:
    """The beginning of a text, up to the end of a word."""
    if len(text) <= EXAMPLE_CHARACTERS:
        return text
    start = text[:EXAMPLE_CHARACTERS]
    return start.rsplit(maxsplit=1)[0] if len(start.split()) > 1 else start


def _interleaved(by_label: Sequence[Sequence[Example]]) -> Iterator[Example]:
    """One of each label, in an order of its own, then the next of each."""
    orders = np.random.default_rng(_SEED)
    for number in range(max(map(len, by_label), default=0)):
        order = orders.permutation(len(by_label))
        yield from (by_label[i][number] for i in order if number < len(by_label[i]))
