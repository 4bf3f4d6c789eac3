"""What is done of shards, whoever does it: without a server's pools, in this process."""

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Running

from flows.orchestrator import fan_out
from flows.orchestrator.fan_out import Shards, Workers, next_chunk
from storage.store import Folder
from tasks.steps import Marker, StepRecord, Work


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 10))
def test_chunks_hold_every_shard_once_in_rows_no_longer_than_asked(left: set[int], size: int):
    rest, taken = set(left), []
    while rest:
        chunk = next_chunk(rest, size)
        assert 1 <= chunk.count <= size
        taken += chunk.numbers
        rest -= set(chunk.numbers)
    assert taken == sorted(left)


@flow(name="nothing")
def _nothing(address: str, first: int, count: int, credentials: str | None) -> None:
    """What the runs in these tests are runs of."""


@pytest.fixture
def client(server):
    with get_client(sync_client=True) as client:
        yield client


class _Given:
    """Shards that an earlier try has given to runs on the server, one to each."""

    def __init__(self, client, work, monkeypatch) -> None:
        monkeypatch.setattr(fan_out, "_PAGE", 2)
        monkeypatch.setattr(fan_out, "_POLL_SECONDS", 0.01)
        shards = Shards(
            flow=_nothing,
            address=uuid.uuid4().hex,
            work=work,
            marker=Marker("shard", StepRecord),
            credentials=None,
            database="demo",
            about="demo@1",
        )
        self.dispatcher = fan_out._Dispatcher(shards, Workers(), fan_out._Progress(shards))
        self.runs = []
        for number in range(shards.total):
            run = client.create_flow_run(
                _nothing,
                parameters=shards.parameters(fan_out.Chunk(number, 1)),
                tags=[self.dispatcher._tag],
                state=Running(),
            )
            self.runs.append(run.id)


def test_a_later_try_takes_on_all_runs_however_many_pages_they_are(client, tmp_path, monkeypatch):
    given = _Given(client, Work(Folder(str(tmp_path)), 5), monkeypatch)
    client.set_flow_run_state(given.runs[3], Completed(), force=True)
    given.dispatcher._adopt(client)
    assert set(given.dispatcher._runs) == {*given.runs[:3], given.runs[4]}
    assert given.dispatcher._left == {3}
    numbers = {run: chunk.first for run, chunk in given.dispatcher._runs.items()}
    assert numbers == {run: given.runs.index(run) for run in numbers}


def test_a_run_that_cannot_be_cancelled_hides_no_error_and_keeps_no_other_run(
    client, tmp_path, monkeypatch
):
    class Failing(Work):
        def record(self, marker, number=None):
            client.delete_flow_run(given.runs[0])
            raise ValueError("the first error")

    given = _Given(client, Failing(Folder(str(tmp_path)), 5), monkeypatch)
    (tmp_path / "shard-00004.json").write_text(json.dumps({"seconds": 1, "rows": 1}))
    with pytest.raises(ValueError, match="the first error"):
        given.dispatcher.run()
    with pytest.raises(ObjectNotFound):
        client.read_flow_run(given.runs[0])
    states = {client.read_flow_run(run).state.type for run in given.runs[1:]}
    assert states == {StateType.CANCELLING}
