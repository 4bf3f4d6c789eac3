"""The weekly flow: what is not needed goes, and what is kept is read again."""

import json

import pytest

from flows.maintain_store import maintain_store
from tests.flows.jobs import ask_server, raee


def test_it_collects_what_gc_would_and_verifies_the_rest(published):
    versions = [published.only_version().name]
    versions += [published.build(policy=policy) for policy in ("full", "raee", "retrieval")]
    raee("promote", "demo", versions[-1], "--store", published.store)  # and pins it

    (kept,) = maintain_store(str(published.store), keep=1, older_than_days=0)

    listed = raee("versions", "demo", "--store", published.store, "--json")
    assert [line["id"] for line in json.loads(listed.out)] == versions[-1:]
    assert (kept.database, kept.versions, kept.faults) == ("demo", 1, [])
    assert kept.collected_bytes > 0


def test_a_damaged_file_fails_the_flow_and_is_named(published):
    version = published.only_version()
    with (version / "entries/part-00000.parquet").open("ab") as file:
        file.write(b"more")

    with pytest.raises(RuntimeError, match=rf"demo: {version.name}: entries/part-00000"):
        maintain_store(str(published.store))

    key = {"artifacts": {"key": {"any_": ["raee-maintenance"]}}, "sort": "CREATED_DESC"}
    newest = json.loads(ask_server("artifacts/filter", key)[0]["data"])
    assert "entries/part-00000.parquet has" in newest[0]["faults"]


def test_only_the_databases_that_are_named_are_looked_at(published):
    published.build(name="other")
    found = maintain_store(str(published.store), names=["other"])
    assert [kept.database for kept in found] == ["other"]
