"""Prefect tasks: thin, idempotent; they take and return URIs and small records, never data."""
