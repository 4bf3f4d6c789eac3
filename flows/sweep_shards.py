"""The flow that sweeps some shards of a build: what a GPU worker does."""

import logging

from prefect import flow

from tasks.about import about
from tasks.build import sweep_shard
from tasks.build_plan import plan_of
from tasks.credentials import use_credentials

logger = logging.getLogger("raee")


@flow(name="sweep-shards")
def sweep_shards(address: str, first: int, count: int, credentials: str | None = None) -> int:
    """Sweep `count` shards of the build in a work folder, from `first` on; returns their rows.

    Shards that are done are not done again.  credentials: a block that reaches the store.
    """
    use_credentials(credentials)
    plan = plan_of(address)
    rows = 0
    with about(plan.job.name, plan.version):
        for number in range(first, first + count):
            with about(plan.job.name, plan.version, number):
                rows += sweep_shard(address, number)
        logger.info("shards %d to %d are swept: %d rows", first, first + count - 1, rows)
    return rows
