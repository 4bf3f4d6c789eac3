"""A look over a whole corpus before any work: what is usable, what is not, and how to split it.

A labelled corpus is read once: labels, ids and the sample have to be known.  In an unlabelled
corpus, rows are only counted.
"""

import hashlib
import heapq
import logging
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raee.errors import InputError, cut, listed
from storage.apart import check_none_is_ours
from storage.blocks import Mark
from storage.checked_rows import by_reason, check_batch
from storage.corpus import CorpusSpec, Counted, Span, count_rows, read_batches, whole
from storage.corpus_files import CorpusFile, list_corpus
from storage.fingerprint import Fingerprint

logger = logging.getLogger("raee")

CENTRE_ROWS = 4_096
"""Rows over which a sentence encoder's centre is read (docs/method.md)."""

_SAMPLE, _CENTRE = 1, 2
"""Streams of numbers: the rows that judge are drawn apart from those that a centre is read over."""

_AT_ONCE = 16
"""Files that are counted at one time: most of the time goes into waiting for a remote store."""

_MEASURED_ROWS = 1_000
"""Rows whose mean length is taken for all rows', if not all are read."""

_SUSPECTS = 1_000
"""Hashes of ids that are looked up at once among all rows."""


Shard = list[Span]
"""Consecutive rows of a corpus: the unit of work."""


@dataclass
class Scan:
    """What a look over a corpus found."""

    files: list[CorpusFile]
    rows: int = 0
    """How many rows are usable; all rows of an unlabelled corpus."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason, how many rows are not usable."""
    labels: Counter[str] = field(default_factory=Counter)
    """By label name, how many usable rows there are."""
    mean_characters: float = 0.0
    """Mean length of the usable texts, in characters; in an unlabelled corpus, of the first."""
    fingerprint: str = ""
    """SHA-256 of all rows' content in order, whatever files they are in; for an unlabelled corpus,
    of its files' names and stamps."""
    centre_texts: list[str] = field(default_factory=list)
    """Texts of CENTRE_ROWS rows, drawn by their texts."""
    _numbers: dict[str, "array[int]"] = field(default_factory=dict)
    """By label name, a number of each usable row's text."""
    _counted: list[Counted] = field(default_factory=list)
    """The count of each file."""

    @property
    def total(self) -> int:
        """How many rows there are, usable or not."""
        return sum(counted.rows for counted in self._counted)

    def sample(self, rows: int, more: int = 0) -> dict[str, int] | None:
        """A sample of about so many labelled rows, in which labels keep their shares.

        It is given, by label name, as the largest of `sample_numbers` of a text in the sample; None
        if all rows are in it.  more: rows of each label beyond these.  The numbers are as good as
        random, and the same on every machine.
        """
        if rows >= self.rows:
            return None
        limits = {}
        for name, kept in self._numbers.items():
            wanted = min(len(kept), max(1, round(rows * len(kept) / self.rows)) + more)
            numbers = np.frombuffer(kept, np.uint32)
            numbers.partition(wanted - 1)  # in place, since their order means nothing
            limits[name] = int(numbers[wanted - 1])
        return limits

    def shards(self, rows: int) -> list[Shard]:
        """The corpus in shards of `rows` rows each, usable or not; a shard may span files."""
        shards: list[Shard] = [[]]
        room = rows
        for file, counted in zip(self.files, self._counted, strict=True):
            begins = [row for row, _ in counted.marks]
            start = 0
            while start < counted.rows:
                if room == 0:
                    shards.append([])
                    room = rows
                size = min(room, counted.rows - start)
                index = bisect_right(begins, start) - 1
                mark = (0, 0) if index < 0 else counted.marks[index]
                after = bisect_left(begins, start + size)
                end = counted.marks[after][1] if after < len(begins) else None
                shards[-1].append(Span(file, start, size, mark, end))
                start += size
                room -= size
        return shards


def text_hash(text: str) -> str:
    """The hash that names a text: the first 128 bits of its SHA-256, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sample_numbers(texts: pl.Series) -> NDArray[np.uint32]:
    """(rows,) a number for each text, as good as random, by which samples are drawn."""
    return _mixed(_checksums(texts), _SAMPLE)


def scan(
    spec: CorpusSpec,
    declared: Sequence[str] | None = None,
    max_reject_fraction: float = 1.0,
    on_rows: Callable[[int], None] = lambda rows: None,
    most_labels: int | None = None,
    on_usable: Callable[[pl.DataFrame], None] = lambda rows: None,
) -> Scan:
    """Look at every row of a labelled corpus.

    declared: the labels that the prompt names, in order.  on_rows is told of rows as they are
    read.  most_labels: how many a database holds.  on_usable is given the usable rows, with the
    columns text and label, as they are read.
    Raises InputError if the corpus is empty, lacks a column, has a label that the prompt does not,
    has two rows of one id, or has too many unusable rows or labels.
    """
    result = Scan(files_of(spec))
    content, centre, ids = Fingerprint(), _Smallest(CENTRE_ROWS), array("Q")
    first_reject = ""
    characters = 0
    for file in result.files:
        marks: list[Mark] = []
        count = 0
        for batch in read_batches(spec, whole(file), True):
            marks += batch.marks
            checked = check_batch(batch, file, spec, True, declared)
            content.add(batch.frame, checked.labels)
            if len(checked.rejects):
                if not first_reject:
                    first_reject = f"{file.uri} row {checked.rejects['row'][0]}"
                result.rejected.update(by_reason(checked.rejects))
            count += len(batch)
            usable = checked.usable
            characters += int(usable["text"].str.len_chars().sum())
            checksums = _checksums(usable["text"])
            centre.add(usable["text"], _mixed(checksums, _CENTRE))
            for name, numbers in _by_label(usable["label"], _mixed(checksums, _SAMPLE)):
                result._numbers.setdefault(name, array("I")).frombytes(numbers.tobytes())
            if most_labels is not None and len(result._numbers) > most_labels:
                raise InputError(
                    f"the corpus has more labels ({listed(result._numbers)}) than the "
                    f"{most_labels:,} that a database holds; does corpus.label name the labels' "
                    "column?"
                )
            if spec.id is not None:
                ids.frombytes(usable["id"].hash().to_numpy().tobytes())
            on_usable(usable)
            on_rows(len(batch))
        result._counted.append(Counted(count, marks))
    result.labels = Counter({name: len(kept) for name, kept in result._numbers.items()})
    result.rows = result.labels.total()
    result.mean_characters = characters / max(result.rows, 1)
    _check_counts(spec, result, first_reject, max_reject_fraction)
    _check_ids(spec, result.files, ids, declared)
    result.fingerprint = content.hex()
    result.centre_texts = centre.texts()
    return result


def count(spec: CorpusSpec, on_rows: Callable[[int], None] = lambda rows: None) -> Scan:
    """Count the rows of an unlabelled corpus without checking them.

    on_rows is told of rows as they are counted.  Raises InputError if the corpus is empty or lacks
    a column.
    """
    result = Scan(files_of(spec))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for counted in threads.map(lambda file: count_rows(spec, file), result.files):
            result._counted.append(counted)
            on_rows(counted.rows)
    result.rows = result.total
    if result.rows == 0:
        raise InputError(f"corpus {spec.uri} is empty")
    names = [[file.name, file.stamp] for file in result.files]
    result.fingerprint = hashlib.sha256(repr(names).encode()).hexdigest()
    first = next(f for f, n in zip(result.files, result._counted, strict=True) if n.rows)
    lengths = [
        batch.frame["text"].str.len_chars().mean()
        for batch in read_batches(spec, Span(first, 0, _MEASURED_ROWS), False)
    ]
    result.mean_characters = float(np.mean([x for x in lengths if x is not None] or [0.0]))
    return result


def read_shard(
    spec: CorpusSpec, shard: Shard, labelled: bool, declared: Sequence[str] | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The usable rows of a shard, in order, and the others, as `Checked` has them.

    Raises InputError if a file has fewer rows than were planned.
    """
    usable, rejects = [], []
    for span in shard:
        found = 0
        for batch in read_batches(spec, span, labelled):
            checked = check_batch(batch, span.file, spec, labelled, declared)
            usable.append(checked.usable)
            rejects.append(checked.rejects)
            found += len(batch)
        if found != span.rows:
            raise InputError(
                f"{span.file.uri} has {found:,} rows after row {span.start:,} where "
                f"{span.rows:,} were counted: it has changed since"
            )
    return pl.concat(usable), pl.concat(rejects)


def files_of(spec: CorpusSpec) -> list[CorpusFile]:
    """The files of a corpus that are read; a warning names the others.

    Raises InputError if there is none, or one that raee itself has written.
    """
    listing = list_corpus(spec.uri)
    check_none_is_ours(spec.uri, listing.files)
    if left_out := listing.left_out_in_words():
        logger.warning("corpus %s: files that are not read: %s", spec.uri, left_out)
    return listing.files


def _checksums(texts: pl.Series) -> NDArray[np.uint64]:
    """(rows,) the CRC-32 of each text: it only decides which rows are drawn."""
    return np.fromiter(map(crc32, texts.cast(pl.Binary).to_list()), np.uint64, len(texts))


def _mixed(numbers: NDArray[np.uint64], stream: int) -> NDArray[np.uint32]:
    """(rows,) numbers, mixed so that nothing of their order is left.

    The mix is splitmix64 (Steele and others, 2014).  stream: another one gives other numbers.
    """
    mixed = numbers + np.uint64(stream * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _by_label(
    labels: pl.Series, numbers: NDArray[np.uint32]
) -> Iterator[tuple[str, NDArray[np.uint32]]]:
    both = pl.DataFrame({"label": labels, "number": numbers})
    grouped = both.group_by("label", maintain_order=True).agg("number")
    for name, own in zip(grouped["label"], grouped["number"], strict=True):
        yield name, own.to_numpy()


class _Smallest:
    """The texts with the smallest numbers so far."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._kept: list[tuple[int, int, str]] = []
        self._limit = 2**32 - 1
        self._seen = 0

    def add(self, texts: pl.Series, numbers: NDArray[np.uint32]) -> None:
        """Add texts and their numbers, both (rows,)."""
        near = np.flatnonzero(numbers <= self._limit)
        positions = (self._seen + near).tolist()
        self._kept += zip(numbers[near].tolist(), positions, texts.gather(near), strict=True)
        self._seen += len(texts)
        if len(self._kept) > 2 * self._rows:
            self._kept = heapq.nsmallest(self._rows, self._kept)
            self._limit = self._kept[-1][0]

    def texts(self) -> list[str]:
        """The texts, in the order of their numbers."""
        return [text for *_, text in heapq.nsmallest(self._rows, self._kept)]


def _check_counts(
    spec: CorpusSpec, found: Scan, first_reject: str, max_reject_fraction: float
) -> None:
    if found.total == 0:
        raise InputError(f"corpus {spec.uri} is empty")
    check_rejected(spec.uri, found.rejected, found.total, max_reject_fraction, first_reject)


def check_all_there(uri: str, rows: int, rejected: Counter[str], total: int) -> None:
    """Raises InputError if not all of a corpus's rows were used or rejected."""
    if rows + rejected.total() != total:
        raise InputError(
            f"corpus {uri}: {total:,} rows were counted, but {rows:,} were read and "
            f"{rejected.total():,} rejected: it has changed meanwhile; start again"
        )


def check_rejected(
    uri: str, rejected: Counter[str], total: int, max_reject_fraction: float, first: str = ""
) -> None:
    """Raises InputError if more of a corpus's rows are unusable than may be, or all are.

    first: file and row of an unusable one, for the message.
    """
    rows = rejected.total()
    if rows and (rows > max_reject_fraction * total or rows == total):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in rejected.most_common(5))
        raise InputError(
            f"corpus {uri}: {rows} of {total} rows cannot be used ({reasons}), more "
            f"than max_reject_fraction {max_reject_fraction:g} allows"
            + (f"; the first is {first}" if first else "")
        )


def _check_ids(
    spec: CorpusSpec,
    files: Sequence[CorpusFile],
    hashes: "array[int]",
    declared: Sequence[str] | None,
) -> None:
    ids = np.frombuffer(hashes, np.uint64)
    ids.sort()  # in place: there may be a hundred million
    twice = np.unique(ids[1:][ids[1:] == ids[:-1]][:_SUSPECTS])
    if not len(twice):
        return
    seen: dict[str, str] = {}
    for file in files:
        for batch in read_batches(spec, whole(file), True):
            usable = check_batch(batch, file, spec, True, declared).usable
            suspects = usable.filter(pl.col("id").hash().is_in(twice.tolist()))
            for name, row in suspects.select("id", "row").iter_rows():
                here = f"{file.uri} row {row}"
                if name in seen:
                    raise InputError(
                        f"corpus {spec.uri}: id {cut(repr(name))} stands twice, in {seen[name]} "
                        f"and in {here}; ids must be unique"
                    )
                seen[name] = here
