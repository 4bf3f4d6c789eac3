"""The command line.  Results go to stdout, progress and logs to stderr.

Heavy imports stand inside the commands: `raee --help` and a mistake in a job file answer at once.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import cli_server, cli_store
from flows.console import log_to_stderr, print_table
from flows.options import (
    BAD_INPUT,
    BROKEN,
    INTERRUPTED,
    AsJson,
    Input,
    JobFile,
    JsonFile,
    PolicyName,
    Version,
)
from flows.tables import evaluation_table, explanation_tables, tuning_tables
from raee.errors import InputError
from tasks.job import Job, load_job, validated_policy

app = typer.Typer(
    help="Classify large text corpora with a frozen language model at a fraction of its layers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def build(job_file: JobFile) -> None:
    """Sweep, merge, evaluate, publish a new version; prints its id."""
    from flows.server import orchestrator

    job = load_job(job_file)
    with orchestrator() as wait:
        from flows.rebuild_database import rebuild_database

        log_to_stderr()
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

        log_to_stderr()
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
    _check_writable(json_file)
    from tasks.evaluation import evaluate_corpus

    log_to_stderr()
    found = evaluate_corpus(job, input, version)
    if json_file is not None:
        _write(json_file, json.dumps(found, indent=1))
    print_table(evaluation_table(found))


@app.command()
def tune(job_file: JobFile, version: Version = None, json_file: JsonFile = None) -> None:
    """Search over policies on a version's own rows; prints the best for each cost."""
    job = load_job(job_file)
    _check_writable(json_file)
    from tasks.tune import tune_version

    log_to_stderr()
    readings, found = tune_version(job, version)
    if json_file is not None:
        _write(json_file, found.model_dump_json(indent=1))
    for part in tuning_tables(found, job.policy, readings.where):
        print_table(part)


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

    log_to_stderr()
    found = explain_text(job, text, version, chosen)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for part in explanation_tables(found):
        print_table(part)


for _command in (
    cli_store.prune,
    cli_store.versions,
    cli_store.show,
    cli_store.promote,
    cli_store.rollback,
    cli_store.verify,
    cli_store.gc,
    cli_server.deploy,
    cli_server.up,
):
    app.command()(_command)


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
            return _fail(_of_the_disk(error), BROKEN)
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


def _check_writable(json_file: Path | None) -> None:
    """Raises InputError, before any work, where the figures could not be written in the end."""
    if json_file is None:
        return
    if not json_file.parent.is_dir():
        raise InputError(f"--json {json_file}: there is no folder {json_file.parent}")
    if json_file.is_dir():
        raise InputError(f"--json {json_file}: a folder stands where a file should be")
    if not os.access(json_file if json_file.exists() else json_file.parent, os.W_OK):
        raise InputError(f"--json {json_file}: access denied; may you write there?")


def _write(json_file: Path, text: str) -> None:
    try:
        json_file.write_text(f"{text}\n", "utf-8")
    except OSError as error:
        error.filename = str(json_file)  # a full disk does not say what it is about
        raise


def _of_the_disk(error: OSError) -> str:
    """What a disk says, after the file that it is about."""
    if error.strerror is None:
        return str(error)
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
