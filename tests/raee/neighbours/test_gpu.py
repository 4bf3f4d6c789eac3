"""A search by products of matrices finds what FAISS finds, on the CPU and on a GPU."""

import faiss
import numpy as np
import pytest
import torch

from raee.neighbours import gpu as gpu_search
from raee.neighbours.gpu import nearest_on, search_on
from raee.neighbours.index import Index, new_index
from tests.raee.clusters import unit_vectors

ROWS, WIDTH = 700, 48


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    return torch.device(request.param)


def _keys() -> np.ndarray:
    """Some of them the same, and some that float32 can just tell apart."""
    keys = unit_vectors(ROWS, WIDTH)
    keys[100:105] = keys[100]
    lengths = np.sqrt(np.linspace(1e-8, 2e-8, 8, dtype=np.float32))
    keys[50:58] = keys[50] + unit_vectors(8, WIDTH, seed=2) * lengths[:, None]
    return keys


def _both(device: torch.device) -> tuple[Index, Index]:
    indexes = new_index(WIDTH), new_index(WIDTH)
    for index in indexes:
        index.add(_keys())
    indexes[0].nearest = nearest_on(device, indexes[0])
    return indexes


@pytest.mark.parametrize("distances_at_once", [2**27, 3 * ROWS])
@pytest.mark.parametrize("k", [1, 12, ROWS])
def test_rows_and_distances_are_those_of_faiss(device, monkeypatch, k, distances_at_once):
    monkeypatch.setattr(gpu_search, "_DISTANCES", distances_at_once)
    own, faiss_own = _both(device)
    queries = np.concatenate([unit_vectors(300, WIDTH, seed=1), _keys()])
    found, expected = (index.search(queries, k) for index in (own, faiss_own))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-6)


def test_a_row_does_not_find_itself_nor_what_is_farther_than_asked(device):
    own, faiss_own = _both(device)
    everybody, within = np.arange(ROWS), np.full(ROWS, 1.2, np.float32)
    found, expected = (
        index.search(_keys(), 12, exclude=everybody, within=within) for index in (own, faiss_own)
    )
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(np.isinf(found.distances), np.isinf(expected.distances))
    assert (found.rows >= 0).any(axis=1).sum() > ROWS // 2
    assert (found.rows < 0).any()


def test_on_the_cpu_faiss_searches():
    assert search_on(torch.device("cpu"), _both(torch.device("cpu"))[1]).nearest is None


def test_the_index_that_is_given_is_searched_as_before(monkeypatch):
    monkeypatch.setattr(gpu_search, "nearest_on", lambda device, index: "on the GPU")
    (_, index) = _both(torch.device("cpu"))
    found = search_on(torch.device("cuda"), index)
    assert (found.nearest, index.nearest) == ("on the GPU", None)
    assert len(found) == len(index)


def test_what_is_not_exact_or_too_large_or_empty_is_searched_by_faiss(monkeypatch):
    gpu = torch.device("cuda")
    graph = Index(faiss.IndexHNSWFlat(WIDTH, 8))
    graph.add(_keys())
    assert search_on(gpu, graph).nearest is None
    assert search_on(gpu, new_index(WIDTH)).nearest is None
    monkeypatch.setattr(gpu_search, "_MOST_BYTES", 4 * WIDTH * ROWS - 1)
    assert search_on(gpu, _both(torch.device("cpu"))[1]).nearest is None
