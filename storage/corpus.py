"""Corpora: rows out of Parquet, CSV and JSON lines; a file, a folder or a glob, local or remote."""

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import polars as pl
import pyarrow as pa
from fsspec import AbstractFileSystem
from pydantic import BaseModel, ConfigDict, Field, field_validator

from raee.errors import InputError
from storage.blocks import BLOCK, Dialect, Mark, Recoded
from storage.compressed import DAMAGED, decompressed
from storage.corpus_files import CorpusFile, file_system, format_of, stamp_of
from storage.csv_rows import count_csv, csv_batches, header_of
from storage.faults import in_words, may_pass, placed
from storage.json_rows import count_json, json_batches, json_names
from storage.looks import advice
from storage.parquet_rows import count_parquet, parquet_batches, parquet_names
from storage.rows import Batch, Columns
from storage.values import Role

_UTF_8 = "utf-8"


class CorpusSpec(BaseModel):
    """Where a corpus is and what its columns are called."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str = Field(
        description="File, folder or glob; .parquet, .csv, .tsv, .jsonl (or .ndjson, .json), all "
        "but the first also compressed (.gz, .bz2, .xz, .zst); local or remote.",
    )
    id: str | None = Field(
        default=None, description="Column of the row's name; default: file name and row number."
    )
    text: str = Field(default="text", description="Column of the text.")
    label: str = Field(default="label", description="Column of the label.")
    delimiter: str | None = Field(
        default=None,
        description="One character between the fields of a CSV file; default: a comma, and in .tsv "
        "a tab.",
    )
    quote: str | None = Field(
        default='"',
        description="The character around fields of a CSV file that have a delimiter or a line "
        "break in them; null: there is none.",
    )
    encoding: str = Field(
        default=_UTF_8, description="Encoding of CSV and JSON lines, such as utf-16 or cp1252."
    )

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_a_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or not value.isascii() or value in "\r\n\0"):
            raise ValueError(f'{value!r} is not one ASCII character; a tab is written "\\t"')
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            io.TextIOWrapper(io.BytesIO(), value)  # some codecs, such as rot13, encode no texts
            return codecs.lookup(value).name
        except LookupError:
            raise ValueError(f"there is no encoding {value!r}; try utf-8, utf-16, cp1252") from None

    def columns(self, labelled: bool) -> Columns:
        """The columns that are read.  labelled: whether the label's column is read, too."""
        names = {"id": self.id, "text": self.text, "label": self.label if labelled else None}
        return {cast(Role, role): name for role, name in names.items() if name is not None}

    def dialect(self, path: str) -> Dialect:
        """How a CSV file's rows are written."""
        return Dialect(self.delimiter or ("\t" if format_of(path) == ".tsv" else ","), self.quote)


@dataclass(frozen=True)
class Span:
    """Consecutive rows of one file."""

    file: CorpusFile
    start: int
    """Rows before the first one wanted, from 0."""
    rows: int
    mark: Mark = (0, 0)
    """A mark at or before `start`."""
    end: int | None = None
    """A byte at which a row after the last one wanted begins; None for the file's end."""


@dataclass(frozen=True)
class Counted:
    """How many rows a file has, and where reading can begin."""

    rows: int
    marks: list[Mark]
    """Marks, ascending; none in Parquet."""


def whole(file: CorpusFile) -> Span:
    """All rows of a file."""
    return Span(file, 0, sys.maxsize)


def read_batches(spec: CorpusSpec, span: Span, labelled: bool) -> Iterator[Batch]:
    """The rows of a span, in order.

    labelled: whether the label column is read.  Raises InputError if the file lacks a column,
    cannot be read at all, or has changed since it was listed; a row that cannot be used has its
    fault.
    """
    columns, file, end = spec.columns(labelled), span.file, span.start + span.rows
    given = _given(file, columns)
    stop = span.end if spec.encoding == _UTF_8 else None  # otherwise nobody knows where that is
    with _opened(spec, file) as opened:
        if format_of(file.uri) == ".parquet":
            batches = parquet_batches(opened, file.uri, columns, given, span.start, end)
        elif format_of(file.uri) in (".csv", ".tsv"):
            dialect = spec.dialect(file.uri)
            batches = csv_batches(opened, file.uri, columns, given, dialect, span.mark, stop)
        else:
            batches = json_batches(opened, file.uri, columns, given, span.mark, stop)
        for batch in batches:
            if batch.before >= end:
                break
            first, after = max(span.start - batch.before, 0), end - batch.before
            frame = batch.frame[first : min(after, len(batch))]
            if len(frame):
                values = [
                    pl.when(pl.col(role).fill_null("") == "")
                    .then(pl.lit(value, pl.String))
                    .otherwise(role)
                    .alias(role)
                    for role, value in given.items()
                ]
                yield Batch(batch.before + first, batch.marks, frame.with_columns(values))
            if after <= len(batch):
                break


def count_rows(spec: CorpusSpec, file: CorpusFile) -> Counted:
    """Count a file's rows without checking them.

    Raises InputError as `read_batches` does.
    """
    columns = spec.columns(False)
    given = _given(file, columns)
    # The reader of the file checks whether it has changed: asking here would take time.
    with _opened(spec, replace(file, stamp="")) as opened:
        if format_of(file.uri) == ".parquet":
            return Counted(count_parquet(opened, file.uri, columns, given), [])
        if format_of(file.uri) in (".csv", ".tsv"):
            marks = list(count_csv(opened, file.uri, columns, given, spec.dialect(file.uri)))
        else:
            marks = list(count_json(opened, file.uri, columns, given))
        return Counted(marks.pop()[0], marks)


def column_names(spec: CorpusSpec, file: CorpusFile) -> list[str]:
    """The columns of a file, in order, and those that its folders' names give it.

    Of JSON lines they are the keys of the first objects.  Raises InputError if the file cannot be
    read.
    """
    with _opened(spec, file) as opened:
        if format_of(file.uri) == ".parquet":
            names = parquet_names(opened)
        elif format_of(file.uri) in (".csv", ".tsv"):
            names, _ = header_of(opened, file.uri, spec.dialect(file.uri))
        else:
            names = json_names(opened, file.uri)
    return names + [name for name in file.folders if name not in names]


def first_bytes(file: CorpusFile, size: int) -> bytes:
    """What a file begins with, decompressed.  Raises InputError if it cannot be read."""
    with _opened(CorpusSpec(uri=file.uri), file) as opened:
        return bytes(opened.read(size))


def _given(file: CorpusFile, columns: Columns) -> dict[Role, str | None]:
    """The values that a file's folders' names give its rows, if the rows have no such column."""
    return {role: file.folders[name] for role, name in columns.items() if name in file.folders}


@contextmanager
def _opened(spec: CorpusSpec, file: CorpusFile) -> Iterator[Any]:
    """A corpus file, as if it were not compressed and in UTF-8.

    An error in reading it becomes one line; that the file has changed comes before anything else.
    """
    fs, path = file_system(file.uri)
    try:
        with ExitStack() as stack:
            if format_of(file.uri) == ".parquet":
                # Columns lie apart: reading ahead in one does not help with the next.
                yield stack.enter_context(fs.open(path, "rb", cache_type="none"))
            else:
                # A store reads so far ahead; the default is 50 MB, of which a shard may need one.
                opened = stack.enter_context(fs.open(path, "rb", block_size=BLOCK))
                opened = stack.enter_context(decompressed(opened, path))
                yield opened if spec.encoding == _UTF_8 else Recoded(opened, spec.encoding)
        change = _change(fs, path, file)
    except Exception as error:
        raised = in_words(error, file.uri)
        if raised is None:
            with suppress(Exception):  # the server may be what fails
                raised = _change(fs, path, file)
        raise raised or _in_words(error, spec, file) from error
    if change is not None:
        raise change


def _change(fs: AbstractFileSystem, path: str, file: CorpusFile) -> InputError | None:
    """The error to raise if a file is no longer the one that was listed."""
    if not file.stamp:
        return None
    try:
        now = stamp_of(fs, path)
    except FileNotFoundError:
        now = "not there"
    if now == file.stamp:
        return None
    return InputError(
        f"{file.uri} has changed since it was looked at (it was {file.stamp}, and is {now}); "
        "start again when it is whole"
    )


def _in_words(error: Exception, spec: CorpusSpec, file: CorpusFile) -> Exception:
    """The error to raise for one that did not come from a server."""
    raised = error
    if isinstance(error, UnicodeError):
        return InputError(f"{file.uri} is not in {spec.encoding}: {error.args[-1]}")
    if _is_of_the_content(error):
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raised = InputError(f"{file.uri} cannot be read: {reason}")
    if isinstance(raised, InputError):
        delimiter = spec.dialect(file.uri).delimiter
        seen = advice(file.uri, delimiter, no_column="no column" in str(raised))
        return InputError(f"{raised}; {seen}") if seen else raised
    return placed(error, file.uri) or error


def _is_of_the_content(error: Exception) -> bool:
    """Whether a file's content cannot be read, not the disk or the network."""
    if isinstance(error, OSError):
        return error.errno is None and not may_pass(error)
    return isinstance(error, (pa.ArrowException, *DAMAGED))
