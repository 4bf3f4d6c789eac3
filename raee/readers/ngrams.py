"""N-grams of token ids: uni- and bigrams, counted and weighted by TF-IDF in sparse matrices.

An n-gram is a number: a token's id, or (first + 1) 2^32 + second for two tokens that follow each
other.  The special tokens that frame a text are tokens like others: they mark its begin and end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Codes = NDArray[np.int64]
"""(n-grams,) the numbers of n-grams, ascending."""


@dataclass(frozen=True)
class TokenIds:
    """The token ids of some rows, one row after the other."""

    ids: NDArray[np.int32]
    """(tokens,) of all rows."""
    starts: NDArray[np.int64]
    """(rows + 1,) the position at which each row begins, and the number of all tokens."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, rows: NDArray[np.int64]) -> "TokenIds":
        """Some of the rows."""
        return token_ids([self.ids[self.starts[i] : self.starts[i + 1]] for i in rows])


def token_ids(rows: Sequence[NDArray[np.int32]]) -> TokenIds:
    """Rows of token ids as one array."""
    starts = np.cumsum([0, *map(len, rows)])
    return TokenIds(np.concatenate([np.zeros(0, np.int32), *rows]), starts)


def tokens_of(code: int) -> list[int]:
    """The ids of an n-gram's tokens."""
    first, last = divmod(code, 1 << 32)
    return [last] if first == 0 else [first - 1, last]


def count_ngrams(rows: TokenIds) -> tuple[Codes, sp.csr_matrix]:
    """The n-grams that occur in some rows, and (rows, n-grams) how often."""
    row, code = _ngrams(rows)
    codes, column = np.unique(code, return_inverse=True)
    return codes, _counts(row, column, (len(rows), len(codes)))


def count_known(rows: TokenIds, codes: Codes) -> sp.csr_matrix:
    """(rows, n-grams) how often known n-grams occur in some rows; others are left out."""
    row, code = _ngrams(rows)
    if not len(codes):
        return sp.csr_matrix((len(rows), 0), dtype=np.float32)
    order = np.argsort(code)  # looked up in order, they take a third of the time
    column = np.empty(len(code), np.int64)
    column[order] = np.minimum(np.searchsorted(codes, code[order]), len(codes) - 1)
    there = codes[column] == code
    return _counts(row[there], column[there], (len(rows), len(codes)))


def idf_of(counts: sp.csr_matrix) -> NDArray[np.float32]:
    """(n-grams,) the inverse document frequencies: 1 + log((1 + rows) / (1 + rows with it)).

    counts: (rows, n-grams).
    """
    rows, columns = counts.shape
    with_it = np.bincount(counts.indices, minlength=columns)
    return (1 + np.log((1 + rows) / (1 + with_it))).astype(np.float32)


def weighted(counts: sp.csr_matrix, idf: NDArray[np.float32]) -> sp.csr_matrix:
    """TF-IDF: (rows, n-grams) unit vectors of (1 + log count) idf; a row without n-grams is 0."""
    values = (1 + np.log(counts.data)) * idf[counts.indices]
    rows = counts.shape[0]
    of_row = np.repeat(np.arange(rows), np.diff(counts.indptr))
    length = np.sqrt(np.bincount(of_row, np.square(values), minlength=rows))
    values = (values / length[of_row]).astype(np.float32)
    return sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def _ngrams(rows: TokenIds) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The n-grams of some rows as they occur: the row of each, and its number."""
    ids = rows.ids.astype(np.int64)
    row = np.repeat(np.arange(len(rows)), np.diff(rows.starts))
    follows = row[1:] == row[:-1]
    pairs = ((ids[:-1] + 1) << 32) | ids[1:]
    return np.concatenate([row, row[1:][follows]]), np.concatenate([ids, pairs[follows]])


def _counts(
    row: NDArray[np.int64], column: NDArray[np.int64], shape: tuple[int, int]
) -> sp.csr_matrix:
    ones = np.ones(len(row), np.float32)
    return sp.coo_matrix((ones, (row, column)), shape=shape).tocsr()  # it adds equal places up
