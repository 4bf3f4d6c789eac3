"""Corpus files of every kind, as users' own tools write them."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.corpus import CorpusSpec
from storage.scan import Reject, Row, Scan, read_shard, scan
from storage.store import Folder

FORMATS = ("parquet", "csv", "jsonl", "ndjson", "json")
COMPRESSED = ("csv.gz", "csv.bz2", "csv.xz", "jsonl.gz", "jsonl.bz2", "jsonl.xz")

_COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def write_corpus(path: Path, rows: Sequence[dict[str, Any]], row_group: int | None = None) -> str:
    """Write rows in the format that the path's ending names; returns the path as a string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    form, _, compression = path.name.partition(".")[2].partition(".")
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group)
        return str(path)
    data = _csv(rows) if form == "csv" else _json_lines(rows)
    path.write_bytes(_COMPRESS[compression](data) if compression else data)
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
    found = scan(spec, labelled, declared)
    rows: list[Row] = []
    rejects: list[Reject] = []
    for shard in found.shards(shard_rows):
        some, others = read_shard(spec, shard, labelled, declared)
        assert len(some) + len(others) <= shard_rows
        rows += some
        rejects += others
    return found, rows, rejects


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    # Every other line escaped, as some writers do and others do not.
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows)]
    return "".join(lines).encode()
