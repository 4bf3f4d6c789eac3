"""The flow that keeps a store in order: it collects unneeded files, and verifies the others."""

import logging
from datetime import timedelta
from typing import Any

from prefect import flow

from flows.orchestrator.crashes import check_run_count
from flows.orchestrator.runs import run_name
from raee.errors import clauses
from storage.database import Database, databases
from tasks.about import about
from tasks.artifacts import record_maintenance
from tasks.credentials import use_credentials
from tasks.maintenance.leftovers import Kept, collect_leftovers, verify_versions

logger = logging.getLogger("raee")


def _databases(parameters: dict[str, Any]) -> str:
    return ", ".join(parameters["names"] or ["all"])


@flow(name="maintain-store", flow_run_name=run_name("maintain", _databases))
def maintain_store(
    store: str,
    keep: int = 5,
    older_than_days: int = 7,
    names: list[str] | None = None,
    credentials: str | None = None,
) -> list[Kept]:
    """Collect what databases no longer need, and read every file of what they keep.

    Returns a record for each database.  Raises RuntimeError, with a list of the faults, if a file
    is not what its manifest says, and InputError as `storage.gc.collect` does.

    Args:
        store: Where databases lie: a folder or a URI.
        keep: Newest versions of each database that stay, aliases or not.
        older_than_days: How long a dead build's leftovers stay.
        names: Databases; by default all.
        credentials: An AWS Credentials block that reaches the store.
    """
    check_run_count()
    use_credentials(credentials)
    found = []
    for name in names or databases(store).names():
        with about(name):
            database = Database(store, name)
            collected = collect_leftovers(database, keep, timedelta(days=older_than_days))
            kept = verify_versions(database, collected)
            logger.info(
                "%d versions verified, %d bytes collected, %d faults",
                kept.versions,
                kept.collected_bytes,
                len(kept.faults),
            )
            found.append(kept)
    record_maintenance(store, found)
    faults = [f"{kept.database}: {fault}" for kept in found for fault in kept.faults]
    if faults:
        raise RuntimeError(f"{store} is damaged: {clauses(faults)}")
    return found
