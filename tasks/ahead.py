"""What a shard's step does while the step of the shard before it still runs.

Reading and tokenising need no model: they go on in a thread while the model walks, for one shard at
a time.  What the thread logs belongs to the run that is under way.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from tasks.background import Background

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes what one shard needs, or begins with it before it is asked for."""

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._begun: tuple[tuple[Any, ...], Future[Made]] | None = None
        self._thread = Background("raee-ahead")

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
        self._begun = asked, self._thread.do(lambda: self._make(*asked))

    def drop(self) -> None:
        """Hold no longer what was begun with."""
        if self._begun is not None and not self._begun[1].done():
            self._thread.leave()
        self._begun = None
