"""Products keep to one thread while they would take the cores from others, and not longer."""

import faiss  # noqa: F401 - its products count, too
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from raee.cores import all_cores, single_threaded_products


def _threads() -> set[int]:
    """How many threads the libraries' products have."""
    np.ones((2, 2)) @ np.ones((2, 2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, "blas"):
        yield


def test_products_have_one_thread_until_the_outermost_who_asked_for_it_is_done():
    with single_threaded_products():
        with single_threaded_products():
            assert _threads() == {1}
        assert _threads() == {1}
    assert _threads() == {2}


def test_an_error_gives_the_threads_back():
    with pytest.raises(ZeroDivisionError), single_threaded_products():
        raise ZeroDivisionError
    assert _threads() == {2}


def test_work_on_all_cores_is_answered_in_order_and_single_threaded():
    with all_cores() as each:
        assert each(lambda part: part * 2, [3, 1, 2]) == [6, 2, 4]
        assert _threads() == {1}
    assert _threads() == {2}
