"""What `raee init` does: it looks at a corpus and writes a first job file for it."""

import os
import re
import shlex
import signal
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import typer

from flows.cli.console import say
from raee.errors import InputError, cut, listed
from storage.columns import Look, look_at, usable_rows
from storage.corpus import CorpusSpec
from storage.corpus_files import COMPRESSIONS, FORMATS, bare
from storage.database import check_name
from storage.faults import of_the_path, placed
from storage.values import Role
from tasks.job_text import check_can_be_written, job_text
from tasks.propose import (
    AS_UTF_8,
    Proposal,
    check_column,
    propose_id,
    propose_label,
    propose_text,
    seen,
    warnings,
)

_ANY_ENDING = re.compile(
    rf"({'|'.join(map(re.escape, FORMATS))})?({'|'.join(map(re.escape, COMPRESSIONS))})?$", re.I
)

_LONGEST_NAME = 63


def write_first_job(
    input: str,
    output: str | None,
    text: str | None,
    label: str | None,
    id: str | None,
    name: str | None,
    store: str,
    model: str,
) -> None:
    """Do the command `init`, which has these options.

    Raises InputError if the texts cannot be read, a column is none or not clear, or the job file
    cannot be written.
    """
    for flag, value in (("--output", output), ("--store", store), ("--model", model)):
        if value == "":
            raise InputError(f"{flag} is empty")
    if name is None:
        name = _name_of(input)
    check_name("--name", name)
    check_can_be_written("the address", input)
    path = f"{name}.yaml" if output is None else output
    _check_is_free(path)
    look = look_at(input)
    spec, reasons = _described(look, text, label, id)
    usable = usable_rows(spec, look)
    bites = [f"warning: {warning}" for warning in warnings(look, spec, usable)]
    corpus = spec.model_dump(exclude_defaults=True) | {"text": spec.text, "label": spec.label}
    values = {
        "name": name,
        "store": store,
        "corpus": corpus,
        "backbone": {"family": "sentence-encoder", "model": model},
    }
    _write(path, job_text(values, sorted(usable.labels) if look.is_complete else []))
    for line in [*reasons, *bites]:  # only now: a refusal is one line
        say(line, sys.stderr)
    job = shlex.quote(path)
    say(path)
    say(f"raee build {job}")
    say(f"raee classify {job} --input NEW.csv --output predictions")


def _name_of(uri: str) -> str:
    """A database's name after the last part of an address that has a letter or a digit in it."""
    for part in reversed(re.split(r"[/\\]", bare(uri))):
        plain = unicodedata.normalize("NFKD", _ANY_ENDING.sub("", part)).encode("ascii", "ignore")
        found = re.sub(r"[^a-z0-9]+", "-", plain.decode().lower())
        if found := found.strip("-")[:_LONGEST_NAME].strip("-"):
            return found
    return "corpus"


def _check_is_free(path: str) -> None:
    if os.path.lexists(path):
        raise InputError(f"{path} is there already; --output names another file")
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise InputError(f"--output {path}: there is no folder {folder}")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} is there already; --output names another file") from None
    except OSError as error:
        worded = of_the_path(error, path) or placed(error, path)
        if worded is None:
            raise
        raise worded from error


def _described(
    look: Look, text: str | None, label: str | None, id: str | None
) -> tuple[CorpusSpec, list[str]]:
    """A corpus with its columns, and why they are taken that nobody has named.

    text, label, id: the flags.
    """
    if None in (text, label) and _someone_answers():
        for column in look.columns:
            say(f"  {column.name!r}: {seen(column)}", sys.stderr)
    texts = propose_text(look)
    of_text = _chosen(look, texts, text)
    labels = propose_label(look, of_text)
    of_label = _chosen(look, labels, label)
    if of_text == of_label:
        raise InputError(f"--label {cut(repr(of_label))}: that is the column of the text")
    ids = propose_id(look, of_text, of_label)
    of_id = _chosen_id(look, ids, id)
    taken = ((texts, text, of_text), (labels, label, of_label), (ids, id, of_id))
    reasons = [made.reason for made, flag, name in taken if flag is None and name is not None]
    spec = look.spec.model_copy(update={"text": of_text, "label": of_label, "id": of_id})
    return spec, [] if _someone_answers() else reasons


def _chosen(look: Look, proposal: Proposal, flag: str | None) -> str:
    """The column of a role: the flag's, or what the user says, or the only sensible one."""
    if flag is None and _someone_answers():
        return _asked(look, proposal)
    column = _only_sensible(look, proposal) if flag is None else flag
    _check(look, proposal.role, column)
    return column


def _chosen_id(look: Look, proposal: Proposal, flag: str | None) -> str | None:
    """The column of the id; without one, rows are named after their file and number."""
    if flag is None and proposal.candidates:
        first = proposal.candidates[0].name
        if _someone_answers():
            say(proposal.reason, sys.stderr)
            question = f"Are rows named by {cut(repr(first))}?"
            is_id = _answer(lambda: typer.confirm(question, default=proposal.is_clear, err=True))
            flag = first if is_id else None
        elif proposal.is_clear:
            flag = first
    if flag is not None:
        _check(look, "id", flag)
    return flag


def _check(look: Look, role: Role, name: str) -> None:
    check_column(look, role, name)
    check_can_be_written(f"--{role}", name)


def _only_sensible(look: Look, proposal: Proposal) -> str:
    role, found = proposal.role, [column.name for column in proposal.candidates]
    if not found:
        broken = [column.name for column in look.columns if column.broken] + [*look.broken]
        if broken:
            raise InputError(
                f"{look.spec.uri}: not all of {listed(map(repr, broken))} is valid UTF-8; "
                f"{AS_UTF_8}"
            )
        names = listed(repr(column.name) for column in look.columns)
        if look.repeated:
            names += f" (several are called {listed(map(repr, look.repeated))})"
        raise InputError(
            f"{look.spec.uri}: no column looks like the {role}, of {names}; name it: "
            f"--{role} COLUMN"
        )
    if not proposal.is_clear:
        raise InputError(
            f"{look.spec.uri}: the {role} may be {listed(map(repr, found))}; name it: "
            f"--{role} COLUMN"
        )
    return found[0]


def _someone_answers() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asked(look: Look, proposal: Proposal) -> str:
    """The column that a user at a terminal takes for a role."""
    role = proposal.role
    default = proposal.candidates[0].name if proposal.candidates else None
    if default is not None:
        say(proposal.reason, sys.stderr)

    def there(name: str) -> str:
        try:
            _check(look, role, name)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None
        return name

    question = f"Which column is the {role}?"
    return _answer(lambda: typer.prompt(question, default, value_proc=there, err=True))


def _answer(ask: Callable[[], Any]) -> Any:
    """What a user answers.  Raises InputError if the input ends, KeyboardInterrupt on Ctrl-C."""
    # polars has the system go on reading after a signal: Ctrl-C would wait for the next line.
    signal.siginterrupt(signal.SIGINT, True)
    try:
        return ask()
    except typer.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            raise InputError("nothing is written: there was no answer") from None
        raise KeyboardInterrupt from abort
