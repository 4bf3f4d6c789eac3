"""The UI's timelines show a flow run by its name: it says which database, what, and when."""

import re
import uuid

import pytest

from flows.maintain_store import maintain_store
from flows.rebuild_database import rebuild_database
from tests.flows.jobs import Workplace, ask_server

_WHEN = r" \d{4}-\d\d-\d\d \d\d:\d\d"


def _last_names(flow: str) -> list[str]:
    """Of the last runs of a flow, the newest first."""
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
    return [run["name"] for run in ask_server("flow_runs/filter", body)]


def test_runs_are_named_after_the_database_what_is_done_and_when_it_was_due(place: Workplace):
    name = f"named-{uuid.uuid4().hex[:8]}"
    version = place.build(name=name)
    input = place.write("new.csv", [{"id": "a", "text": "a good film"}])
    place.classify(input, name=name)
    maintain_store(str(place.store), names=[name])
    maintain_store(str(place.store))
    assert re.fullmatch(f"{name} rebuild{_WHEN}", _last_names("rebuild-database")[0])
    assert re.fullmatch(f"{name} classify{_WHEN}", _last_names("classify-corpus")[0])
    last, before = _last_names("maintain-store")[:2]
    assert re.fullmatch(f"all maintain{_WHEN}", last)
    assert re.fullmatch(f"{name} maintain{_WHEN}", before)
    assert _last_names("sweep-shards")[0] == f"{name}@{version} 0..1"
    assert _last_names("classify-shards")[0] == f"{place.root / 'out'} 0..0"


def test_a_run_without_a_job_says_what_is_wrong_with_its_parameters(server):
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError, match="store"):
        rebuild_database({"name": "demo"})
