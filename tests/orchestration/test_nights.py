"""Schedules, and what the orchestrator's UI then shows."""

import json
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed
from typing import Any

import pytest

from storage.database import Database
from tests.orchestration import browser
from tests.orchestration.jobs import LEAP_DAY, rows
from tests.orchestration.site import TERMINAL, until

ROWS = 100

_AHEAD_SECONDS = 8
"""How long before a schedule's moment it is made: the scheduler looks every 5 s."""


def _fires(site, deployment: str, **more) -> str:
    """A schedule that fires once, in a moment; returns the flow run's id."""
    id = site.deployment(deployment)["id"]
    # The next of its moments is a day later: what is waited for is this one and no other.
    moment = datetime.now(UTC) + timedelta(seconds=_AHEAD_SECONDS)
    when = {"interval": 24 * 3600, "anchor_date": moment.isoformat()}
    body = [{"active": True, "schedule": when, **more}]
    schedule = site.ask("POST", f"deployments/{id}/schedules", body)[0]["id"]
    begun = {
        "deployment_id": {"any_": [id]},
        "expected_start_time": {
            "after_": (moment - timedelta(seconds=1)).isoformat(),
            "before_": (moment + timedelta(seconds=1)).isoformat(),
        },
        "state": {"type": {"any_": ["RUNNING", *TERMINAL]}},
    }
    (run,) = until(90, "the schedule fires", lambda: site.runs(**begun))

    def pause() -> bool:
        # Again where the scheduler was about to write what it had planned before.
        _set_active(site, deployment, schedule, False)
        return not _ahead(site, id)

    until(30, "a paused schedule has nothing ahead", pause)
    return run["id"]


def _ahead(site, id: str) -> list[dict[str, Any]]:
    """The runs of a deployment that have yet to begin."""
    waiting = {"name": {"any_": ["Scheduled", "Late"]}}
    return site.runs(deployment_id={"any_": [id]}, state=waiting)


def _set_active(site, deployment: str, schedule: str, active: bool) -> None:
    id = site.deployment(deployment)["id"]
    site.ask("PATCH", f"deployments/{id}/schedules/{schedule}", {"active": active})


@pytest.mark.timeout(600)
def test_a_schedule_rebuilds_promotes_and_classifies_with_what_is_newest(
    site, nightly, tmp_path, request, subtests
):
    nightly.grow("day-1", rows(ROWS, seed=1))
    rebuild = f"rebuild-database/{nightly.name}"
    (schedule,) = site.deployment(rebuild)["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == (
        LEAP_DAY,
        "Europe/Berlin",
    )
    assert schedule["active"]
    _set_active(site, rebuild, schedule["id"], False)

    run = _fires(site, rebuild)

    job = nightly.write_job(tmp_path / "job.yaml")
    again = site.raee("deploy", job, "--cron", "0 3 * * *")
    assert again.returncode == 0, again.stderr
    assert nightly.name in again.stdout.split()
    (schedule,) = site.deployment(rebuild)["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 * * *"
    assert schedule["active"] is False, "what someone has paused stays paused"
    id = site.deployment(rebuild)["id"]
    assert not _ahead(site, id)
    _set_active(site, rebuild, schedule["id"], True)
    until(30, "a schedule that is resumed has runs ahead", lambda: _ahead(site, id))
    _set_active(site, rebuild, schedule["id"], False)

    site.completed(run)
    (first,) = nightly.versions
    assert Database(nightly.store, nightly.name).current("production") == first

    nightly.grow("day-2", rows(ROWS // 100, seed=2, name="new"))
    run = _fires(site, rebuild)
    site.completed(run)
    _, second = nightly.versions
    manifest = nightly.manifest(second)
    assert (manifest.parent, manifest.rows) == (first, ROWS + ROWS // 100)
    said = f"{ROWS // 100} rows are new, {ROWS} known"
    until(10, "its log says so", lambda: any(said in line for line in site.logs(run)))

    history = site.artifacts(f"raee-{nightly.name}-versions")
    assert len(history) == 2
    newest, before = json.loads(history[-1]["data"])
    assert (newest["id"], newest["parent"]) == (second, first)
    assert newest["change"][0] in "+-"
    promoted = Database(nightly.store, nightly.name).current("production")
    assert newest["promoted"] == ("yes" if promoted == second else "no")
    assert f"against production ({first})" in newest["why"]
    assert (before["id"], before["parent"], before["promoted"]) == (first, "", "yes")
    assert site.artifacts(f"raee-{nightly.name}-report")

    output = f"{nightly.folder.uri}/out/{{date}}"
    parameters = {"job": nightly.job(), "input": nightly.write_input(rows(60, 3)), "output": output}
    run = _fires(site, "classify-corpus/classify-corpus", parameters=parameters)
    site.completed(run)
    (shown,) = site.artifacts(f"raee-{nightly.name}-classification")
    said = {line["what"]: line["value"] for line in json.loads(shown["data"])}
    assert (said["database"], said["version"]) == (nightly.name, promoted)
    assert said["input"] == parameters["input"]
    day = site.ask("GET", f"flow_runs/{run}")["expected_start_time"][:10]
    assert said["output"] == f"{nightly.folder.uri}/out/{day}"
    database = f"{nightly.store}/databases/{nightly.name}"
    until(20, "it is an asset", lambda: said["output"] in _assets(site) or None)
    assets = _assets(site)
    assert assets[said["output"]] == [({"version": promoted}, {database, said["input"]})]
    built = [figures for figures, _ in assets[database]]
    assert built == [{"version": first}, {"version": second}]

    with subtests.test("a browser shows the versions"):
        if missing := browser.why_none():
            pytest.skip(missing)
        page = f"{site.url}/artifacts/artifact/{history[-1]['id']}"
        text = browser.read(page, [first, second], request.config.getoption("--screenshot"))
        assert first in text
        assert second in text


def _assets(site) -> dict[str, list[tuple[dict[str, str], set[str]]]]:
    """What was said of each asset whenever it was made, and what it was made from."""
    name = {"event": {"name": ["prefect.asset.materialization.succeeded"]}, "order": "ASC"}
    found: dict[str, list[tuple[dict[str, str], set[str]]]] = {}
    for event in site.ask("POST", "events/filter", {"filter": name, "limit": 50})["events"]:
        sources = {
            related["prefect.resource.id"]
            for related in event["related"]
            if related["prefect.resource.role"] == "asset"
        }
        found.setdefault(event["resource"]["prefect.resource.id"], []).append(
            (event["payload"], sources)
        )
    return found


def test_a_deployment_has_a_version_and_its_form_descriptions(site):
    deployment = site.deployment("rebuild-database/rebuild-database")
    assert deployment["version"] == installed("raee")
    schema = deployment["parameter_openapi_schema"]
    job = schema["definitions"]["Job"]["properties"]
    assert job["store"]["description"] == "Where databases lie: a folder or a URI."
    assert "How the sweep is spread" in schema["properties"]["workers"]["description"]
