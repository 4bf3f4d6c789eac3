"""A database's versions as people read them; `record_versions` shows them in the UI."""

from pydantic import BaseModel, ConfigDict

from raee.policies.baselines import BASELINES, MAJORITY
from storage.database import Database


class VersionLine(BaseModel):
    """A version: what it is, how good, and what points at it."""

    model_config = ConfigDict(frozen=True)

    id: str
    created_at: str
    rows: int
    policy: str
    accuracy: float
    """The accuracy of its policy on its own rows, each without its text."""
    mean_layers: float
    full_accuracy: float
    """As `accuracy`, of the model's own head at full depth."""
    baseline: str | None
    """The best baseline on these rows; None if the version was compared with none."""
    baseline_accuracy: float | None
    seconds: float
    """The seconds that its build took."""
    parent: str | None
    promoted: bool | None
    """The promotion gate's decision; None if it was not asked."""
    why: str | None
    aliases: list[str]


def list_versions(database: Database) -> list[VersionLine]:
    """One line a version, newest first.  Raises InputError if a manifest is damaged."""
    pointing: dict[str, list[str]] = {}
    for alias, version_id in database.aliases().items():
        pointing.setdefault(version_id, []).append(alias)
    lines = []
    for version in reversed(database.versions()):
        manifest, verdict = version.manifest(), version.verdict()
        policy = manifest.policy["name"]
        # If a tuned policy's objective cannot be met, the version has no figures of it.
        met = manifest.metrics.get(policy, manifest.metrics["full"])
        there = {b: m["accuracy"] for b, m in manifest.metrics.items() if b in BASELINES}
        best = max(there, key=lambda b: there[b]) if MAJORITY in there else None
        lines.append(
            VersionLine(
                id=version.id,
                created_at=f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC",
                rows=manifest.rows,
                policy=policy,
                accuracy=round(met["accuracy"], 4),
                mean_layers=round(met["mean_layers"], 2),
                full_accuracy=round(manifest.metrics["full"]["accuracy"], 4),
                baseline=best,
                baseline_accuracy=None if best is None else round(there[best], 4),
                seconds=round(sum(manifest.seconds.values()), 1),
                parent=manifest.parent,
                promoted=None if verdict is None else verdict.promoted,
                why=None if verdict is None else verdict.why,
                aliases=pointing.get(version.id, []),
            )
        )
    return lines
