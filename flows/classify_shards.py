"""The flow that classifies some shards of a corpus: what a GPU worker does."""

import logging

from prefect import flow

from tasks.about import about
from tasks.classification import classify_shard, plan_of
from tasks.credentials import use_credentials

logger = logging.getLogger("raee")


@flow(name="classify-shards")
def classify_shards(address: str, first: int, count: int, credentials: str | None = None) -> int:
    """Classify `count` shards of the classification in an output, from `first` on; returns rows.

    Shards that are done are not done again.  credentials: a block that reaches the store.
    """
    use_credentials(credentials)
    plan_of.cache_clear()  # the output may have been emptied and begun anew
    plan = plan_of(address)
    rows = 0
    with about(plan.job.name, plan.version):
        for number in range(first, first + count):
            with about(plan.job.name, plan.version, number):
                rows += classify_shard(address, number)
        logger.info("shards %d to %d are classified: %d rows", first, first + count - 1, rows)
    return rows
