"""What people see in the orchestrator's UI: versions and classifications as artifacts."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact

from storage.versions import REPORT, version_folder
from tasks.listing import list_versions
from tasks.retrying import RETRIES


@task(**RETRIES)
def record_versions(store: str, name: str, verdict: str) -> None:
    """A database's version list under its own key, whose history is that of its builds.

    verdict: what the promotion gate said of the newest.
    """
    table = [
        line | {"aliases": ", ".join(line["aliases"]), "parent": line["parent"] or ""}
        for line in list_versions(store, name)
    ]
    create_table_artifact(
        key=f"raee-{name}-versions",
        table=table,
        description=f"Versions of the database `{name}` in `{store}`, newest first. Accuracy and "
        "mean layers are those of the version's policy on its own rows, each without itself. "
        f"{verdict[0].upper()}{verdict[1:]}.",
    )


@task(**RETRIES)
def record_report(store: str, name: str, version: str) -> None:
    """A link to a version's report."""
    folder = version_folder(store, name, version)
    link = f"{folder.uri}/{REPORT}"
    create_link_artifact(
        key=f"raee-{name}-report",
        link=link if "://" in link else Path(link).absolute().as_uri(),
        link_text=f"{name}@{version}",
        description=f"Report of the database `{name}`, version `{version}`.",
    )


@task(**RETRIES)
def record_classification(name: str, manifest: dict[str, Any]) -> None:
    """What a classification read, did and wrote."""
    shown = ("version", "policy", "input", "output", "rows_in", "rows_out", "rejected")
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
