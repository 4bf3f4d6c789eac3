"""Cores: arithmetic that is shared out among them, and arithmetic that leaves them to a model."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from threadpoolctl import ThreadpoolController

_THREADS = 8
"""Threads at most: bounds what is worked on at the same time."""

Part = TypeVar("Part")
Found = TypeVar("Found")


class OnParts(Protocol):
    """`each(work, parts)`: what the work makes of each part, in the parts' order."""

    def __call__(self, work: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
        """Nearly all of the work is arithmetic on whole arrays, in which Python's lock is free."""


class _SingleThreaded:
    """Matrix products of NumPy, SciPy and FAISS on one thread, as long as anybody holds this.

    A library's number of threads belongs to the process, or with OpenMP to the thread that asks for
    a product.  The former is put back when the last one lets go, the latter when its own does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._own = threading.local()

    def __enter__(self) -> None:
        blas = ThreadpoolController().select(user_api="blas").lib_controllers
        own = [lib for lib in blas if getattr(lib, "threading_layer", None) == "openmp"]
        before = [(lib, lib.num_threads) for lib in own]
        self._own.before = [*getattr(self._own, "before", []), before]
        for lib in own:
            lib.set_num_threads(1)
        with self._lock:
            if not self._holders:
                self._shared = [(lib, lib.num_threads) for lib in blas if lib not in own]
                for lib, _ in self._shared:
                    lib.set_num_threads(1)
            self._holders += 1

    def __exit__(self, *raised: object) -> None:
        for lib, threads in self._own.before.pop():
            lib.set_num_threads(threads)
        with self._lock:
            self._holders -= 1
            if not self._holders:
                for lib, threads in self._shared:
                    lib.set_num_threads(threads)


single_threaded_products = _SingleThreaded()
"""Held by arithmetic that has its own threads, and while a model runs in turns with searches.

PyTorch's threads and those of each other library wait for their next product by spinning, and take
the cores from each other: a search of 75 keys took 14 ms, and what the model ran afterwards three
times as long."""


@contextmanager
def all_cores() -> Iterator[OnParts]:
    """Work on parts in threads, one a core.

    Matrix products keep to the thread that asks for them: split among all cores, the small ones
    wait for each other longer than they work.
    """
    threads = min(_THREADS, os.cpu_count() or 1)
    with single_threaded_products, ThreadPoolExecutor(threads) as pool:
        yield lambda work, parts: list(pool.map(work, parts))
