"""Shards over workers; and flows that come too close to each other."""

import json
import os

import pyarrow as pa
import pytest

from storage.aliases import promote
from storage.parquet import read_table
from storage.store import Folder
from tests.orchestration.jobs import rows
from tests.orchestration.site import until

CHUNKS = int(os.environ.get("RAEE_CHUNKS", "30"))
"""`make chunks` has 200 of them."""

REBUILD = "rebuild-database/rebuild-database"
CLASSIFY = "classify-corpus/classify-corpus"


@pytest.mark.timeout(600)
def test_chunks_over_4_workers_lose_no_row_and_double_none(site, place, record_property):
    place.grow("day-1", rows(60, seed=8))
    site.completed(site.run(REBUILD, {"job": place.job(), "workers": None}))
    site.have_workers("gpu", 4)
    before = site.database_bytes
    asked = rows(2 * CHUNKS, seed=9, name="asked")
    output = f"{place.folder.uri}/out"
    run = site.run(
        CLASSIFY,
        {
            "job": place.job(shard_rows=2),
            "input": place.write_input(asked),
            "output": output,
            "workers": {"chunk_seconds": 0.001},
        },
    )
    site.completed(run, 560)
    chunks = site.runs(parent_flow_run_id={"any_": [run]})
    assert len(chunks) == CHUNKS
    assert {r["state"]["type"] for r in chunks} == {"COMPLETED"}
    folder = Folder(output)
    parts = sorted(n for n in folder.names() if n.endswith(".parquet"))
    assert len(parts) == CHUNKS
    found = pa.concat_tables([read_table(folder, part, ["id"]) for part in parts])
    assert found["id"].to_pylist() == [row["id"] for row in asked]
    grown = site.database_bytes - before
    record_property("server_bytes_per_chunk", grown / CHUNKS)
    assert 0 < grown / CHUNKS < 500_000


@pytest.mark.timeout(600)
def test_rebuilds_do_not_overlap_and_a_classification_keeps_its_version(site, place):
    site.have_workers("cpu", 2)
    place.grow("day-1", rows(150, seed=10))
    job = {"job": place.job()}
    first = site.run(REBUILD, job)
    until(60, "the first runs", lambda: site.state(first)["type"] == "RUNNING")
    second = site.run(REBUILD, job)
    waits = until(
        30, "the second waits", lambda: site.state(second)["name"] == "AwaitingConcurrencySlot"
    )
    assert waits
    site.completed(first)
    site.completed(second)
    assert len(place.versions) == 1, "nothing had changed"

    place.grow("day-2", rows(60, seed=11, name="new"))
    _on_collision(site, "CANCEL_NEW")
    third = site.run(REBUILD, job)
    until(60, "the third runs", lambda: site.state(third)["type"] == "RUNNING")
    fourth = site.run(REBUILD, job)
    assert site.ended(fourth)["type"] == "CANCELLED"
    site.completed(third)
    before, newest = place.versions
    _on_collision(site, "ENQUEUE")

    promote(place.store, place.name, before)
    output = f"{place.folder.uri}/out"
    parameters = {
        "job": place.job(shard_rows=50),
        "input": place.write_input(rows(400, seed=14)),
        "output": output,
        "workers": {"chunk_seconds": 60},
    }
    run = site.run(CLASSIFY, parameters)
    until(60, "it has begun", lambda: Folder(output).exists("_work/plan.json"))
    promoted = site.raee("promote", place.name, newest, "--store", place.store)
    assert promoted.returncode == 0, promoted.stderr
    assert not Folder(output).exists("manifest.json"), "it is still under way"
    site.completed(run)
    manifest = json.loads(Folder(output).read("manifest.json"))
    assert manifest["version"] == before


def _on_collision(site, strategy):
    id = site.deployment(REBUILD)["id"]
    change = {"concurrency_options": {"collision_strategy": strategy}, "concurrency_limit": 1}
    site.ask("PATCH", f"deployments/{id}", change)
