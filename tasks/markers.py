"""Markers: a step's result is there when its marker is.  Written last, they are the whole state."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from storage.store import FileRecord, Folder


def marker(folder: Folder, step: str) -> dict[str, Any] | None:
    """What a step left when it was done; None where it is not."""
    name = f"{step}.json"
    return json.loads(folder.read(name)) if folder.exists(name) else None


def done(
    folder: Folder, step: str, files: Sequence[FileRecord], rows: int, begun: float, **more: Any
) -> None:
    """Say that a step is done: the files it wrote, its rows, and the seconds since `begun`.

    begun: of `time.monotonic`.
    """
    said = {
        "rows": rows,
        "seconds": time.monotonic() - begun,
        "files": [asdict(f) for f in files],
        **more,
    }
    with folder.create(f"{step}.json") as file:
        file.write(json.dumps(said).encode())


def rows_done(folder: Folder, step: str, numbers: int) -> int:
    """Rows of the numbered steps that are done."""
    there = set(folder.names())
    steps = [f"{step}-{n:05d}" for n in range(numbers)]
    found = [marker(folder, s) for s in steps if f"{s}.json" in there]
    return sum(int(f["rows"]) for f in found if f is not None)
