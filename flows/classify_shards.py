"""The flow that classifies some shards of a corpus."""

from prefect import flow

from flows.orchestrator.runs import do_chunk
from tasks.classify.classification import classify_shard
from tasks.classify.plan import look_up_classification
from tasks.credentials import use_credentials


@flow(name="classify-shards")
def classify_shards(address: str, first: int, count: int, credentials: str | None = None) -> int:
    """Classify `count` shards of the classification in an output, from `first` on; returns rows.

    Shards that are done are not done again.  credentials: a block that reaches the store.  Raises
    FileNotFoundError if the classification is over, and what the step raises.
    """
    use_credentials(credentials)
    plan = look_up_classification(address).plan
    return do_chunk(plan.reads, address, classify_shard, first, count, "classified")
