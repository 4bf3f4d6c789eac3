"""What a shard's step does while the step of the shard before it still runs.

Reading and tokenising need no model: they go on in a thread while the model walks.  One shard is
ahead at a time, so that no more than two are in memory.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes what one shard needs, or begins with it before it is asked for."""

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raee-ahead")
        self._begun: tuple[tuple[Any, ...], Future[Made]] | None = None

    def take(self, *asked: Any) -> Made:
        """What was begun with if it was begun for this, else it is made now.

        Raises what making it raises; then it is made anew if it is asked for again.
        """
        begun, self._begun = self._begun, None
        if begun is None or begun[0] != asked:
            return self._make(*asked)
        return begun[1].result()

    def begin(self, *asked: Any) -> None:
        """Begin with what will be asked for next."""
        # The context says what a log line is about, and to which run it belongs.
        self._begun = asked, self._pool.submit(copy_context().run, self._make, *asked)
