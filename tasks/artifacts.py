"""Versions and classifications as artifacts, which people see in the orchestrator's UI.

Each is an asset, too, with its sources.  The open-source UI does not list assets; the server keeps
them as events, and automations may act on these.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.assets import Asset, materialize
from prefect.types.names import MAX_ASSET_KEY_LENGTH, RESTRICTED_ASSET_CHARACTERS

from storage.versions import REPORT, version_folder
from tasks.maintenance.leftovers import Kept
from tasks.maintenance.listing import list_versions
from tasks.retrying import RETRIES


@task(**RETRIES)
def record_versions(store: str, name: str, verdict: str) -> None:
    """A database's version list under its own key, whose history is that of its builds.

    verdict: the promotion gate's sentence on the newest version.
    """
    lines = list_versions(store, name)
    accuracy = {line["id"]: line["accuracy"] for line in lines}
    table = [
        {
            **line,
            "parent": line["parent"] or "",
            "change": f"{line['accuracy'] - accuracy[line['parent']]:+.4f}"
            if line["parent"] in accuracy
            else "",
            "aliases": ", ".join(line["aliases"]),
            "promoted": {True: "yes", False: "no", None: ""}[line["promoted"]],
            "why": line["why"] or "",
        }
        for line in lines
    ]
    create_table_artifact(
        key=f"raee-{name}-versions",
        table=table,
        description=f"Versions of the database `{name}` in `{store}`, newest first. Accuracy and "
        "mean layers are those of the version's policy on its own rows, each without its text, and "
        "cross-fitted if the policy was picked on these rows; "
        "`change` is that of the accuracy against the parent. "
        f"{verdict[0].upper()}{verdict[1:]}.",
    )


@task(**RETRIES)
def record_report(store: str, name: str, version: str) -> None:
    """A link to a version's report."""
    folder = version_folder(store, name, version)
    create_link_artifact(
        key=f"raee-{name}-report",
        link=_with_scheme(f"{folder.uri}/{REPORT}"),
        link_text=f"{name}@{version}",
        description=f"Report of the database `{name}`, version `{version}`.",
    )


@task(**RETRIES)
def record_classification(name: str, manifest: dict[str, Any]) -> None:
    """A table of what a classification read, did and wrote."""
    shown = (
        *("database", "version", "store", "policy", "input", "input_fingerprint", "output"),
        *("rows_in", "rows_out", "rejected", "tokens", "layers_run", "seconds"),
    )
    table = [{"what": what, "value": str(manifest[what])} for what in shown]
    table += [
        {"what": "mean layers", "value": f"{manifest['mean_layers']:.2f}"},
        {"what": "rows/s", "value": f"{manifest['rows_per_second']:.1f}"},
    ]
    create_table_artifact(
        key=f"raee-{name}-classification",
        table=table,
        description=f"A classification with the database `{name}`.",
    )


@task(**RETRIES)
def record_maintenance(store: str, found: Sequence[Kept]) -> None:
    """A table of what was collected and verified of each database."""
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
    """Record that an asset was made, and from what; all are named by their addresses.

    figures: metadata of the asset.
    """
    asset = _asset(made)

    @materialize(asset, asset_deps=[_asset(uri) for uri in sources], by="raee", **RETRIES)
    def record_asset() -> None:
        asset.add_metadata(figures)

    record_asset()


def _asset(uri: str) -> Asset:
    """An asset of an address; Prefect takes fewer characters than a file's name may have."""
    table = str.maketrans(dict.fromkeys(RESTRICTED_ASSET_CHARACTERS, "_"))
    return Asset(key=_with_scheme(uri).translate(table)[:MAX_ASSET_KEY_LENGTH])


def _with_scheme(uri: str) -> str:
    return uri if "://" in uri else Path(uri).absolute().as_uri()
