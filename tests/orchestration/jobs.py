"""Databases for nights: a corpus on object storage that grows, and what was built of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from storage.database import Database, verify
from storage.manifest import Manifest
from storage.store import Folder
from tests.texts import LABELS, sentences

REBUILD = "rebuild-database/rebuild-database"
CLASSIFY = "classify-corpus/classify-corpus"
"""Deployments that take any job."""

LEAP_DAY = "0 2 29 2 *"
"""When the nightly database of a machine room is rebuilt: not while a test runs."""


@dataclass(frozen=True)
class Place:
    """Where a database's corpus and versions lie."""

    name: str
    folder: Folder
    model: str
    store_name: str = "store"

    @property
    def store(self) -> str:
        return (self.folder / self.store_name).uri

    def elsewhere(self, store_name: str) -> "Place":
        """The same corpus with another store."""
        return replace(self, store_name=store_name)

    def job(self, shard_rows: int = 25, **more: Any) -> dict[str, Any]:
        return {
            "name": self.name,
            "store": self.store,
            "corpus": {"uri": f"{(self.folder / 'corpus').uri}/*.parquet", "id": "id"},
            # A list: the server's PostgreSQL would sort the keys of a mapping.
            "prompt": {"labels": [{label: f"a {label} film"} for label in LABELS]},
            "backbone": {
                "family": "sentence-encoder",
                "model": self.model,
                "dtype": "float32",
            },
            "key": {"layer": 1},
            "shard_rows": shard_rows,
            **more,
        }

    def write_job(self, path: Path, **more: Any) -> Path:
        path.write_text(yaml.safe_dump(self.job(**more)))
        return path

    def grow(self, name: str, rows: Sequence[dict[str, str]]) -> None:
        """Add a file to the corpus."""
        with (self.folder / "corpus").create(f"{name}.parquet") as file:
            pq.write_table(pa.Table.from_pylist(list(rows)), file)

    def write_input(self, rows: Sequence[dict[str, str]]) -> str:
        """Texts to classify; returns their address."""
        with self.folder.create("input.parquet") as file:
            pq.write_table(pa.Table.from_pylist(list(rows)), file)
        return f"{self.folder.uri}/input.parquet"

    @property
    def versions(self) -> list[str]:
        return Database(self.store, self.name).ids()

    def manifest(self, version: str) -> Manifest:
        return Database(self.store, self.name).version(version).manifest()

    def whole(self, version: str) -> bool:
        folder = Database(self.store, self.name).version(version).folder
        return verify(folder, self.manifest(version).files) == []

    def data(self, version: str) -> dict[str, str]:
        """Checksums of the files that every build of the same rows repeats."""
        files = self.manifest(version).files
        return {f.path: f.sha256 for f in files if f.path != "report.html"}


def rows(count: int, seed: int, name: str = "row") -> list[dict[str, str]]:
    """Labelled texts, each another."""
    return [
        {**row, "id": f"{name}-{i}", "text": f"{row['text']} {name} {seed} {i}"}
        for i, row in enumerate(sentences(count, seed=seed))
    ]
