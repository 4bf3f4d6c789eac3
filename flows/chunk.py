"""The shards that a run is given, done one after another: what a GPU worker does."""

import logging
from collections.abc import Callable

from tasks.about import about

logger = logging.getLogger("raee")


def do_chunk(
    database: str, version: str, first: int, count: int, shard: Callable[[int], int], done: str
) -> int:
    """Do `count` shards from `first` on; returns their rows.

    shard: does one by its number and returns its rows.  done: what they are then, for the log.
    """
    rows = 0
    with about(database, version):
        for number in range(first, first + count):
            with about(database, version, number):
                rows += shard(number)
        which = f"shard {first} is" if count == 1 else f"shards {first} to {first + count - 1} are"
        logger.info("%s %s: %d rows", which, done, rows)
    return rows
