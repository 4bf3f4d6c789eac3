"""The command line.  Results go to stdout, progress and logs to stderr.

Heavy imports stand inside the commands: `raee --help` and a mistake in a job file answer at once.
"""

import json
import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.tables import (
    evaluation_table,
    explanation_tables,
    pruning_table,
    table,
    tuning_tables,
)
from raee.errors import InputError
from storage.aliases import DEFAULT_ALIAS
from tasks.job import Job, load_job, validated_policy

app = typer.Typer(
    help="Classify large text corpora with a frozen language model at a fraction of its layers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BROKEN = 1
BAD_INPUT = 2
INTERRUPTED = 130

JobFile = Annotated[str, typer.Argument(metavar="JOB.yaml", help="The job file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The database's name.")]
NameAt = Annotated[
    str,
    typer.Argument(metavar="NAME[@VERSION]", help="The database, and a version or alias of it."),
]
Store = Annotated[
    str, typer.Option(envvar="RAEE_STORE", help="Where databases lie: a folder or a URI.")
]
Input = Annotated[str, typer.Option(metavar="URI", help="File, folder or glob.")]
Version = Annotated[
    str | None,
    typer.Option(
        metavar="ID|ALIAS",
        help=f"Default: what the alias `{DEFAULT_ALIAS}` points at, or the newest version.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PolicyName = Annotated[str | None, typer.Option(metavar="NAME", help="Default: the job's policy.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there, too.")
]
Alias = Annotated[str, typer.Option(help="The alias.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would go.")]
Days = Annotated[
    int,
    typer.Option(
        min=0,
        max=36_500,
        metavar="DAYS",
        help="How long a dead build's leftovers stay; 0 is safe only while no build runs.",
    ),
]
IfCurrent = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="Only if the alias points at this id now; an empty one: only if it is not set.",
    ),
]


@app.command()
def build(job_file: JobFile) -> None:
    """Sweep, merge, evaluate, publish a new version; prints its id."""
    from flows.server import orchestrator

    job = load_job(job_file)
    with orchestrator() as wait:
        from flows.rebuild_database import rebuild_database

        _log_to_stderr()
        wait()
        version = rebuild_database(job)
    typer.echo(version)


@app.command()
def classify(
    job_file: JobFile,
    input: Input,
    output: Annotated[str, typer.Option(metavar="URI", help="A new or empty folder.")],
    version: Version = None,
    policy: PolicyName = None,
) -> None:
    """Classify texts with a version of the database; prints the output's address."""
    from flows.server import orchestrator

    job = load_job(job_file)
    chosen = _policy(job, policy)
    with orchestrator() as wait:
        from flows.classify_corpus import classify_corpus

        _log_to_stderr()
        wait()
        where = classify_corpus(job, input, output, version, chosen)
    typer.echo(where)


@app.command()
def evaluate(
    job_file: JobFile,
    input: Input,
    version: Version = None,
    json_file: JsonFile = None,
) -> None:
    """Accuracy, mean layers and rows/s of every policy on labelled texts."""
    job = load_job(job_file)
    _check_folder(json_file)
    from tasks.evaluation import evaluate_corpus

    _log_to_stderr()
    found = evaluate_corpus(job, input, version)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    _print(evaluation_table(found))


@app.command()
def tune(job_file: JobFile, version: Version = None, json_file: JsonFile = None) -> None:
    """Search over policies on a version's own rows; prints the best for each cost."""
    job = load_job(job_file)
    _check_folder(json_file)
    from tasks.tune import tune_version

    _log_to_stderr()
    readings, found = tune_version(job, version)
    if json_file is not None:
        json_file.write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
    for part in tuning_tables(found, job.policy, readings.where):
        _print(part)


@app.command()
def explain(
    job_file: JobFile,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text.")],
    version: Version = None,
    policy: PolicyName = None,
    as_json: AsJson = False,
) -> None:
    """For one text: its neighbours, what each exit says, where the policy leaves and why."""
    job = load_job(job_file)
    chosen = _policy(job, policy)
    from tasks.explain import explain_text

    _log_to_stderr()
    found = explain_text(job, text, version, chosen)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for part in explanation_tables(found):
        _print(part)


@app.command()
def prune(name: NameAt, store: Store, as_json: AsJson = False) -> None:
    """Publish a child version without the rows that replay does not miss; prints its id."""
    from tasks.prune import prune_version

    _log_to_stderr()
    database, _, version = name.partition("@")
    child, account = prune_version(store, database, version or None)
    if as_json:
        typer.echo(json.dumps({"version": child, **account}, indent=1))
        return
    if child is None:
        typer.echo(f"{database}@{account['of']}: no tenth of its rows can go; nothing is published")
        return
    _print(pruning_table(account))
    typer.echo(child)


@app.command()
def versions(name: Name, store: Store, as_json: AsJson = False) -> None:
    """One line a version, newest first: id, created, rows, accuracy, aliases."""
    from tasks.listing import list_versions

    lines = list_versions(store, name)
    if as_json:
        typer.echo(json.dumps(lines, indent=1))
        return
    if not lines:
        raise InputError(f"database {name} in {store} has no version")
    shown = table("id", "created", "rows", "accuracy", "mean layers", "policy", "aliases")
    for line in lines:
        shown.add_row(
            line["id"],
            line["created_at"],
            f"{line['rows']:,}",
            f"{line['accuracy']:.3f}",
            f"{line['mean_layers']:.2f}",
            line["policy"],
            " ".join(line["aliases"]),
        )
    _print(shown)


@app.command()
def show(name: NameAt, store: Store, as_json: AsJson = False) -> None:
    """A version's manifest."""
    from storage.versions import read_manifest

    manifest = read_manifest(store, *_resolved(name, store)).model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(manifest, indent=1))
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
    _print(shown)


@app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="An id, or another alias.")],
    store: Store,
    alias: Alias = DEFAULT_ALIAS,
    if_current: IfCurrent = None,
) -> None:
    """Point an alias at a version."""
    from storage.aliases import promote, resolve_version

    record = promote(store, name, resolve_version(store, name, version), alias, if_current)
    typer.echo(f"{name}: {alias} -> {record.version} (before: {record.previous or 'nothing'})")


@app.command()
def rollback(
    name: Name, store: Store, alias: Alias = DEFAULT_ALIAS, if_current: IfCurrent = None
) -> None:
    """Point an alias at the version it pointed at before."""
    from storage.aliases import rollback

    record = rollback(store, name, alias, if_current)
    typer.echo(f"{name}: {alias} -> {record.version} (before: {record.previous})")


@app.command()
def verify(name: NameAt, store: Store) -> None:
    """Read every file of a version and compare size and SHA-256; exits with 1 where any differs."""
    from storage.versions import database_folder, read_manifest, verify, version_folder

    database, version = _resolved(name, store)
    manifest = read_manifest(store, database, version)
    faults = verify(version_folder(store, database, version), manifest.files)
    faults += verify(database_folder(store, database), manifest.swept)
    for fault in faults:
        typer.echo(f"{database}@{version}: {fault}")
    if faults:
        raise typer.Exit(BROKEN)
    files = [*manifest.files, *manifest.swept]
    size = sum(f.bytes for f in files)
    typer.echo(f"{database}@{version}: {len(files)} files, {size:,} bytes, all as written")


@app.command()
def gc(
    name: Name,
    store: Store,
    keep: Annotated[int, typer.Option(help="Newest versions that stay, aliases or not.")] = 5,
    older_than: Days = 7,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete old versions that no alias points at, and what dead builds have left."""
    from storage.gc import collect, leftovers

    found = (leftovers if dry_run else collect)(store, name, keep, timedelta(days=older_than))
    size = sum(one.bytes for one in found)
    if as_json:
        lines = [one.account() for one in found]
        typer.echo(json.dumps({"dry_run": dry_run, "bytes": size, "collected": lines}, indent=1))
        return
    if not found:
        typer.echo(f"{name}: nothing is to be collected")
        return
    shown = table("what", "where", "files", "bytes", "why")
    for one in found:
        shown.add_row(one.kind, one.path, f"{len(one.files):,}", f"{one.bytes:,}", one.why)
    _print(shown)
    typer.echo(f"{name}: {size:,} bytes {'would go' if dry_run else 'went'}")


def main() -> None:
    """The console script `raee`."""
    sys.exit(run(app, sys.argv[1:]))


def run(command: Callable[..., Any], arguments: list[str]) -> int:
    """Run a command; a user's mistake is one line on stderr and exit code 2."""
    try:
        code = command(arguments, standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except InputError as error:
        return _fail(str(error), BAD_INPUT)
    except typer.Exit as stop:
        return stop.exit_code
    except BaseException as error:
        if _interrupted(error):
            return _fail("interrupted; run the same command again to go on from here", INTERRUPTED)
        if isinstance(error, OSError):  # a full disk, a store that may not be written
            return _fail(str(error), BROKEN)
        # typer's own usage errors, which say how to do it
        show_usage = getattr(error, "show", None)
        if show_usage is None:
            raise
        show_usage()
        return BAD_INPUT
    return code if isinstance(code, int) else 0


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: Prefect, cut short in its own steps, may raise another."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _fail(message: str, code: int) -> int:
    typer.echo(f"raee: {' '.join(message.split())}", err=True)
    return code


def _policy(job: Job, name: str | None) -> Any:
    """The policy that a command names, with the job's settings where it is the job's."""
    return job.policy if name is None or name == job.policy.name else validated_policy(name)


def _resolved(name_at: str, store: str) -> tuple[str, str]:
    from storage.aliases import resolve_version

    name, _, version = name_at.partition("@")
    return name, resolve_version(store, name, version or None)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.name = "raee-stderr"
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("raee")
    for before in [h for h in logger.handlers if h.name == handler.name]:
        logger.removeHandler(before)  # of an earlier command in this process
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _check_folder(json_file: Path | None) -> None:
    if json_file is not None and not json_file.parent.is_dir():
        raise InputError(f"--json {json_file}: there is no folder {json_file.parent}")


def _print(table: Table) -> None:
    # Piped output is as wide as its lines: nothing is cut to a terminal that is not there.
    # What stands in the cells is the user's: brackets and colons are no markup there.
    width = None if sys.stdout.isatty() else 500
    console = Console(width=width, markup=False, emoji=False)
    console.print(table)
