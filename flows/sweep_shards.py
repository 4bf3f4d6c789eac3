"""The flow that sweeps some shards of a build."""

from prefect import flow

from flows.orchestrator.runs import do_chunk
from tasks.build.build import look_up_build
from tasks.build.centre import read_database_centre
from tasks.build.sweep import sweep_shard
from tasks.credentials import use_credentials


@flow(name="sweep-shards")
def sweep_shards(address: str, first: int, count: int, credentials: str | None = None) -> int:
    """Sweep `count` shards of the build in a work folder, from `first` on; returns their rows.

    Shards that are done are not done again.  credentials: a block that reaches the store.  Raises
    FileNotFoundError if the build is over, and what the step raises.
    """
    use_credentials(credentials)
    plan = look_up_build(address).plan
    read_database_centre(address)
    return do_chunk(plan.target, address, sweep_shard, first, count, "swept")
