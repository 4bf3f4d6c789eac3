"""The command line.  Results go to stdout, progress and logs to stderr.

Imports that take long are inside the commands: `raee --help` answers at once, and a mistake in a
job file before anything is imported that only the work needs.
"""

import gc
import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.cli import init, server, store
from flows.cli.console import log_to_stderr, prepare_streams, print_table, reader_has_left, say
from flows.cli.options import (
    BAD_INPUT,
    BROKEN,
    INTERRUPTED,
    NOBODY_READS,
    AsJson,
    Input,
    JobFile,
    JsonFile,
    PolicyName,
    Version,
)
from flows.cli.tables import (
    baselines_table,
    evaluation_table,
    explanation_tables,
    tuning_tables,
)
from raee.errors import InputError, cut, is_unicode
from storage.faults import placed
from tasks.prefect_settings import read_settings

if TYPE_CHECKING:
    from tasks.job import Job

app = typer.Typer(
    help="Classify large text corpora with a frozen language model at a fraction of its layers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def build(job_file: JobFile) -> None:
    """Sweep, merge, evaluate, publish a new version; prints its id."""
    from flows.orchestrator.server import orchestrator
    from tasks.job import load_job

    job = load_job(job_file)
    with orchestrator() as wait:
        from flows.rebuild_database import rebuild_database

        log_to_stderr()
        wait()
        version = rebuild_database(job)
    say(version)


@app.command()
def classify(
    job_file: JobFile,
    input: Input,
    output: Annotated[str, typer.Option(metavar="URI", help="A new or empty folder.")],
    version: Version = None,
    policy: PolicyName = None,
) -> None:
    """Classify texts with a version of the database; prints the output's address."""
    from flows.orchestrator.server import orchestrator
    from tasks.job import load_job

    job = load_job(job_file)
    chosen = _policy(job, policy)
    with orchestrator() as wait:
        import transformers.modeling_utils  # noqa: F401 - as loading a model would, after the wait

        from flows.classify_corpus import classify_corpus

        log_to_stderr()
        wait()
        where = classify_corpus(job, input, output, version, chosen)
    say(where)


@app.command()
def evaluate(
    job_file: JobFile,
    input: Input,
    version: Version = None,
    json_file: JsonFile = None,
) -> None:
    """Accuracy, mean layers and rows/s of every policy and baseline on labelled texts."""
    from tasks.job import load_job

    job = load_job(job_file)
    _check_can_be_written(json_file)
    from tasks.classify.evaluation import evaluate_corpus

    log_to_stderr()
    found = evaluate_corpus(job, input, version)
    try:
        print_table(evaluation_table(found))
        for note in found.notes:
            say(note)
    finally:  # neither is lost if the other cannot be written
        _write(json_file, found.model_dump_json(indent=1, exclude_unset=True))


@app.command()
def tune(job_file: JobFile, version: Version = None, json_file: JsonFile = None) -> None:
    """Search over policies on a version's own rows; prints the best for each cost."""
    from tasks.job import load_job

    job = load_job(job_file)
    _check_can_be_written(json_file)
    read_settings()
    from tasks.maintenance.tune import tune_version

    log_to_stderr()
    found = tune_version(job, version)
    try:
        for part in tuning_tables(found.tuning, job.policy, found.where):
            print_table(part)
        print_table(baselines_table(found.metrics, job.policy.name))
        if found.beside is not None and found.beside.better is not None:
            say(found.beside.better)
    finally:  # neither is lost if the other cannot be written
        _write(json_file, found.tuning.model_dump_json(indent=1))


@app.command()
def explain(
    job_file: JobFile,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text.")],
    version: Version = None,
    policy: PolicyName = None,
    as_json: AsJson = False,
) -> None:
    """For one text: its neighbours, what each exit says, where the policy leaves and why."""
    from tasks.job import load_job

    job = load_job(job_file)
    chosen = _policy(job, policy)
    from tasks.classify.explain import explain_text

    log_to_stderr()
    found = explain_text(job, text, version, chosen)
    if as_json:
        say(found.model_dump_json(indent=1))
        return
    for part in explanation_tables(found):
        print_table(part)


for _command in (
    init.init,
    store.prune,
    store.versions,
    store.show,
    store.promote,
    store.rollback,
    store.verify,
    store.gc,
    server.deploy,
    server.up,
):
    app.command()(_command)


def main() -> None:
    """The console script `raee`."""
    prepare_streams()
    code = run(app, sys.argv[1:])
    # Python looks through all objects that are left before it ends, which takes a second.
    gc.freeze()
    sys.exit(code)


def run(command: Callable[..., Any], arguments: list[str]) -> int:
    """Run a command; a user's mistake is one line on stderr and exit code 2."""
    try:
        _check_encoded(arguments)
        _check_folder()
        code = command(arguments, standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this code
            raise KeyboardInterrupt
    except InputError as error:
        return _fail(str(error), BAD_INPUT)
    except typer.Exit as stop:
        return stop.exit_code
    except BaseException as error:
        if _behind(error, KeyboardInterrupt):
            return _fail("interrupted; run the same command again to go on from here", INTERRUPTED)
        broken = _behind(error, BrokenPipeError)
        if broken and reader_has_left():
            return NOBODY_READS
        if broken and isinstance(error, SystemExit):  # typer turns any broken pipe into this
            error = broken
        if isinstance(error, OSError):  # a full disk, a store that may not be written
            return _fail(_of_the_disk(error), BROKEN)
        # typer's own usage errors, which say how to do it
        show_usage = getattr(error, "show", None)
        if show_usage is None:
            raise
        with suppress(OSError):
            show_usage()
        return BAD_INPUT
    return code if isinstance(code, int) else 0


_Kind = TypeVar("_Kind", bound=BaseException)


def _behind(error: BaseException | None, kind: type[_Kind]) -> _Kind | None:
    """The error of a kind that is behind an error: interrupted libraries may raise another."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # nobody reads it: the code says enough
        say(f"raee: {' '.join(message.split())}", sys.stderr)
    return code


def _policy(job: "Job", name: str | None) -> Any:
    """The policy that a command names, with the job's settings if it is the job's."""
    from tasks.job import validated_policy

    return job.policy if name is None or name == job.policy.name else validated_policy(name)


def _check_encoded(arguments: Sequence[str]) -> None:
    """Raises InputError if the bytes of an argument are no text in the locale's encoding."""
    for argument in arguments:
        if not is_unicode(argument):
            encoding = sys.getfilesystemencoding()
            raise InputError(
                f"the argument {cut(ascii(argument))} is not valid {encoding}; convert it, or let "
                "the locale (LC_ALL) name its encoding"
            )


def _check_folder() -> None:
    """Raises InputError if the folder that the command is given in is gone."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the current folder is not there any more; go to another one") from None


def _check_can_be_written(json_file: Path | None) -> None:
    """Raises InputError if a file of figures could not be written: they take a while to compute."""
    if json_file is None:
        return
    folder = json_file.parent
    try:
        if not folder.is_dir():
            fault = f"there is no folder {folder}"
        elif stat.S_ISDIR(json_file.stat().st_mode):
            fault = "it is a folder; name a file in it"
        else:
            fault = "" if os.access(json_file, os.W_OK) else "you may not write it"
    except FileNotFoundError:
        fault = "" if os.access(folder, os.W_OK | os.X_OK) else f"you may not write to {folder}"
    except OSError as error:  # such as too long a name
        fault = str(error.strerror)
    if fault:
        raise InputError(f"--json {json_file}: {fault}")


def _write(json_file: Path | None, figures: str) -> None:
    if json_file is None:
        return
    try:
        json_file.write_text(f"{figures}\n", "utf-8")
    except OSError as error:
        fault = placed(error, str(json_file))
        if fault is None:
            raise
        raise fault from error


def _of_the_disk(error: OSError) -> str:
    """The message of a disk's error, after the file that it is about."""
    if error.strerror is None:
        return str(error)
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
