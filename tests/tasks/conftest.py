import tests.orchestrator  # noqa: F401 - before Prefect is imported
