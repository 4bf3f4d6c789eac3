"""Corpus files of every kind, as users' own tools write them."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from backports import zstd

from storage.corpus import CorpusSpec, Span, read_batches
from storage.scan import Scan, count, read_shard, scan
from storage.store import Folder

FORMATS = ("parquet", "csv", "tsv", "jsonl", "ndjson", "json")
COMPRESSED = (
    *("csv.gz", "csv.bz2", "csv.xz", "csv.zst"),
    *("jsonl.gz", "jsonl.bz2", "jsonl.xz", "jsonl.zst"),
)

COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


class Row(NamedTuple):
    """A usable row."""

    id: str
    text: str
    label: str | None


class Reject(NamedTuple):
    """A row that cannot be used."""

    id: str | None
    file: str
    row: int
    reason: str


def write_corpus(path: Path, rows: Sequence[dict[str, Any]], row_group: int | None = None) -> str:
    """Write rows in the format that the path's ending names; returns the path as a string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    form, _, compression = path.name.partition(".")[2].partition(".")
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group)
        return str(path)
    data = _csv(rows, form) if form in ("csv", "tsv") else _json_lines(rows)
    path.write_bytes(COMPRESS[compression](data) if compression else data)
    return str(path)


def uploaded(folder: Path, store: str) -> str:
    """The address of a copy, in a store, of a folder with all that is below it."""
    target = Folder(store) / "corpus"
    for path in folder.glob("**/*"):
        if path.is_file():
            with target.create(str(path.relative_to(folder))) as file:
                file.write(path.read_bytes())
    return target.uri


def split(rows: Sequence[Any], sizes: Sequence[int]) -> Iterator[Sequence[Any]]:
    """Rows in pieces of the given sizes, and a last one of what is left."""
    for size in sizes:
        yield rows[:size]
        rows = rows[size:]
    yield rows


def read_all(
    spec: CorpusSpec, shard_rows: int, labelled: bool = True, declared: Sequence[str] | None = None
) -> tuple[Scan, list[Row], list[Reject]]:
    """What a scan finds, and the usable rows and the others of all its shards."""
    found = scan(spec, declared) if labelled else count(spec)
    rows: list[Row] = []
    rejects: list[Reject] = []
    for shard in found.shards(shard_rows):
        some, others = read_shard(spec, shard, labelled, declared)
        assert len(some) + len(others) <= shard_rows
        rows += [Row(*row) for row in some.select("id", "text", "label").iter_rows()]
        rejects += [Reject(*row) for row in others.iter_rows()]
    return found, rows, rejects


def read_span(spec: CorpusSpec, span: Span, labelled: bool) -> list[tuple[int, str | None]]:
    """Number and text of each row of a span."""
    return [
        (batch.before + i, text)
        for batch in read_batches(spec, span, labelled)
        for i, text in enumerate(batch.frame["text"], 1)
    ]


def _csv(rows: Sequence[dict[str, Any]], form: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if form == "tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    # Every other line escaped, as some writers do and others do not.
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows)]
    return "".join(lines).encode()
