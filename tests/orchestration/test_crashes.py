"""What is killed, stopped or cancelled in the middle: nothing is lost, nothing runs for ever."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.orchestrator.crashes import TAG, register
from tests.orchestration.jobs import REBUILD, rows
from tests.orchestration.site import until

_WORKERS = {"chunk_seconds": 120, "silent_seconds": 30}

_SOON = timedelta(seconds=10)
"""Prefect looks out for nothing sooner."""

_ROWS = 240
_SHARD_ROWS = 20


def _sweeping(site, place):
    """Once some shards of a sweep are done and others are not."""

    def look():
        names = [f.name for f in (place.folder / "store").files()]
        done = [n for n in names if "/shard-" in n and n.endswith(".json")]
        return len(done) >= 2 or None

    until(240, "shards are swept", look)
    assert place.versions == []


@pytest.mark.timeout(600)
def test_machines_lose_their_power_and_the_flow_finishes_with_the_same_bytes(site, place, tmp_path):
    place.grow("day-1", rows(1_200, seed=5))
    job = place.job(shard_rows=40)  # chunks of seconds, to strike in the middle of one
    run = site.run(REBUILD, {"job": job, "workers": _WORKERS})
    _sweeping(site, place)
    sweeping = {"parent_flow_run_id": {"any_": [run]}, "state": {"type": {"any_": ["RUNNING"]}}}

    def struck():
        """A chunk in the middle of its work, and its worker."""
        chunks = (chunk["id"] for chunk in site.runs(**sweeping))
        return next(((c, w) for c in chunks if (w := site.freeze_worker_of(c))), None)

    chunk, worker = until(60, "a chunk runs beside the flow", struck)
    killed = datetime.now(UTC)
    for dead in (worker, site.worker_of(run)):
        site.kill_worker(dead)
    assert {site.state(dead)["type"] for dead in (run, chunk)} == {"RUNNING"}

    twin = place.elsewhere("twin")  # while the server waits for a sign of life
    undisturbed = site.raee("build", twin.write_job(tmp_path / "job.yaml", shard_rows=40))
    assert undisturbed.returncode == 0, undisturbed.stderr
    done = "what crashed is run again and finishes"
    until(210, done, lambda: site.state(run)["type"] == "COMPLETED")

    for dead in (run, chunk):
        states = site.ask("GET", f"flow_run_states/?flow_run_id={dead}")
        crashed = [s for s in states if s["type"] == "CRASHED"]
        assert crashed, (dead, [s["name"] for s in states])
        found = datetime.fromisoformat(crashed[0]["timestamp"].replace("Z", "+00:00"))
        assert (found - killed).total_seconds() < 105
    (version,) = place.versions
    assert place.whole(version)
    (other,) = twin.versions
    assert place.data(version) == twin.data(other)


@pytest.mark.timeout(600)
def test_a_server_that_goes_away_and_comes_back_disturbs_no_sweep(site, place):
    site.have_workers("gpu", 2)
    place.grow("day-1", rows(_ROWS, seed=6))
    job = place.job(shard_rows=_SHARD_ROWS)
    run = site.run(REBUILD, {"job": job, "workers": _WORKERS})
    _sweeping(site, place)
    site.stop_server()
    time.sleep(5)
    site.start_server()

    state = site.ended(run)

    if state["type"] != "COMPLETED":
        assert state["message"], "it says what happened"
        site.completed(site.run(REBUILD, {"job": job, "workers": _WORKERS}))
    (version,) = place.versions
    assert place.whole(version)


@pytest.mark.timeout(600)
def test_cancelling_stops_the_chunks_leaves_no_version_and_the_next_run_goes_on(site, place):
    site.have_workers("gpu", 2)
    place.grow("day-1", rows(_ROWS, seed=7))
    parameters = {"job": place.job(shard_rows=_SHARD_ROWS), "workers": _WORKERS}
    run = site.run(REBUILD, parameters)
    _sweeping(site, place)
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    site.ask("POST", f"flow_runs/{run}/set_state", body)

    children = {"parent_flow_run_id": {"any_": [run]}}
    assert site.ended(run, 30)["type"] == "CANCELLED"
    until(
        30,
        "the chunks have ended",
        lambda: all(
            r["state"]["type"] not in ("RUNNING", "PENDING", "SCHEDULED", "CANCELLING")
            for r in site.runs(**children)
        ),
    )
    assert place.versions == []
    before = [f.name for f in (place.folder / "store").files() if "/shard-" in f.name]
    assert before, "what was swept is there"

    site.completed(site.run(REBUILD, parameters))

    (version,) = place.versions
    assert place.whole(version)
    assert all(f"/{version}/" in name for name in before), "it went on with what was there"


def test_runs_that_never_begin_fall_silent_or_never_end_are_found(site):
    """Runs that only the server knows, and no process."""
    with temporary_settings({PREFECT_API_URL: f"{site.url}/api"}):
        try:
            register(silent=_SOON, stuck=_SOON)
            stuck = site.run_of_nobody([TAG], "PENDING")
            silent = site.run_of_nobody([TAG], "RUNNING")
            other = site.run_of_nobody(["others"], "RUNNING")
            for run, why in ((stuck, "It did not begin within 0:00:10"), (silent, "No heartbeat")):
                until(60, "it has crashed", lambda run=run: site.state(run)["type"] == "CRASHED")
                assert site.state(run)["message"].startswith(why)
            register(overdue=_SOON)
            overdue = site.run_of_nobody([TAG], "RUNNING")
            gone = ("CANCELLING", "CANCELLED")
            until(60, "it is cancelled", lambda: site.state(overdue)["type"] in gone)
            assert site.state(other)["type"] == "RUNNING", "it is not ours"
        finally:
            register()
    for run in (overdue, other):
        site.ask("DELETE", f"flow_runs/{run}")
