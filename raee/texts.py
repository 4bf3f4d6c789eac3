"""Which rows have equal texts, and what it takes to leave a text out.

Two texts are equal if the model cannot tell them apart: if their token ids are the same.
Every figure of a database on its own rows is without the text: the row and all its equals have no
part in it.  A split of rows, into folds or halves, is a split of texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

TextHashes = NDArray[np.uint64]
"""(rows,) hashes of rows' token ids: equal hashes mean equal texts."""

_HASH_BYTES = 8


def text_hashes(token_ids: Sequence[NDArray]) -> TextHashes:
    """(rows,) the hash of each row's token ids.

    Among a million texts two hashes agree by chance once in 10^7 tries.
    """
    digests = b"".join(
        blake2b(ids.tobytes(), digest_size=_HASH_BYTES).digest() for ids in token_ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


@dataclass(frozen=True)
class Texts:
    """The texts of some rows."""

    hashes: TextHashes
    """(rows,) the hash of each row's text."""

    def __len__(self) -> int:
        return len(self._distinct[0])

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """(texts,) the first row of each text, ascending."""
        return np.sort(self._distinct[1])

    @property
    def number(self) -> NDArray[np.int64]:
        """(rows,) the number of each row's text, from 0, in the order of hashes."""
        return self._distinct[2]

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """(rows,) True if another row has the same text."""
        return self._distinct[3][self.number] > 1

    def counts(self, hashes: TextHashes) -> NDArray[np.int64]:
        """(texts asked,) how many rows have each of some texts."""
        index, there = self._find(hashes)
        return np.where(there, self._distinct[3][index], 0)

    def first_row(self, hashes: TextHashes) -> NDArray[np.int64]:
        """(texts asked,) the first row that has each of some texts; -2 if none has."""
        index, there = self._find(hashes)
        return np.where(there, self._distinct[1][index], -2)

    def folds(self, number: int, seed: int) -> NDArray[np.int64]:
        """(rows,) the fold of each row, from 0 to number - 1: rows of one text share a fold.

        The fold depends on the text's rank among all, not on the order of rows.
        """
        shuffled = np.random.default_rng(seed).permutation(len(self))
        return (shuffled % number)[self.number]

    @cached_property
    def _distinct(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        return np.unique(self.hashes, return_index=True, return_inverse=True, return_counts=True)

    def _find(self, hashes: TextHashes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(texts asked,) the number of each text, and whether a row has it; if not, any number."""
        known = self._distinct[0]
        if not len(known):
            return np.zeros(0, np.int64), np.zeros(len(hashes), bool)
        index = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        return index, known[index] == hashes


@dataclass(frozen=True)
class Copies:
    """How many rows of which labels have some texts: what leaving the texts out takes away."""

    labels: NDArray[np.int64]
    """(texts, most) labels under which a text occurs; padded with label 0."""
    counts: NDArray[np.int64]
    """(texts, most) its rows with that label; 0 in the padding."""

    def __getitem__(self, some: NDArray | slice) -> "Copies":
        return Copies(self.labels[some], self.counts[some])


def copies_of(
    hashes: TextHashes, among: TextHashes, label: NDArray[np.integer], labels: int
) -> Copies:
    """How often some texts occur among rows, and under which labels.

    hashes: (texts,); among, label: (rows,) the rows' texts and labels, which contain the texts.
    """
    distinct, number = np.unique(hashes, return_inverse=True)
    index = np.searchsorted(distinct, among)
    there = index < len(distinct)
    there[there] = distinct[index[there]] == among[there]
    pairs, counts = np.unique(
        index[there] * labels + label[there].astype(np.int64), return_counts=True
    )
    text, of_label = pairs // labels, pairs % labels
    nth = np.arange(len(text)) - np.searchsorted(text, text)
    size = (len(distinct), int(nth.max(initial=0)) + 1)
    found = Copies(np.zeros(size, np.int64), np.zeros(size, np.int64))
    found.labels[text, nth], found.counts[text, nth] = of_label, counts
    return found[number]
