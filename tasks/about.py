"""Subjects of log lines: each names the database, and the version and shard if there is one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_about: ContextVar[str] = ContextVar("about", default="")

_SHARD = " shard "


@contextmanager
def about(database: str, version: str | None = None, shard: int | None = None) -> Iterator[None]:
    """Within this context, log lines begin with the database, version and shard."""
    subject = database if version is None else f"{database}@{version}"
    token = _about.set(subject if shard is None else f"{subject}{_SHARD}{shard}")
    try:
        yield
    finally:
        _about.reset(token)


@contextmanager
def about_shard(number: int) -> Iterator[None]:
    """Within this context, log lines name another shard of the same version."""
    subject = _about.get().partition(_SHARD)[0]
    token = _about.set(f"{subject}{_SHARD}{number}" if subject else "")
    try:
        yield
    finally:
        _about.reset(token)


class _Prefix(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if subject := _about.get():
            record.msg = f"{subject}: {record.msg}"
        return True


_logger = logging.getLogger("raee")
_logger.addFilter(_Prefix())
# Prefect sends its lines to the server, but leaves it at the level of Python's root: warnings.
_logger.setLevel(logging.INFO)
