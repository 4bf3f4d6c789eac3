"""Commands on a store: what versions there are, which one is in production, what goes."""

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import log_to_stderr, print_table, say
from flows.cli.options import (
    BROKEN,
    Alias,
    AsJson,
    Credentials,
    Days,
    DryRun,
    IfCurrent,
    Name,
    NameAt,
    Store,
)
from flows.cli.tables import pruning_table, table
from raee.errors import InputError
from storage.alias_names import DEFAULT_ALIAS, PINNED
from tasks.credentials import use_credentials
from tasks.prefect_settings import read_settings

if TYPE_CHECKING:  # slow to import, and `raee --help` needs the commands' names only
    from storage.aliases import AliasRecord
    from storage.database import Database


def prune(
    name: NameAt, store: Store, as_json: AsJson = False, credentials: Credentials = None
) -> None:
    """Publish a child version without the rows that replay does not miss; prints its id."""
    use_credentials(credentials)
    read_settings()
    from storage.database import open_version
    from tasks.maintenance.prune import prune_version

    log_to_stderr()
    version = open_version(store, name)
    child, found = prune_version(version)
    if as_json:
        say(json.dumps({"version": child, **found.as_json()}, indent=1))
        return
    if child is None:
        named = f"{version.database.name}@{version.id}"
        say(f"{named}: no tenth of its rows can go; nothing is published")
        return
    print_table(pruning_table(found))
    say(child)


def versions(
    name: Name, store: Store, as_json: AsJson = False, credentials: Credentials = None
) -> None:
    """One line a version, newest first: id, created, rows, accuracy, best baseline, aliases."""
    use_credentials(credentials)
    from storage.database import Database
    from tasks.maintenance.listing import list_versions

    lines = list_versions(Database(store, name))
    if not lines:
        raise InputError(f"database {name} in {store} has no version")
    if as_json:
        say(json.dumps([line.model_dump() for line in lines], indent=1))
        return
    headers = ("rows", "accuracy", "mean layers", "policy", "best baseline", "aliases")
    shown = table("id", "created", *headers)
    for line in lines:
        shown.add_row(
            line.id,
            line.created_at,
            f"{line.rows:,}",
            f"{line.accuracy:.3f}",
            f"{line.mean_layers:.2f}",
            line.policy,
            "" if line.baseline is None else f"{line.baseline} {line.baseline_accuracy:.3f}",
            " ".join(line.aliases),
        )
    print_table(shown)


def show(
    name: NameAt, store: Store, as_json: AsJson = False, credentials: Credentials = None
) -> None:
    """A version's manifest."""
    use_credentials(credentials)
    from storage.database import open_version

    manifest = open_version(store, name).manifest().model_dump(mode="json")
    if as_json:
        say(json.dumps(manifest, indent=1))
        return
    shown = table("what", "value")
    for key, value in manifest.items():
        if key == "files":
            value = "\n".join(f"{f['path']}  {f['bytes']:,} bytes" for f in value)
        elif key == "metrics":
            value = "\n".join(
                f"{policy}: "
                + ", ".join(f"{k} {v:.3f}" for k, v in figures.items() if isinstance(v, float))
                for policy, figures in value.items()
            )
        elif key == "tuning" and value is not None:
            value = f"{value['tried']:,} policies tried; `raee tune` prints what was found"
        elif isinstance(value, dict):
            value = "\n".join(f"{k}: {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        shown.add_row(key, "" if value is None else str(value))
    print_table(shown)


def promote(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="An id, or another alias.")],
    store: Store,
    alias: Alias = DEFAULT_ALIAS,
    if_current: IfCurrent = None,
    credentials: Credentials = None,
) -> None:
    """Point an alias at a version; with `production`, new ones are held against it from now on."""
    use_credentials(credentials)
    from storage.database import Database

    database = Database(store, name)
    record = database.promote(database.open(version).id, alias, if_current)
    _pin(database, alias, record)
    say(f"{name}: {alias} -> {record.version} (before: {record.previous or 'nothing'})")


def rollback(
    name: Name,
    store: Store,
    alias: Alias = DEFAULT_ALIAS,
    if_current: IfCurrent = None,
    credentials: Credentials = None,
) -> None:
    """Point an alias at the version it pointed at before; with `production` as `promote` does."""
    use_credentials(credentials)
    from storage.database import Database

    database = Database(store, name)
    record = database.rollback(alias, if_current)
    _pin(database, alias, record)
    say(f"{name}: {alias} -> {record.version} (before: {record.previous})")


def verify(name: NameAt, store: Store, credentials: Credentials = None) -> None:
    """Read every file of a version and compare it with its manifest; exits with 1 at any fault."""
    use_credentials(credentials)
    read_settings()
    from storage.database import open_version
    from tasks.maintenance.leftovers import faults_of

    version = open_version(store, name)
    named, faults = f"{version.database.name}@{version.id}", faults_of(version)
    for fault in faults:
        say(f"{named}: {fault}")
    if faults:
        raise typer.Exit(BROKEN)
    manifest = version.manifest()
    files = [*manifest.files, *manifest.swept]
    size = sum(f.bytes for f in files)
    but = "" if manifest.digest else "; its manifest is from before manifests had a digest"
    say(f"{named}: {len(files)} files, {size:,} bytes, all as written{but}")


def gc(
    name: Name,
    store: Store,
    keep: Annotated[int, typer.Option(help="Newest versions that stay, aliases or not.")] = 5,
    older_than: Days = 7,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    credentials: Credentials = None,
) -> None:
    """Delete old versions that no alias points at, and what dead builds have left."""
    use_credentials(credentials)
    from storage.database import Database
    from storage.gc import collect
    from storage.leftovers import leftovers

    found = (leftovers if dry_run else collect)(
        Database(store, name), keep, timedelta(days=older_than)
    )
    size = sum(one.bytes for one in found)
    if as_json:
        lines = [one.as_json() for one in found]
        say(json.dumps({"dry_run": dry_run, "bytes": size, "collected": lines}, indent=1))
        return
    if not found:
        say(f"{name}: nothing is to be collected")
        return
    shown = table("what", "where", "files", "bytes", "why")
    for one in found:
        shown.add_row(one.kind, one.path, f"{len(one.files):,}", f"{one.bytes:,}", one.why)
    print_table(shown)
    say(f"{name}: {size:,} bytes {'would go' if dry_run else 'went'}")


def _pin(database: "Database", alias: str, record: "AliasRecord") -> None:
    """Hold new versions against the one that a person has pointed `production` at."""
    if alias == DEFAULT_ALIAS:
        database.promote(record.version, PINNED)
