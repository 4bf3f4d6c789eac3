"""The `prefect` command, for a server on SQLite that several workers ask at once.

    python -P -m flows.orchestrator.sqlite_server server start ..

Prefect 3.8 reads and then writes in transactions that SQLite begins as readers.  If another writer
comes between, SQLite does not wait but fails at once: the event is lost, and with it the action of
an automation about a crashed run.  And while fifteen connections wait for the one that writes, none
is left that this one needs to go on: the server hangs until they have waited for a minute.  Here
every transaction begins as a writer and waits for its turn, and there are enough connections.
PostgreSQL has neither trouble.  (https://github.com/PrefectHQ/prefect/issues/23051 is one case.)

If several servers start at once in a new home, each would make the same tables.  Here one of them
does, and the others wait for it.
"""

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from prefect.cli import app
from prefect.server.database import configurations
from prefect.server.database.interface import PrefectDBInterface
from prefect.server.models import block_registration
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
    create_async_engine,
)

from flows.orchestrator.lifeline import end_with_command

_Step = Callable[..., Coroutine[Any, Any, None]]

_CONNECTIONS = 100

_Sqlite = configurations.AioSqliteConfiguration
_begin_transaction = _Sqlite.begin_transaction

_LOCK = "raee-server.lock"
"""A lock in Prefect's home: the server that has it makes the database ready."""


@asynccontextmanager
async def _begin_as_a_writer(
    self: _Sqlite, session: AsyncSession, with_for_update: bool = True
) -> AsyncIterator[AsyncSessionTransaction]:
    async with _begin_transaction(self, session, with_for_update=True) as transaction:
        yield transaction


def _with_enough_connections(url: Any, **options: Any) -> AsyncEngine:
    if str(url).startswith("sqlite"):
        # For a database in memory, Prefect itself asks for one connection.
        options.setdefault("pool_size", _CONNECTIONS)
    return create_async_engine(url, **options)


def _alone(step: _Step) -> _Step:
    """A step of a server's start that only one server of a home runs at a time."""

    @wraps(step)
    async def alone(*args: Any, **more: Any) -> None:
        with (get_current_settings().home / _LOCK).open("w") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            await step(*args, **more)

    return alone


def main() -> None:
    """Run the command."""
    end_with_command()
    PrefectDBInterface.create_db = _alone(  # type: ignore[method-assign]
        PrefectDBInterface.create_db
    )
    block_registration.run_block_auto_registration = _alone(
        block_registration.run_block_auto_registration
    )
    _Sqlite.begin_transaction = _begin_as_a_writer  # type: ignore[method-assign]
    configurations.create_async_engine = _with_enough_connections  # type: ignore[attr-defined]
    app()


if __name__ == "__main__":
    main()
