"""Versions whose rows and answers are made up: read and replayed without any model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raee.exits import parse_exits, swept_exits
from raee.neighbours.index import new_index
from storage.checked import FileRecord
from storage.database import Database, new_version_id
from storage.manifest import Manifest, index_path
from storage.parquet import list_column, part_name, write_table
from storage.scan import text_hash
from tasks.job import Job

NAME = "demo"
EXITS = tuple(str(e) for e in swept_exits(1, (0,)))


@dataclass(frozen=True)
class Made:
    """A row of a made-up version."""

    id: str
    text: str
    label: str
    head: str
    """The answer of `head@0`; `head@1` has the right one, of the first half of the labels."""
    read: bool = True
    """False if not all exits were read for the row."""


def job_of(store: str, policy: Any) -> Job:
    """The job of the made-up versions."""
    return Job.model_validate(
        {
            "name": NAME,
            "store": store,
            "corpus": {"uri": "train.csv"},
            "backbone": {"family": "sentence-encoder", "model": "nowhere"},
            "policy": policy,
        }
    )


def publish_made(
    store: str,
    rows: Sequence[Made],
    labels: Sequence[str] = ("no", "yes"),
    policy: Any = None,
    parts: int = 2,
    **changed: Any,
) -> str:
    """Publish a version of made-up rows; returns its id.

    Its policy is by default `fixed` at `head@0`.
    """
    job = job_of(store, policy or {"name": "fixed", "exit": "head@0"})
    version = new_version_id()
    folder = Database(store, NAME).version(version).folder
    label = np.array([labels.index(row.label) for row in rows], np.uint16)
    heads = np.array([labels.index(row.head) for row in rows], np.uint16)
    answers = np.stack([heads, label, label], axis=1)
    confidences = np.full(answers.shape, 0.75, np.float32)
    confidences[[not row.read for row in rows], 1] = np.nan
    keys = np.random.default_rng(0).normal(size=(len(rows), 3)).astype(np.float32)
    index = new_index(3)
    index.add(keys)
    files: list[FileRecord] = []
    for number, some in enumerate(np.array_split(np.arange(len(rows)), parts)):
        table = pa.table(
            {
                "id": pa.array([rows[i].id for i in some], pa.string()),
                "text_hash": pa.array([text_hash(rows[i].text) for i in some], pa.string()),
                "label": pa.array(label[some], pa.uint16()),
                "answers": list_column(answers[some]),
                "confidences": list_column(confidences[some]),
                "nearest_distance": pa.array(np.ones(len(some)), pa.float32()),
            }
        )
        files.append(write_table(folder, f"entries/{part_name(number)}", table))
    with folder.create(index_path(job.key.names[0])) as file:
        index.write(file.write)
    files.append(file.record(rows=len(index)))
    fields: dict[str, Any] = {
        "format": 2,
        "name": NAME,
        "id": version,
        "parent": None,
        "created_at": "2026-01-01T00:00:00Z",
        "job": job.model_dump(mode="json"),
        "prompt": {"template": None, "labels": list(labels), "words": list(labels)},
        "backbone": {},
        "key": {},
        "exits": [str(e) for e in parse_exits(EXITS)],
        "labels": list(labels),
        "rows": len(rows),
        "rejected": {},
        "files": [vars(file) for file in files],
        "corpus": {},
        "metrics": {},
        "policy": job.policy.model_dump(),
        "seconds": {},
        "code_version": "0",
        "libraries": {},
    }
    Database(store, NAME).version(version).publish(Manifest.model_validate(fields | changed))
    return version
