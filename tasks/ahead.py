"""What a shard's step does while the step of the shard before it still runs.

Reading and tokenising need no model: they go on in a thread while the model walks.  One shard is
ahead at a time, so that no more than two are in memory.  What the thread logs belongs to the run
that is under way, and names its shard.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes what one shard needs, or begins with it before it is asked for."""

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._begun: tuple[tuple[Any, ...], Future[Made]] | None = None

    def take(self, *asked: Any) -> Made:
        """What was begun with if it was begun for this, else it is made now.

        Raises what making it raises; then it is made anew if it is asked for again.
        """
        if self._begun is None or self._begun[0] != asked:
            return self._make(*asked)
        found = self._begun[1]
        self.drop()
        return found.result()

    def begin(self, *asked: Any) -> None:
        """Begin with what will be asked for next, unless that is under way."""
        if self._begun is not None and self._begun[0] == asked:
            return
        found: Future[Made] = Future()
        self._begun = asked, found
        # The context says what a log line is about, and to which run it belongs.
        context = copy_context()

        def work() -> None:
            try:
                found.set_result(context.run(self._make, *asked))
            except BaseException as error:
                found.set_exception(error)

        # No pool: Python would wait for its threads at Ctrl-C, whatever they read.
        Thread(target=work, name="raee-ahead", daemon=True).start()

    def drop(self) -> None:
        """Hold no longer what was begun with."""
        self._begun = None
