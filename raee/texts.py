"""Which rows have equal texts, and what it takes to leave a text out.

Two texts are equal where the model cannot tell them apart: where their token ids are the same.
Every figure of a database on its own rows is without the text: the row and all its equals have no
part in it.  Whatever splits rows, into folds or halves, splits texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

TextHashes = NDArray[np.uint64]
"""(rows,) of rows' token ids: equal ones mean equal texts."""

_HASH_BYTES = 8


def text_hashes(token_ids: Sequence[NDArray]) -> TextHashes:
    """(rows,) the hash of each row's token ids; of a million texts two agree once in 10^7 tries."""
    digests = b"".join(
        blake2b(ids.tobytes(), digest_size=_HASH_BYTES).digest() for ids in token_ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


@dataclass(frozen=True)
class Texts:
    """The texts of some rows."""

    hashes: TextHashes
    """(rows,)."""

    def __len__(self) -> int:
        return len(self._distinct[0])

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """(texts,) the first row of each text, ascending: rows that no other one repeats."""
        return np.sort(self._distinct[1])

    @property
    def number(self) -> NDArray[np.int64]:
        """(rows,) the number of each row's text, from 0, in the order of hashes."""
        return self._distinct[2]

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """(rows,) True where another row has the same text."""
        return self._distinct[3][self.number] > 1

    def counts(self, hashes: TextHashes) -> NDArray[np.int64]:
        """(texts asked,) rows that have each of some texts."""
        place, there = self._find(hashes)
        return np.where(there, self._distinct[3][place], 0)

    def first_row(self, hashes: TextHashes) -> NDArray[np.int64]:
        """(texts asked,) the first row that has each of some texts; -2 where there is none."""
        place, there = self._find(hashes)
        return np.where(there, self._distinct[1][place], -2)

    def folds(self, number: int, seed: int) -> NDArray[np.int64]:
        """(rows,) in which of so many folds each row is: those of one text in the same.

        The fold depends on the text's rank among all, not on the order of rows.
        """
        shuffled = np.random.default_rng(seed).permutation(len(self))
        return (shuffled % number)[self.number]

    @cached_property
    def _distinct(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        return np.unique(self.hashes, return_index=True, return_inverse=True, return_counts=True)

    def _find(self, hashes: TextHashes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(texts asked,) the number of each text, and whether a row has it; else it is any."""
        known = self._distinct[0]
        if not len(known):
            return np.zeros(0, np.int64), np.zeros(len(hashes), bool)
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        return place, known[place] == hashes


@dataclass(frozen=True)
class Copies:
    """Of some texts, how many rows of which labels have them: what leaving them out takes away."""

    labels: NDArray[np.int64]
    """(texts, most) labels under which a text occurs; padded with label 0."""
    counts: NDArray[np.int64]
    """(texts, most) its rows with that label; 0 in the padding."""

    def __getitem__(self, some: NDArray | slice) -> "Copies":
        return Copies(self.labels[some], self.counts[some])


def copies_of(
    hashes: TextHashes, among: TextHashes, label: NDArray[np.integer], labels: int
) -> Copies:
    """How often some texts occur among rows, under which labels.

    hashes: (texts,).  among, label: (rows,) the rows' texts and labels, the texts asked among them.
    """
    distinct, number = np.unique(hashes, return_inverse=True)
    place = np.searchsorted(distinct, among)
    there = place < len(distinct)
    there[there] = distinct[place[there]] == among[there]
    pairs, counts = np.unique(
        place[there] * labels + label[there].astype(np.int64), return_counts=True
    )
    text, of_label = pairs // labels, pairs % labels
    nth = np.arange(len(text)) - np.searchsorted(text, text)
    size = (len(distinct), int(nth.max(initial=0)) + 1)
    found = Copies(np.zeros(size, np.int64), np.zeros(size, np.int64))
    found.labels[text, nth], found.counts[text, nth] = of_label, counts
    return found[number]
