"""Shards over workers; and flows that come too close to each other."""

import json
import os

import pytest

from storage.database import Database
from storage.store import Folder
from tests.orchestration.fan_out import fan_out
from tests.orchestration.jobs import CLASSIFY, REBUILD, rows
from tests.orchestration.site import until

CHUNKS = int(os.environ.get("RAEE_CHUNKS", "20"))
"""`make chunks` has 200 of them, as the test on SQLite always does."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", ["postgresql"], indirect=True)
def test_chunks_over_4_workers_lose_no_row_and_double_none(site, place, record_property):
    """On SQLite there are more of them, on what `raee up` starts: see `test_up`."""
    site.have_workers("gpu", 4)
    record_property("server_bytes_per_chunk", fan_out(site, place, CHUNKS))


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

    Database(place.store, place.name).promote(before)
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
