"""Commands that are killed with -9 at a random moment, and what must hold of a store then."""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from storage.database import Database, verify
from storage.store import Folder
from tests.flows.processes import Command, start
from tests.storage.corpora import write_corpus

NAME = "demo"

SHARD_ROWS = 8

LABELS = ("bad", "good", "odd")


@dataclass
class Site:
    """A store, corpora and jobs; everything else is looked up in them."""

    root: Path
    store: str
    model: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: Path = field(init=False)

    def __post_init__(self) -> None:
        self.cache = self.root / "cache"

    def write(self, name: str, rows: Sequence[dict[str, Any]]) -> str:
        """A corpus; returns its path."""
        return write_corpus(self.root / name, rows)

    def job(self, corpus: str) -> str:
        """The job on a corpus; returns its path."""
        path = self.root / f"{Path(corpus).stem}.yaml"
        job = {
            "name": NAME,
            "store": self.store,
            "corpus": {"uri": corpus, "id": "id"},
            "prompt": {"labels": {label: f"a {label} film" for label in LABELS}},
            "backbone": {
                "family": "sentence-encoder",
                "model": self.model,
                "dtype": "float32",
            },
            "key": {"layer": 1},
            "shard_rows": SHARD_ROWS,
        }
        path.write_text(yaml.safe_dump(job))
        return str(path)

    def start(self, *arguments: object, log: str = "said.txt") -> Command:
        """A command in a process of its own; what it says goes to a file of this name."""
        environment = {**os.environ, **self.environment, "RAEE_CACHE": str(self.cache)}
        return start(self.root / log, environment, *arguments)

    def run(self, *arguments: object) -> str:
        """A command that nobody disturbs; returns what it printed."""
        return self.start(*arguments).end()

    def killed(self, dice: random.Random, seconds: float, *arguments: object) -> bool:
        """A command that is killed at a random moment; returns whether it was still running."""
        command = self.start(*arguments)
        command.process.join(timeout=dice.uniform(0, seconds))
        running = command.process.is_alive()
        command.kill()
        return running

    def twin(self, store: str) -> "Site":
        """The same place with a copy of the store as it is now."""
        here = Folder(self.store)
        here.copy([f.name for f in here.files()], Folder(store))
        root = self.root / f"at-{Path(store).name}"
        root.mkdir()
        return replace(self, root=root, store=store)

    def check(self) -> None:
        """What holds at any moment: what is listed is whole, what aliases name is listed."""
        listed = Database(self.store, NAME).ids()
        for version in listed:
            manifest = Database(self.store, NAME).version(version).manifest()
            assert verify(Database(self.store, NAME).version(version).folder, manifest.files) == []
            assert verify(Database(self.store, NAME).folder, manifest.swept) == []
        for alias in Database(self.store, NAME).aliases():
            names = (Database(self.store, NAME).folder / f"aliases/{alias}").names()
            assert names == [f"{n:08d}.json" for n in range(1, len(names) + 1)]
            for change in Database(self.store, NAME).history(alias)[-1:]:
                assert change.version in listed


def data_of(store: str, version: str) -> dict[str, str]:
    """The checksums of a version's files that every build of the same rows repeats."""
    files = Database(store, NAME).version(version).manifest().files
    return {f.path: f.sha256 for f in files if f.path != "report.html"}


def predictions_of(output: str) -> dict[str, str]:
    """The checksums of a classification's parts."""
    folder = Folder(output)
    return {n: folder.record(n).sha256 for n in folder.names() if n.endswith(".parquet")}
