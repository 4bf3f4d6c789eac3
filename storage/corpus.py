"""Corpora: rows out of Parquet, CSV and JSON lines; a file, a folder or a glob, local or remote."""

import csv
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field

from raee.errors import InputError
from storage.faults import check_read_whole, in_words, may_pass, placed

_BATCH = 1_000
"""Rows of a Parquet file held as Python objects at a time."""

csv.field_size_limit(sys.maxsize)  # a text may be longer than the csv module's 131,072 characters


class CorpusSpec(BaseModel):
    """Where a corpus is and what its columns are called."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str = Field(
        description="File, folder or glob; .parquet, .csv, .jsonl (or .ndjson), the latter two "
        "also compressed; local or remote.",
    )
    id: str | None = Field(
        default=None, description="Column of the row's name; default: file name and row number."
    )
    text: str = Field(default="text", description="Column of the text.")
    label: str = Field(default="label", description="Column of the label.")


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus."""

    uri: str
    name: str
    """Its path below what all files have in common: unique within the corpus."""


@dataclass(frozen=True)
class Span:
    """Consecutive rows of one file."""

    file: CorpusFile
    start: int
    """Rows before the first one wanted, from 0."""
    rows: int
    mark_row: int = 0
    mark_offset: int = 0
    """A row at or before `start`, and the byte at which it begins (uncompressed)."""


class Record(NamedTuple):
    """One row as it stands in a file; a missing value is None."""

    row: int
    """From 1."""
    id: Any
    text: Any
    label: Any
    offset: int
    """The byte at which the row begins (uncompressed); 0 in Parquet, which is read by row."""
    fault: str | None = None
    """Why the row cannot be read, where it cannot."""


def corpus_files(uri: str) -> list[CorpusFile]:
    """The files of a corpus, in the order of their paths.

    Raises InputError where there is none, or a single file is of no known kind.
    """
    if not uri:
        raise InputError("corpus: its address is empty")
    try:
        # What has been written since must be seen: no listing is remembered.
        fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        if any(c in path for c in "*?[") and not fs.exists(path):
            paths = [p for p in fs.glob(path) if _format_of(p)]
        elif fs.isdir(path):
            paths = [p for p in fs.find(path) if _format_of(p)]
        else:
            fs.info(path)  # many a filesystem's `exists` says no where it could not find out
            if not _format_of(path):
                raise InputError(f"corpus {uri}: not one of {', '.join(_FORMATS)}")
            paths = [path]
    except InputError:
        raise
    except Exception as error:
        said = in_words(error, f"corpus {uri}")
        if said is None and isinstance(error, FileNotFoundError):
            said = InputError(f"corpus {uri}: there is no such file or folder")
        if said is None and isinstance(error, ValueError | ImportError | OSError):
            said = None if may_pass(error) else InputError(f"corpus {uri}: {error}")
        if said is None:
            raise
        raise said from error
    if not paths:
        raise InputError(f"corpus {uri}: no file there ends in {', '.join(_FORMATS)}")
    paths = sorted(paths)
    folders = [p.split("/")[:-1] for p in paths]
    shared = 0
    while all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
        shared += 1
    local = isinstance(fs, LocalFileSystem)
    return [
        CorpusFile(p if local else fs.unstrip_protocol(p), "/".join(p.split("/")[shared:]))
        for p in paths
    ]


def read_records(spec: CorpusSpec, span: Span, labelled: bool) -> Iterator[Record]:
    """The rows of a span, in order.

    labelled: whether the label column is read.  Raises InputError where the file lacks a column
    or cannot be read at all; a row that cannot is a Record with its fault.
    """
    columns = {"id": spec.id, "text": spec.text, "label": spec.label if labelled else None}
    reader = _READERS[_format_of(span.file.uri)]
    try:
        with _opened(span.file.uri) as file:
            yield from reader(file, span, columns)
    except InputError:
        raise
    except csv.Error as error:
        raise InputError(f"{span.file.uri}: no CSV: {_bare(error)}") from error
    except Exception as error:
        said = in_words(error, span.file.uri)
        if said is None and _is_of_the_content(error):
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            said = InputError(f"{span.file.uri} cannot be read: {reason}")
        said = said or placed(error, span.file.uri)
        if said is None:
            raise
        raise said from error


def _opened(uri: str) -> AbstractContextManager[IO[bytes]]:
    """A corpus file; what is compressed is read as if it were not."""
    if _format_of(uri) == ".parquet":
        fs, path = fsspec.url_to_fs(uri, use_listings_cache=False)
        # Columns lie apart: what is read ahead of one is nothing of the next.
        return fs.open(path, "rb", cache_type="none")
    return fsspec.open(uri, "rb", compression="infer", use_listings_cache=False)


def _is_of_the_content(error: Exception) -> bool:
    """Whether it is what stands in a file that cannot be read, not the disk or the network."""
    if isinstance(error, OSError):
        return error.errno is None and not may_pass(error)
    return isinstance(error, pa.ArrowException | EOFError | lzma.LZMAError | zlib.error)


def whole(file: CorpusFile) -> Span:
    """All rows of a file."""
    return Span(file, 0, sys.maxsize)


def _format_of(path: str) -> str:
    """The known ending of a path, compression left out; empty where there is none."""
    bare = path.removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz")
    ending = next((e for e in _FORMATS if bare.endswith(e)), "")
    return "" if bare != path and ending == ".parquet" else ending


_Columns = dict[str, str | None]


def _check_columns(span: Span, columns: _Columns, there: Sequence[str]) -> None:
    for column in columns.values():
        if column is not None and column not in there:
            raise InputError(
                f"{span.file.uri}: no column {column!r}; it has {', '.join(map(repr, there))}"
            )
        if column is not None and there.count(column) > 1:
            raise InputError(f"{span.file.uri}: {there.count(column)} columns are named {column!r}")


def _parquet(file: IO[bytes], span: Span, columns: _Columns) -> Iterator[Record]:
    parquet = pq.ParquetFile(file)
    _check_columns(span, columns, parquet.schema_arrow.names)
    groups, before = [], 0
    skip, end = span.start, span.start + span.rows
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if before + rows <= span.start:
            skip -= rows
        elif before < end:
            groups.append(group)
        before += rows
    wanted = sorted({c for c in columns.values() if c is not None})
    row = span.start - skip
    for batch in parquet.iter_batches(_BATCH, row_groups=groups, columns=wanted):
        if row + len(batch) > span.start and row < end:
            values = {
                name: [None] * len(batch) if column is None else _values(batch[column])
                for name, column in columns.items()
            }
            for i in range(max(0, span.start - row), min(len(batch), end - row)):
                yield Record(row + i + 1, values["id"][i], values["text"][i], values["label"][i], 0)
        row += len(batch)
        if row >= end:
            return  # a row group may go on for long


def _values(column: pa.Array) -> list[Any]:
    """A column's values; bytes that are no UTF-8 become lone surrogates, as in `_lines`."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if r is None else r.decode("utf-8", "surrogateescape") for r in raw]


def _lines(file: IO[bytes], span: Span) -> tuple[Iterator[str], Callable[[], int]]:
    """Lines from a span's mark on, and how far they are read.

    Only a newline ends a line; bytes that are no UTF-8 become lone surrogates, which a later check
    of the text finds.
    """
    offset = span.mark_offset
    file.seek(offset)

    def lines() -> Iterator[str]:
        nonlocal offset
        for line in file:
            start = 3 if offset == 0 and line.startswith(b"\xef\xbb\xbf") else 0
            offset += len(line)
            yield line[start:].decode("utf-8", "surrogateescape")
        check_read_whole(file, offset)

    return lines(), lambda: offset


def _csv(file: IO[bytes], span: Span, columns: _Columns) -> Iterator[Record]:
    header = next(filter(None, csv.reader(_lines(file, Span(span.file, 0, 0))[0])), None)
    if header is None:
        return
    _check_columns(span, columns, header)
    places = {name: None if c is None else header.index(c) for name, c in columns.items()}
    lines, offset = _lines(file, span)
    rows = csv.reader(lines, strict=True)
    if span.mark_offset == 0:
        next(filter(None, rows))
    row, end = span.mark_row, span.start + span.rows
    while row < end:
        begin = offset()
        try:
            values = next(rows, None)
        except csv.Error as error:
            raise InputError(f"{span.file.uri} row {row + 1}: no CSV: {_bare(error)}") from error
        if values is None:
            return
        if not values:
            continue  # a blank line between rows
        row += 1
        if row <= span.start:
            continue
        if len(values) != len(header):
            fault = f"{len(values)} fields where the header has {len(header)}"
            yield Record(row, None, None, None, begin, fault)
            continue
        fields = {name: None if i is None else values[i] for name, i in places.items()}
        yield Record(row, fields["id"], fields["text"], fields["label"], begin)


def _bare(error: csv.Error) -> str:
    """What is wrong, without the advice to programmers."""
    return str(error).partition(" - ")[0]


def _json_lines(file: IO[bytes], span: Span, columns: _Columns) -> Iterator[Record]:
    lines, offset = _lines(file, span)
    row, end = span.mark_row, span.start + span.rows
    begin = offset()
    for line in lines:
        if row >= end:
            return
        if line.strip():
            row += 1
        if line.strip() and row > span.start:
            yield _json_record(line, row, begin, span, columns)
        begin = offset()


def _json_record(line: str, row: int, begin: int, span: Span, columns: _Columns) -> Record:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return Record(row, None, None, None, begin, "no JSON")
    if not isinstance(values, dict):
        return Record(row, None, None, None, begin, "no JSON object")
    if row == 1:
        _check_columns(span, columns, list(values))
    get = {name: None if c is None else values.get(c) for name, c in columns.items()}
    return Record(row, get["id"], get["text"], get["label"], begin)


_Reader = Callable[[IO[bytes], Span, _Columns], Iterator[Record]]
_READERS: dict[str, _Reader] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
}
_FORMATS = tuple(_READERS)
