"""Rows of CSV files: polars parses what follows the rules, and Python's csv what does not.

Both give the same rows if both can read a file.  Python's csv takes a file as it comes, row by row:
it finds the number of a row with bytes that are no UTF-8, and quotes may be inside fields.
"""

import csv
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import IO

import numpy as np
import polars as pl

from raee.errors import InputError
from storage.blocks import BLOCK, BOM, Block, Dialect, Mark, Unstructured, blocks
from storage.faults import check_read_whole
from storage.rows import Batch, Columns, batch_of_values, check_columns, frame_of
from storage.values import Role, column_of

csv.field_size_limit(sys.maxsize)  # a text may be longer than the csv module's 131,072 characters

_ROWS_AT_ONCE = 1_000
"""Rows that Python's reader gives at once; fewer if they are as long as a block."""

_HEADER = 1 << 16
"""Bytes read at first to find the header; more are read if it is longer."""


_AS_THEY_ARE = "corpus.quote: null takes quotes as they are"

_ADVICE = {
    "expected after": f"a quote in a quoted field is written twice; {_AS_THEY_ARE}",
    "unexpected end of data": f"a quoted field does not end; {_AS_THEY_ARE}",
    "new-line character": "lines end with \\n or \\r\\n; a field that has \\r in it is quoted",
}


def header_of(file: IO[bytes], uri: str, dialect: Dialect) -> tuple[list[str], int]:
    """The names of a file's columns, and the byte at which its rows begin; no names if it is empty.

    Raises InputError if the header is no CSV.
    """
    offset = 0

    def lines() -> Iterator[str]:
        nonlocal offset
        for line in _split(iter(lambda: file.read(_HEADER), b"")):
            begin, offset = offset, offset + len(line)
            yield _decoded(line, begin)

    try:
        found = next(filter(None, _reader(lines(), dialect)), None)
    except csv.Error as error:
        raise InputError(f"{uri}: no CSV: {_in_words(error)}") from error
    return found or [], offset


def csv_batches(
    file: IO[bytes],
    uri: str,
    columns: Columns,
    given: Collection[Role],
    dialect: Dialect,
    mark: Mark,
    end: int | None,
) -> Iterator[Batch]:
    """The rows of a file from a mark on, up to a byte at which a row begins.

    given: the roles whose column may be missing.  mark: byte 0 is the file's start.  Raises
    InputError if a column is missing, or a row is no CSV.
    """
    names, begin = header_of(file, uri, dialect)
    if not names:
        return
    check_columns(uri, columns, given, names)
    before, offset = mark
    offset = offset or begin
    file.seek(offset)
    for block in blocks(file, offset, dialect, end):
        if isinstance(block, Unstructured):
            lines = _lines(block.data, file, block.offset)
            yield from _by_hand(lines, uri, columns, names, dialect, before)
            return
        if not len(block):
            continue
        batch = _parsed(block, columns, names, dialect, before)
        if batch is not None:
            yield batch
        else:
            offsets = (block.offset + block.starts).tolist()
            lines = ((at, _decoded(block.line(i), 1)) for i, at in enumerate(offsets))
            yield from _by_hand(lines, uri, columns, names, dialect, before)
        before += len(block)


def count_csv(
    file: IO[bytes], uri: str, columns: Columns, given: Collection[Role], dialect: Dialect
) -> Iterator[Mark]:
    """The marks of a file, and at the end how many rows there are, with byte 0.

    Raises InputError as `csv_batches` does.
    """
    names, begin = header_of(file, uri, dialect)
    if not names:
        yield 0, 0
        return
    check_columns(uri, columns, given, names)
    file.seek(begin)
    before = 0
    for block in blocks(file, begin, dialect):
        if isinstance(block, Unstructured):
            lines = _lines(block.data, file, block.offset)
            for batch in _by_hand(lines, uri, columns, names, dialect, before):
                yield from batch.marks
                before += len(batch)
        else:
            yield from block.marks(before)
            before += len(block)
    yield before, 0


def _parsed(
    block: Block, columns: Columns, names: Sequence[str], dialect: Dialect, before: int
) -> Batch | None:
    """The rows of a block as polars reads them; None if it cannot."""
    assert block.fields is not None
    fits = block.fields == len(names)
    data = block.of(fits)
    if data.startswith(BOM):  # polars would remove it
        return None
    wanted = {role: names.index(name) for role, name in columns.items() if name in names}
    quote = dialect.quote if dialect.quote and dialect.quote.encode() in data else None
    scanned = pl.scan_csv(
        data,
        has_header=False,
        separator=dialect.delimiter,
        quote_char=quote,
        schema=dict.fromkeys(map(str, range(len(names))), pl.String),
        empty_string_is_null=False,
        raise_if_empty=False,
    )
    chosen = [pl.col(str(column)).alias(role) for role, column in wanted.items()]
    try:
        found = scanned.select(chosen).collect()
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError):
        return None
    if len(found) != fits.sum():
        return None
    read: dict[Role, pl.Series] = {role: found[role] for role in wanted}
    faults = None
    if not fits.all():
        positions = np.full(len(block), -1)
        positions[fits] = np.arange(len(found))
        order = pl.Series(positions).replace(-1, None)
        read = {role: values.gather(order) for role, values in read.items()}
        reasons = [None if n == len(names) else _ragged(n, names) for n in block.fields.tolist()]
        faults = pl.Series(reasons, dtype=pl.String)
    frame = frame_of({role: column_of(values, role) for role, values in read.items()}, len(block))
    if faults is not None:
        frame = frame.with_columns(fault=faults)
    return Batch(before, block.marks(before), frame)


def _by_hand(
    lines: Iterator[tuple[int, str]],
    uri: str,
    columns: Columns,
    names: Sequence[str],
    dialect: Dialect,
    before: int,
) -> Iterator[Batch]:
    """The rows of lines as Python's csv reads them.

    lines: each with the byte at which it begins; blank ones may be missing.
    """
    begin, at = -1, 0

    def taken() -> Iterator[str]:
        nonlocal begin, at
        for at, line in lines:
            begin = at if begin < 0 else begin
            yield line

    numbers = {role: names.index(name) for role, name in columns.items() if name in names}
    rows = filter(None, _reader(taken(), dialect))
    while True:
        begin, kept = -1, []
        try:
            for values in rows:
                kept.append(values)
                if len(kept) == _ROWS_AT_ONCE or at - begin >= BLOCK:
                    break
        except csv.Error as error:
            row = before + len(kept) + 1
            raise InputError(f"{uri} row {row}: no CSV: {_in_words(error)}") from error
        if not kept:
            return
        yield batch_of_values(
            before,
            [(before, begin)],
            [
                {role: values[number] for role, number in numbers.items()}
                if len(values) == len(names)
                else _ragged(len(values), names)
                for values in kept
            ],
        )
        before += len(kept)


def _reader(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    if dialect.quote is None:
        return csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)


def _lines(data: bytes, file: IO[bytes], offset: int) -> Iterator[tuple[int, str]]:
    """The lines of some bytes and of the rest of a file after them, and where each begins."""
    for line in _whole_lines(data, file, offset):
        yield offset, _decoded(line, offset)
        offset += len(line)


def _whole_lines(data: bytes, file: IO[bytes], offset: int) -> Iterator[bytes]:
    def read() -> Iterator[bytes]:
        end = offset + len(data)
        yield data
        while more := file.read(_HEADER):
            end += len(more)
            yield more
        check_read_whole(file, end)

    return _split(read())


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines of bytes that come in pieces; each is copied once, however long a line is."""
    pieces: list[bytes] = []
    for chunk in chunks:
        piece, *others = chunk.split(b"\n")
        pieces.append(piece)
        for other in others:
            yield b"".join(pieces) + b"\n"
            pieces = [other]
    if left := b"".join(pieces):
        yield left


def _decoded(line: bytes, offset: int) -> str:
    """A line; bytes that are no UTF-8 become lone surrogates, which are found later."""
    bare = line.removeprefix(BOM) if offset == 0 else line
    return bare.decode("utf-8", "surrogateescape")


def _ragged(fields: int, names: Sequence[str]) -> str:
    return f"{fields} fields where the header has {len(names)}"


def _in_words(error: csv.Error) -> str:
    """What is wrong; if the error has advice for programmers, advice for users replaces it."""
    message = str(error).partition(" - ")[0]
    for begin, advice in _ADVICE.items():
        if begin in message:
            return f"{message}; {advice}"
    return message
