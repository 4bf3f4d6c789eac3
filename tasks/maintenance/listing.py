"""A database's versions as people read them."""

from typing import Any

from storage.aliases import aliases
from storage.versions import read_manifest, read_verdict, version_ids


def list_versions(store: str, name: str) -> list[dict[str, Any]]:
    """One record a version, newest first: what it is, how good, and what points at it."""
    pointing: dict[str, list[str]] = {}
    for alias, version in aliases(store, name).items():
        pointing.setdefault(version, []).append(alias)
    lines: list[dict[str, Any]] = []
    for version in reversed(version_ids(store, name)):
        manifest = read_manifest(store, name, version)
        policy = manifest.policy["name"]
        # Where a tuned policy's objective cannot be met, the version has no figures of it.
        met = manifest.metrics.get(policy, manifest.metrics["full"])
        verdict = read_verdict(store, name, version)
        lines.append(
            {
                "id": version,
                "created_at": f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC",
                "rows": manifest.rows,
                "policy": policy,
                "accuracy": round(met["accuracy"], 4),
                "mean_layers": round(met["mean_layers"], 2),
                "full_accuracy": round(manifest.metrics["full"]["accuracy"], 4),
                "seconds": round(sum(manifest.seconds.values()), 1),
                "parent": manifest.parent,
                "promoted": None if verdict is None else verdict.promoted,
                "why": None if verdict is None else verdict.why,
                "aliases": pointing.get(version, []),
            }
        )
    return lines
