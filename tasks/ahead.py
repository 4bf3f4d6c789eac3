"""What a shard's step does while the step of the shard before it still runs.

Reading and tokenising need no model: they go on in a thread while the model walks.  One shard is
ahead at a time, so that no more than two are in memory.  What the thread logs belongs to the run
that is under way, and names its shard.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes what one shard needs, or begins with it before it is asked for."""

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._begun: tuple[tuple[Any, ...], Future[Made]] | None = None
        self._thread: _Worker | None = None

    def take(self, *asked: Any) -> Made:
        """What was begun with if it was begun for this, else it is made now.

        Raises what making it raises; then it is made anew if it is asked for again.
        """
        if self._begun is None or self._begun[0] != asked:
            return self._make(*asked)
        found = self._begun[1]
        self._begun = None
        return found.result()

    def begin(self, *asked: Any) -> None:
        """Begin with what will be asked for next, unless that is under way."""
        if self._begun is not None and self._begun[0] == asked:
            return
        self.drop()
        if self._thread is None or not self._thread.is_alive():
            # There was none yet, or this process has been forked since.
            self._thread = _Worker()
            self._thread.start()
        found: Future[Made] = Future()
        self._begun = asked, found
        # The context says what a log line is about, and to which run it belongs.
        context = copy_context()
        self._thread.do(found, lambda: context.run(self._make, *asked))

    def drop(self) -> None:
        """Hold no longer what was begun with."""
        if self._begun is not None and not self._begun[1].done() and self._thread is not None:
            # Whatever it waits for, nobody waits behind it.
            self._thread.end()
            self._thread = None
        self._begun = None


class _Worker(Thread):
    """A thread that does one thing after the other.

    One for all shards: each new thread may take memory of its own from the system and keep it.  No
    pool: Python would wait for its threads at Ctrl-C, whatever they read.
    """

    def __init__(self) -> None:
        super().__init__(name="raee-ahead", daemon=True)
        self._asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def do(self, found: Future[Any], work: Callable[[], Any]) -> None:
        """Have something done, and its result or its error where it is waited for."""
        self._asked.put((found, work))

    def end(self) -> None:
        """End once what is under way is done."""
        self._asked.put(None)

    def run(self) -> None:
        """What the thread does."""
        while (asked := self._asked.get()) is not None:
            _fulfil(*asked)
            del asked  # it holds a shard


def _fulfil(found: Future[Any], work: Callable[[], Any]) -> None:
    try:
        found.set_result(work())
    except BaseException as error:
        found.set_exception(error)
