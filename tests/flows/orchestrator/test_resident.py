"""Places of resident processes: one for each run at once, one for each GPU if there are any."""

import threading
from contextlib import ExitStack

import pytest

from flows.orchestrator import resident


@pytest.fixture
def gpus(monkeypatch):
    monkeypatch.setattr(resident, "_LOOK_SECONDS", 0.01)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8f1c")


def test_without_gpus_each_run_at_once_has_a_place(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with ExitStack() as stack:
        places = [stack.enter_context(resident._free_number(tmp_path)) for _ in range(20)]
    assert places == list(range(20))
    assert "CUDA_VISIBLE_DEVICES" not in resident._environment(19)


def test_each_place_has_a_gpu_of_its_own(tmp_path, gpus):
    with resident._free_number(tmp_path) as first, resident._free_number(tmp_path) as second:
        seen = [resident._environment(place)["CUDA_VISIBLE_DEVICES"] for place in (first, second)]
    assert seen == ["2", "GPU-8f1c"]


def test_a_run_waits_for_a_gpu_and_gets_the_one_that_is_freed(tmp_path, gpus):
    got = []

    def third():
        with resident._free_number(tmp_path) as place:
            got.append(place)

    waiting = threading.Thread(target=third)
    with resident._free_number(tmp_path), ExitStack() as stack:
        stack.enter_context(resident._free_number(tmp_path))
        waiting.start()
        waiting.join(timeout=0.2)
        assert got == []
        stack.close()
        waiting.join(timeout=10)
        assert got == [1]
