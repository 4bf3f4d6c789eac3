"""One look over a whole corpus before any work: what is usable, what is not, and how to split it.

It streams: of each row at most a digest is kept.
"""

import hashlib
import heapq
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from raee.errors import InputError
from storage.apart import check_none_is_ours
from storage.corpus import CorpusFile, CorpusSpec, Record, Span, corpus_files, read_records, whole

CENTRE_ROWS = 4_096
"""Rows over which a sentence encoder's centre is read (DESIGN.md section 2)."""

_MARK_EVERY = 500
"""Rows between two places at which reading can start without reading what stands before."""


class Row(NamedTuple):
    """A usable row."""

    id: str
    text: str
    label: str | None
    """A label name; None where the corpus is read without labels."""


class Reject(NamedTuple):
    """A row that cannot be used, and why."""

    id: str | None
    file: str
    row: int
    """From 1."""
    reason: str


Shard = list[Span]
"""Consecutive rows of a corpus: the unit of work."""


@dataclass
class Scan:
    """What a look over a corpus found."""

    files: list[CorpusFile]
    rows: int = 0
    """Usable ones."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows that are not, by reason."""
    labels: Counter[str] = field(default_factory=Counter)
    """Usable rows by label name."""
    characters: int = 0
    """Of all usable texts."""
    fingerprint: str = ""
    """SHA-256 of all rows' content in order, whatever files they stand in."""
    centre_texts: list[str] = field(default_factory=list)
    """Texts of the CENTRE_ROWS rows with the smallest text hashes."""
    _hashes: dict[str, "array[int]"] = field(default_factory=dict)
    """By label name a number of each usable row's text."""
    _marks: list[list[int]] = field(default_factory=list)
    """For each file the bytes at which rows 0, _MARK_EVERY, .. begin."""
    _file_rows: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows, usable or not."""
        return sum(self._file_rows)

    def sample(self, rows: int) -> dict[str, int] | None:
        """A sample of about so many labelled rows, in which labels have the shares they have here.

        By label name the largest `sample_number` of a text that is in the sample; None where all
        rows are.  The numbers are as good as random, and the same on every machine.
        """
        if rows >= self.rows:
            return None
        limits = {}
        for name, numbers in self._hashes.items():
            kept = max(1, round(rows * len(numbers) / self.rows))
            limits[name] = int(np.partition(np.frombuffer(numbers, np.uint64), kept - 1)[kept - 1])
        return limits

    def shards(self, rows: int) -> list[Shard]:
        """The corpus in shards of `rows` rows each, usable or not; a shard may span files."""
        shards: list[Shard] = [[]]
        room = rows
        for file, count, marks in zip(self.files, self._file_rows, self._marks, strict=True):
            start = 0
            while start < count:
                if room == 0:
                    shards.append([])
                    room = rows
                size = min(room, count - start)
                mark = start // _MARK_EVERY
                shards[-1].append(Span(file, start, size, mark * _MARK_EVERY, marks[mark]))
                start += size
                room -= size
        return shards


def text_hash(text: str) -> str:
    """A text's name: the first 128 bits of its SHA-256, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sample_number(text: str) -> int:
    """A text's number by which samples are drawn: other 64 bits of its SHA-256 than `text_hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[16:24], "big")


def scan(
    spec: CorpusSpec,
    labelled: bool,
    declared: Sequence[str] | None = None,
    max_reject_fraction: float = 1.0,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Scan:
    """Look at every row of a corpus.

    labelled: whether rows need a label and a name of their own.  declared: the labels that the
    prompt names, in order.  Raises InputError where the corpus is empty, lacks a column, has a
    label that the prompt does not, has two rows of one id or too many unusable rows, or is no
    corpus but what a build or a classification has written.
    """
    result = Scan(corpus_files(spec.uri))
    check_none_is_ours(spec.uri, result.files)
    content = hashlib.sha256()
    smallest: list[tuple[int, int, str]] = []  # of the texts' hashes, negated: a max-heap
    ids: list[bytes] = []
    first_reject: Reject | None = None
    for file in result.files:
        marks = [0]
        count = 0
        for record in read_records(spec, whole(file), labelled):
            if record.row % _MARK_EVERY == 1 and record.row > 1:
                marks.append(record.offset)
            count = record.row
            said = (_id(record.id), record.text, _label_name(record.label, None))
            content.update(json.dumps(said, default=str).encode())
            row = check(file, record, spec, labelled, declared)
            if isinstance(row, Reject):
                first_reject = first_reject or row
                result.rejected[row.reason] += 1
            else:
                result.rows += 1
                result.characters += len(row.text)
                if labelled:
                    result.labels[str(row.label)] += 1
                    number = sample_number(row.text)
                    result._hashes.setdefault(str(row.label), array("Q")).append(number)
                    key = -int(text_hash(row.text), 16)
                    heapq.heappush(smallest, (key, result.rows, row.text))
                    if len(smallest) > CENTRE_ROWS:
                        heapq.heappop(smallest)
                    if spec.id is not None:
                        ids.append(_digest(row.id))
            if count % _MARK_EVERY == 0:
                on_rows(_MARK_EVERY)
        result._marks.append(marks)
        result._file_rows.append(count)
        on_rows(count % _MARK_EVERY)
    _check_counts(spec, result, first_reject, max_reject_fraction)
    _check_ids(spec, result.files, ids, declared)
    result.fingerprint = content.hexdigest()
    result.centre_texts = [text for _, _, text in sorted(smallest, reverse=True)]
    return result


def read_shard(
    spec: CorpusSpec, shard: Shard, labelled: bool, declared: Sequence[str] | None
) -> tuple[list[Row], list[Reject]]:
    """The usable rows of a shard, in order, and the others."""
    rows: list[Row] = []
    rejects: list[Reject] = []
    for span in shard:
        for record in read_records(spec, span, labelled):
            row = check(span.file, record, spec, labelled, declared)
            if isinstance(row, Reject):
                rejects.append(row)
            else:
                rows.append(row)
    return rows, rejects


def check(
    file: CorpusFile,
    record: Record,
    spec: CorpusSpec,
    labelled: bool,
    declared: Sequence[str] | None,
) -> Row | Reject:
    """A record as a usable row, or why it is none.

    Raises InputError for a label that the prompt does not name.
    """
    name = f"{file.name}:{record.row}" if spec.id is None else _id(record.id)

    def reject(reason: str) -> Reject:
        return Reject(name, file.uri, record.row, reason)

    if record.fault is not None:
        return reject(record.fault)
    if name is None:
        return reject("no id")
    fault = _text_fault(record.text)
    if fault is not None:
        return reject(fault)
    if not labelled:
        return Row(name, record.text, None)
    label = _label_name(record.label, declared)
    if label is None:
        return reject("no label")
    if declared is not None and label not in declared:
        raise InputError(
            f"{file.uri} row {record.row}: label {label[:80]!r} is not in the prompt; "
            f"its labels are {', '.join(declared)}"
        )
    return Row(name, record.text, label)


def _id(value: object) -> str | None:
    if value is None or value == "":
        return None
    name = str(value)
    return None if _has_lone_surrogate(name) else name


def _text_fault(text: object) -> str | None:
    if text is None:
        return "text is null"
    if not isinstance(text, str):
        return f"text is no string but {type(text).__name__}"
    if not text:
        return "text is empty"
    if text.isspace():
        return "text is blank"
    return "text is not valid UTF-8" if _has_lone_surrogate(text) else None


def _label_name(value: object, declared: Sequence[str] | None) -> str | None:
    """A label's name; an integer counts in the prompt's order.  None where there is no label."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    name = "" if value is None else str(value).strip()
    if not name or _has_lone_surrogate(name):
        return None
    if declared is not None and name not in declared and name.isdecimal():
        return declared[int(name)] if len(name) < 10 and int(name) < len(declared) else name
    return name


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _check_counts(
    spec: CorpusSpec, found: Scan, first_reject: Reject | None, max_reject_fraction: float
) -> None:
    if found.total == 0:
        raise InputError(f"corpus {spec.uri} is empty")
    rejected = sum(found.rejected.values())
    if first_reject is not None and (
        rejected > max_reject_fraction * found.total or not found.rows
    ):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in found.rejected.most_common(5))
        raise InputError(
            f"corpus {spec.uri}: {rejected} of {found.total} rows cannot be used ({reasons}), more "
            f"than max_reject_fraction {max_reject_fraction:g} allows; the first is "
            f"{first_reject.file} row {first_reject.row}"
        )


def _check_ids(
    spec: CorpusSpec,
    files: Sequence[CorpusFile],
    digests: list[bytes],
    declared: Sequence[str] | None,
) -> None:
    ids = np.frombuffer(b"".join(digests), dtype=[("high", "u8"), ("low", "u8")])
    ids = ids[np.lexsort((ids["low"], ids["high"]))]
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if not len(twice):
        return
    seen: tuple[CorpusFile, Record] | None = None
    for file, record in _labelled_records(spec, files):
        row = check(file, record, spec, True, declared)
        if isinstance(row, Row) and _digest(row.id) == ids[twice[0]].tobytes():
            if seen is not None:
                first, before = seen
                raise InputError(
                    f"corpus {spec.uri}: id {row.id[:80]!r} stands twice, in {first.uri} row "
                    f"{before.row} and in {file.uri} row {record.row}; ids must be unique"
                )
            seen = file, record


def _labelled_records(
    spec: CorpusSpec, files: Sequence[CorpusFile]
) -> Iterator[tuple[CorpusFile, Record]]:
    for file in files:
        for record in read_records(spec, whole(file), True):
            yield file, record
