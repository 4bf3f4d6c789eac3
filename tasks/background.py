"""A thread beside the one that walks a model: for what comes before the walk, or after it."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """A daemon thread that does one thing after the other, from the first one on.

    One for all shards: each new thread may take memory of its own from the system and keep it.  No
    pool: Python would wait for its threads at Ctrl-C, whatever they read or write.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: _Thread | None = None

    def do(self, work: Callable[[], T]) -> Future[T]:
        """Have something done after what was asked before.

        Its log lines and its tasks belong to whoever asks.
        """
        if self._thread is None or not self._thread.is_alive():
            # There was none yet, or this process has been forked since.
            self._thread = _Thread(self._name)
            self._thread.start()
        found: Future[T] = Future()
        context = copy_context()
        self._thread.asked.put((found, lambda: context.run(work)))
        return found

    def leave(self) -> None:
        """Have what follows done by another thread: whatever this one waits for, nobody waits.

        What it was asked for and has not begun is not done at all.
        """
        if self._thread is not None:
            with suppress(Empty):
                while True:
                    self._thread.asked.get_nowait()
            self._thread.asked.put(None)
            self._thread = None


class _Thread(Thread):
    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def run(self) -> None:
        """What the thread does."""
        while (asked := self.asked.get()) is not None:
            _fulfil(*asked)
            del asked  # it holds a shard


def _fulfil(found: Future[Any], work: Callable[[], Any]) -> None:
    try:
        found.set_result(work())
    except BaseException as error:
        found.set_exception(error)
    finally:
        del found, work  # the error's traceback would hold them, and they the error
