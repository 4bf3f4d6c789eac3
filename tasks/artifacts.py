"""What people see in the orchestrator's UI: versions and classifications as artifacts.

Each is an asset, too, with what it was made from.  The open-source UI does not list assets; the
server keeps them as events, and automations may act on these.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.assets import Asset, materialize
from prefect.types.names import MAX_ASSET_KEY_LENGTH, RESTRICTED_ASSET_CHARACTERS

from storage.database import Database, Version
from storage.manifest import REPORT
from tasks.classify.classification import ClassificationManifest
from tasks.maintenance.leftovers import Kept
from tasks.maintenance.listing import list_versions
from tasks.retrying import RETRIES


@task(**RETRIES)
def record_versions(database: Database, verdict: str) -> None:
    """A database's version list under its own key, whose history is that of its builds.

    verdict: what the promotion gate said of the newest.
    """
    lines = list_versions(database)
    accuracy = {line.id: line.accuracy for line in lines}
    table = [
        {
            **line.model_dump(),
            "baseline": line.baseline or "",
            "baseline_accuracy": "" if line.baseline is None else line.baseline_accuracy,
            "parent": line.parent or "",
            "change": f"{line.accuracy - accuracy[line.parent]:+.4f}"
            if line.parent in accuracy
            else "",
            "aliases": ", ".join(line.aliases),
            "promoted": {True: "yes", False: "no", None: ""}[line.promoted],
            "why": line.why or "",
        }
        for line in lines
    ]
    create_table_artifact(
        key=f"raee-{database.name}-versions",
        table=table,
        description=f"Versions of the database `{database.name}` in `{database.store}`, newest "
        "first. Accuracy and mean layers are those of the version's policy on its own rows, each "
        "without its text, and cross-fitted where the policy was picked on these rows; "
        "`change` is that of the accuracy against the parent. "
        f"{verdict[0].upper()}{verdict[1:]}.",
    )


@task(**RETRIES)
def record_report(version: Version) -> None:
    """A link to a version's report."""
    name = version.database.name
    create_link_artifact(
        key=f"raee-{name}-report",
        link=_with_scheme(f"{version.folder.uri}/{REPORT}"),
        link_text=f"{name}@{version.id}",
        description=f"Report of the database `{name}`, version `{version.id}`.",
    )


@task(**RETRIES)
def record_classification(manifest: ClassificationManifest) -> None:
    """What a classification read, did and wrote."""
    shown = (
        *("database", "version", "store", "policy", "input", "input_fingerprint", "output"),
        *("rows_in", "rows_out", "rejected", "tokens", "layers_run", "seconds"),
    )
    table = [{"what": what, "value": str(getattr(manifest, what))} for what in shown]
    table += [
        {"what": "mean layers", "value": f"{manifest.mean_layers:.2f}"},
        {"what": "rows/s", "value": f"{manifest.rows_per_second:.1f}"},
    ]
    create_table_artifact(
        key=f"raee-{manifest.database}-classification",
        table=table,
        description=f"A classification with the database `{manifest.database}`.",
    )


@task(**RETRIES)
def record_maintenance(store: str, found: Sequence[Kept]) -> None:
    """What was collected and verified of each database."""
    table = [
        {
            "database": kept.database,
            "versions": kept.versions,
            "collected bytes": kept.collected_bytes,
            "faults": "; ".join(kept.faults) or "none",
        }
        for kept in found
    ]
    create_table_artifact(
        key="raee-maintenance",
        table=table,
        description=f"Databases in `{store}`: what was collected, and files that differ.",
    )


def record_asset(made: str, sources: Sequence[str], **figures: Any) -> None:
    """That something was made, and what it was made from; all by their addresses.

    figures: what is said of it this time.
    """
    asset = _asset(made)

    @materialize(asset, asset_deps=[_asset(uri) for uri in sources], by="raee", **RETRIES)
    def record_asset() -> None:
        asset.add_metadata(figures)

    record_asset()


def _asset(uri: str) -> Asset:
    """Prefect takes fewer characters than a file's name may have."""
    table = str.maketrans(dict.fromkeys(RESTRICTED_ASSET_CHARACTERS, "_"))
    return Asset(key=_with_scheme(uri).translate(table)[:MAX_ASSET_KEY_LENGTH])


def _with_scheme(uri: str) -> str:
    return uri if "://" in uri else Path(uri).absolute().as_uri()
