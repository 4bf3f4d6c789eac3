"""A classification that is spread over workers, and whether each row came out once."""

from typing import Any

import pyarrow as pa

from storage.parquet import read_table
from storage.store import Folder
from tests.orchestration.jobs import CLASSIFY, REBUILD, Place, rows
from tests.orchestration.site import Site

_WAITING = 8 + 4
"""Runs that may wait at one time; those of four workers may have been taken and not begun."""


def fan_out(site: Site, place: Place, count: int) -> float:
    """Classify in so many chunks, check what comes out; returns the bytes that a chunk's run takes.

    Bytes of the server's database.
    """
    place.grow("day-1", rows(60, seed=8))
    site.completed(site.run(REBUILD, {"job": place.job(), "workers": None}))
    before = site.database_bytes
    asked = rows(2 * count, seed=9, name="asked")
    output = f"{place.folder.uri}/out"
    parameters = {
        "job": place.job(shard_rows=2),
        "input": place.write_input(asked),
        "output": output,
        "workers": {"chunk_seconds": 0.001},
    }
    run = site.run(CLASSIFY, parameters)
    site.completed(run, 560)
    chunks = site.runs(parent_flow_run_id={"any_": [run]})
    assert len(chunks) == count
    assert {r["state"]["type"] for r in chunks} == {"COMPLETED"}
    assert max(_waiting(chunks, run["created"]) for run in chunks) <= _WAITING
    folder = Folder(output)
    parts = sorted(n for n in folder.names() if n.endswith(".parquet"))
    assert len(parts) == count
    found = pa.concat_tables([read_table(folder, part, ["id"]) for part in parts])
    assert found["id"].to_pylist() == [row["id"] for row in asked]
    grown = (site.database_bytes - before) / count
    assert 0 < grown < 500_000
    return grown


def _waiting(runs: list[dict[str, Any]], moment: str) -> int:
    """How many of them had been made at a moment, and had not begun."""
    return sum(run["created"] <= moment < run["start_time"] for run in runs)
