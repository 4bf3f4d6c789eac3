"""What log lines are about: each names the database, and the version and shard if there is one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_about: ContextVar[str] = ContextVar("about", default="")


@contextmanager
def about(database: str, version: str | None = None, shard: int | None = None) -> Iterator[None]:
    """Within, lines begin with what they are about."""
    said = database if version is None else f"{database}@{version}"
    token = _about.set(said if shard is None else f"{said} shard {shard}")
    try:
        yield
    finally:
        _about.reset(token)


class _Prefix(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if said := _about.get():
            record.msg = f"{said}: {record.msg}"
        return True


_logger = logging.getLogger("raee")
_logger.addFilter(_Prefix())
# Prefect sends its lines to the server, but leaves it at the level of Python's root: warnings.
_logger.setLevel(logging.INFO)
