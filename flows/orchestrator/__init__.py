"""Everything between the flows and Prefect: shards as runs, deployments, crashes, servers."""
