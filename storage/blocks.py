"""Blocks of whole rows out of CSV and JSON lines files, as they are read from the start on.

Counting quotes and newlines finds where rows begin, a block at once; other modules parse the rows.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from storage.faults import check_read_whole

BLOCK = 1 << 21
"""Bytes read at once: a block is about so long, or as long as a row."""

MARK_EVERY = 1_000
"""Rows between two marks, at which reading can begin."""

BOM = b"\xef\xbb\xbf"

_NEWLINE, _RETURN = 10, 13

Positions = NDArray[np.int64]

Mark = tuple[int, int]
"""Rows of a file before a row, and the byte at which it begins (uncompressed, in UTF-8)."""


@dataclass(frozen=True)
class Dialect:
    """How the rows of a CSV file are written."""

    delimiter: str = ","
    quote: str | None = '"'


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines of a file."""

    data: bytes
    offset: int
    """The byte of the file (uncompressed, in UTF-8) at which they begin."""
    starts: Positions
    """(rows,) where each row begins in `data`; blank lines are no rows."""
    ends: Positions
    """(rows,) where each row's line ends in `data`, its newline included."""
    fields: Positions | None = None
    """(rows,) how many fields each row has; None if the file is no CSV."""

    def __len__(self) -> int:
        return len(self.starts)

    def marks(self, before: int) -> list[Mark]:
        """Marks at which reading can begin.  before: rows of the file before the block."""
        rows = range(0, len(self), MARK_EVERY)
        offsets = (self.offset + self.starts[::MARK_EVERY]).tolist()
        return [(before + row, offset) for row, offset in zip(rows, offsets, strict=True)]

    def line(self, row: int) -> bytes:
        """The bytes of a row as it is written."""
        return self.data[self.starts[row] : self.ends[row]]

    def of(self, rows: NDArray[np.bool_]) -> bytes:
        """The bytes of some rows, one after the other.  rows: (rows,) True for those wanted."""
        positions = np.flatnonzero(rows)
        if not len(positions):
            return b""
        # Runs of rows that follow each other without a gap.
        begins = np.ones(len(positions), bool)
        begins[1:] = self.starts[positions[1:]] != self.ends[positions[:-1]]
        first = positions[begins]
        last = positions[np.append(np.flatnonzero(begins)[1:] - 1, len(positions) - 1)]
        runs = zip(self.starts[first].tolist(), self.ends[last].tolist(), strict=True)
        return b"".join(self.data[start:end] for start, end in runs)


@dataclass(frozen=True)
class Unstructured:
    """The rest of a CSV file, from a row on that breaks the rules of quoting."""

    data: bytes
    offset: int


def blocks(
    file: IO[bytes], offset: int, dialect: Dialect | None, end: int | None = None
) -> Iterator[Block | Unstructured]:
    """The blocks of a file from a row's first byte on, to its end or to another row's first byte.

    file: is at `offset`.  dialect: None for JSON lines, in which every newline ends a row.  If the
    quotes of a CSV file are not around whole fields, the last item is `Unstructured`: the rest is
    its `data` and whatever the file still has.  Raises OSError if the file ends before its size.
    """
    left, size = b"", BLOCK
    found: Block | None
    while True:
        most = size if end is None else min(size, max(end - offset - len(left), 0))
        read = file.read(most)
        data = left + read
        if offset == 0 and data.startswith(BOM):
            data, offset = data[len(BOM) :], len(BOM)
        last = len(read) == 0
        if last:
            if end is None:
                check_read_whole(file, offset + len(data))
            if not data:
                return
        found = (
            _lines(data, offset, last) if dialect is None else _rows(data, offset, last, dialect)
        )
        if found is None:
            yield Unstructured(data, offset)
            return
        used = len(found.data)
        if used:
            yield found
        left, offset = data[used:], offset + used
        # A row is longer than what was read: the next read is twice as long, so that none is
        # read often.
        size = BLOCK if used else max(BLOCK, len(left))
        if last:
            return


def _lines(data: bytes, offset: int, last: bool) -> Block:
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE) + 1
    if last and (not len(ends) or ends[-1] < len(data)):
        ends = np.append(ends, len(data))
    used = int(ends[-1]) if len(ends) else 0
    starts = np.concatenate([np.zeros(min(len(ends), 1), np.int64), ends[:-1]])
    rows = np.ones(len(starts), bool)
    for row in np.flatnonzero(text[starts] <= 32):  # white space, if nothing else follows
        rows[row] = bool(data[starts[row] : ends[row]].strip())
    return Block(data[:used], offset, starts[rows], ends[rows])


def _rows(data: bytes, offset: int, last: bool, dialect: Dialect) -> Block | None:
    """The whole rows at the start of some bytes; None if quotes break the rules (RFC 4180)."""
    text = np.frombuffer(data, np.uint8)
    delimiter = ord(dialect.delimiter)
    quotes = np.zeros(0, np.int64)
    if dialect.quote is not None and dialect.quote.encode() in data:
        quotes = np.flatnonzero(text == ord(dialect.quote))
        if not _are_around_fields(text, quotes, delimiter, last):
            return None
    ends = _outside(np.flatnonzero(text == _NEWLINE), quotes)
    if last and (not len(ends) or ends[-1] < len(data) - 1):
        if len(quotes) % 2:
            return None
        ends = np.append(ends, len(data))  # as if a newline were there
    used = min(int(ends[-1]) + 1, len(data)) if len(ends) else 0
    if b"\r" in data[:used]:
        returns = np.flatnonzero(text[:used] == _RETURN)
        after = text[np.minimum(returns + 1, len(data) - 1)]
        if len(_outside(returns[after != _NEWLINE], quotes)):
            return None
    starts = np.concatenate([np.zeros(min(len(ends), 1), np.int64), ends[:-1] + 1])
    length = ends - starts
    alone = length == 1
    alone[alone] = text[starts[alone]] == _RETURN
    rows = (length > 0) & ~alone
    delimiters = _outside(np.flatnonzero(text[:used] == delimiter), quotes)
    before = np.searchsorted(delimiters, ends)
    fields = np.diff(before, prepend=0) + 1
    ends = np.minimum(ends + 1, len(data))
    return Block(data[:used], offset, starts[rows], ends[rows], fields[rows])


def _are_around_fields(
    text: NDArray[np.uint8], quotes: Positions, delimiter: int, last: bool
) -> bool:
    """Whether each opening quote begins a field, and each closing one ends it or is doubled."""
    opening, closing = quotes[::2], quotes[1::2]
    before = text[np.maximum(opening - 1, 0)]
    begins = (opening == 0) | (before == delimiter) | (before == _NEWLINE)
    begins |= before == text[quotes[0]]  # the second of two: both mean one quote
    if not last:
        closing = closing[closing < len(text) - 1]  # the byte after it is not known yet
    after = text[np.minimum(closing + 1, len(text) - 1)]
    ends = (closing == len(text) - 1) | (after == delimiter) | (after == _NEWLINE)
    ends |= (after == _RETURN) | (after == text[quotes[0]])
    return bool(begins.all() and ends.all())


def _outside(positions: Positions, quotes: Positions) -> Positions:
    """The positions that are not between quotes."""
    if not len(quotes):
        return positions
    return positions[np.searchsorted(quotes, positions) % 2 == 0]


class Recoded:
    """A file in another encoding, read as if it were in UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(file, encoding, newline="")
        self._left = b""

    def read(self, size: int) -> bytes:
        """The bytes that follow in UTF-8, about so many; none at the end.

        Raises UnicodeDecodeError if the file is not in that encoding.
        """
        found, self._left = self._left, b""
        return found or self._text.read(size).encode()

    def seek(self, offset: int) -> None:
        """Go on from a byte: the file is read from its start, since nobody knows where it is."""
        self._text.seek(0)
        self._left = b""
        while offset and (found := self.read(BLOCK)):
            self._left = found[offset:]
            offset -= min(offset, len(found))
