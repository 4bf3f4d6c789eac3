"""Cores: arithmetic that is shared out among them, and arithmetic that leaves them to a model."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from threadpoolctl import threadpool_limits

_THREADS = 8
"""Threads at most: bounds what is worked on at the same time."""

Part = TypeVar("Part")
Found = TypeVar("Found")


class OnParts(Protocol):
    """`each(work, parts)`: what the work makes of each part, in the parts' order."""

    def __call__(self, work: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
        """Nearly all of the work is arithmetic on whole arrays, in which Python's lock is free."""


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Matrix products of NumPy, SciPy and FAISS on one thread.

    Held by arithmetic that has its own threads, and while a model runs in turns with searches.
    PyTorch's threads and those of each other library wait for their next product by spinning, and
    take the cores from each other: a search of 75 keys took 14 ms, and what the model ran
    afterwards three times as long.
    """
    with threadpool_limits(1, "blas"):
        yield


@contextmanager
def all_cores() -> Iterator[OnParts]:
    """Work on parts in threads, one a core.

    Matrix products keep to the thread that asks for them: split among all cores, the small ones
    wait for each other longer than they work.
    """
    threads = min(_THREADS, os.cpu_count() or 1)
    with single_threaded_products(), ThreadPoolExecutor(threads) as pool:
        yield lambda work, parts: list(pool.map(work, parts))
