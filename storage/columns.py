"""A look at a corpus that nobody has described yet: how it is written, what its columns hold.

It reads the beginnings of some files, however large the corpus is: a look answers in seconds.
"""

import codecs
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import polars as pl

from raee.errors import InputError, is_unicode
from storage.checked_rows import by_reason, check_batch
from storage.corpus import CorpusSpec, Span, column_names, first_bytes, read_batches, whole
from storage.corpus_files import CorpusFile, format_of
from storage.scan import files_of
from storage.values import NO_UTF_8

_MOST_FILES = 16
"""Files that are looked at: the first, the last, and others between them."""

_MOST_ROWS = 50_000
"""Rows that are looked at, of all files together."""

_MOST_BLOCKS = 256
"""Blocks of 2 MB that are read in all: every column is a pass of its own."""

_AT_ONCE = 16
"""Columns that are read at one time: most of it is waiting for a remote store."""

_DELIMITERS = (";", "\t", "|", ",")

_TRIED_ROWS = 1_000
"""Rows on which another delimiter is tried."""

_FIT = 0.9
"""Share of them that must have as many fields as the header."""

_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""By what a file begins with; UTF-32's begins with UTF-16's."""

_LONGEST = 200
"""Characters of a value that is kept; of a longer one its hash."""

_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
_WHOLE = r"^[-+]?\d+$"
_TIME = r"^(\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{2,4})([T ,]|$)"
_WORDS = r"\pL.*\s|\s.*\pL"


@dataclass(frozen=True)
class Column:
    """What a column holds, as far as it was looked at; a value that is missing or blank is none."""

    name: str
    values: int
    """Rows that have one."""
    different: int
    """Different values."""
    mean_characters: float
    strings: float
    """Share of the values that can be a text: strings, no numbers of Parquet or JSON."""
    words: float
    """Share of the values with letters and with white space inside."""
    numbers: float
    """Share of the values that are written as a number."""
    whole: float
    """Share of the values that are written as a whole number."""
    times: float
    """Share of the values that are written as a date, with or without a time."""
    broken: float
    """Share of the rows whose value is not valid UTF-8."""


@dataclass(frozen=True)
class Look:
    """What a look at a corpus found."""

    spec: CorpusSpec
    """Its address, delimiter, quote and encoding; no columns yet."""
    spans: tuple[Span, ...]
    """The rows that were looked at."""
    is_complete: bool
    """Whether these are all rows."""
    columns: tuple[Column, ...]
    """The columns that every file has, once."""
    repeated: tuple[str, ...]
    """Names that several columns of a file have."""
    broken: tuple[str, ...] = ()
    """Names of columns that are not valid UTF-8: no file can name them."""

    @property
    def rows(self) -> int:
        """Rows that were looked at."""
        return sum(span.rows for span in self.spans)


@dataclass(frozen=True)
class Usable:
    """What becomes of the rows of a look when some columns are chosen."""

    labels: Counter[str]
    """Usable rows by label."""
    rejected: Counter[str]
    """Other rows by reason."""


def look_at(uri: str) -> Look:
    """Look at a corpus: its first rows, of some of its files if there are many.

    Raises InputError if there is no file, one that cannot be read, or no row.
    """
    every = files_of(CorpusSpec(uri=uri))
    files = _some(every)
    spec = _dialect_seen(_encoding_seen(CorpusSpec(uri=uri), files[0]), files[0])
    counts = [Counter(column_names(spec, file)) for file in files]
    if not any(counts):
        raise InputError(f"corpus {uri} is empty")
    names = [
        name for name in counts[0] if is_unicode(name) and all(count[name] == 1 for count in counts)
    ]
    if not names:
        raise InputError(f"corpus {uri}: its files have no column in common; name some of them")
    extents = [_extent(_asking(spec, names[0]), file, len(files), len(names)) for file in files]
    spans = tuple(span for span, _ in extents)
    if not any(span.rows for span in spans):
        raise InputError(f"corpus {uri} is empty")
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        columns = tuple(threads.map(lambda name: _column(spec, spans, name), names))
    return Look(
        spec,
        spans,
        len(files) == len(every) and all(ended for _, ended in extents),
        columns,
        tuple(sorted({name for count in counts for name in count if count[name] > 1})),
        tuple(sorted({name for count in counts for name in count if not is_unicode(name)})),
    )


def usable_rows(spec: CorpusSpec, look: Look) -> Usable:
    """What a build would say of the rows of a look.

    spec: that of the look with columns chosen.  Raises InputError as `read_batches` does.
    """
    found = Usable(Counter(), Counter())
    for span in look.spans:
        for batch in read_batches(spec, span, True):
            checked = check_batch(batch, span.file, spec, True, None)
            found.labels.update(checked.usable["label"].to_list())
            found.rejected.update(by_reason(checked.rejects))
    return found


def _some(files: list[CorpusFile]) -> list[CorpusFile]:
    """At most _MOST_FILES of some files, evenly apart: the labels may lie in folders of theirs."""
    if len(files) <= _MOST_FILES:
        return files
    return [files[i * (len(files) - 1) // (_MOST_FILES - 1)] for i in range(_MOST_FILES)]


def _asking(spec: CorpusSpec, name: str) -> CorpusSpec:
    """A spec by which a column is read both as a text and as a label."""
    return spec.model_copy(update={"text": name, "label": name})


def _encoding_seen(spec: CorpusSpec, file: CorpusFile) -> CorpusSpec:
    if format_of(file.uri) == ".parquet":
        return spec
    begin = first_bytes(file, 4)
    seen = next((name for mark, name in _ENCODINGS.items() if begin.startswith(mark)), None)
    return spec if seen is None else spec.model_copy(update={"encoding": seen})


def _dialect_seen(spec: CorpusSpec, file: CorpusFile) -> CorpusSpec:
    """A spec with the delimiter and the quote by which a CSV file's rows are like its header."""
    if format_of(file.uri) not in (".csv", ".tsv"):
        return spec
    usual = spec.dialect(file.uri).delimiter
    best, most = spec, _fit(spec, file)
    for delimiter in (None, *(d for d in _DELIMITERS if d != usual)):
        for quote in (spec.quote, None):
            if most == 1.0:
                return best
            tried = spec.model_copy(update={"delimiter": delimiter, "quote": quote})
            fit = _fit(tried, file)
            if fit > max(most, _FIT):
                best, most = tried, fit
    return best


def _fit(spec: CorpusSpec, file: CorpusFile) -> float:
    """Share of a file's first rows with as many fields as its header; 0 if that has only one."""
    try:
        counts = Counter(column_names(spec, file))
        name = next((name for name, count in counts.items() if count == 1), None)
        if counts.total() - len(file.folders) < 2 or name is None:
            return 0.0
        span = Span(file, 0, _TRIED_ROWS)
        texts = [b.frame["text"] for b in read_batches(_asking(spec, name), span, False)]
    except InputError:
        return 0.0
    rows = sum(map(len, texts))
    return 1.0 - sum(text.null_count() for text in texts) / rows if rows else 1.0


def _extent(spec: CorpusSpec, file: CorpusFile, files: int, columns: int) -> tuple[Span, bool]:
    """The rows of a file that are looked at, and whether these are all.

    files, columns: how many there are to be looked at in all.
    """
    most, blocks = max(1, _MOST_ROWS // files), max(1, _MOST_BLOCKS // (files * columns))
    rows = 0
    for number, batch in enumerate(read_batches(spec, whole(file), False)):
        if rows > most or number == blocks:
            return Span(file, 0, min(rows, most)), False
        rows += len(batch)
    return Span(file, 0, min(rows, most)), rows <= most


def _column(spec: CorpusSpec, spans: tuple[Span, ...], name: str) -> Column:
    value = pl.col("label").str.strip_chars()
    long = value.str.len_chars() > _LONGEST
    read = [
        batch.frame.select(
            value=pl.when(long).then(value.hash().cast(pl.String)).otherwise(value),
            characters=value.str.len_chars(),
            is_string=pl.col("text").is_not_null(),
            is_words=value.str.contains(_WORDS),
            is_number=value.str.contains(_NUMBER),
            is_whole=value.str.contains(_WHOLE),
            is_time=value.str.contains(_TIME),
            is_broken=pl.col("fault").str.ends_with(NO_UTF_8).fill_null(False),
        )
        for span in spans
        for batch in read_batches(_asking(spec, name), span, True)
    ]
    rows = pl.concat(read)
    values = rows.filter(pl.col("value") != "")

    def mean(column: str) -> float:
        return float(values[column].cast(pl.Float64).mean() or 0)  # type: ignore[arg-type]

    return Column(
        name,
        len(values),
        values["value"].n_unique(),
        mean("characters"),
        mean("is_string"),
        mean("is_words"),
        mean("is_number"),
        mean("is_whole"),
        mean("is_time"),
        float(rows["is_broken"].mean() or 0),  # type: ignore[arg-type]
    )
