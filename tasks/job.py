"""The job: one pydantic model is the job file, the flows' parameters and the manifest's `job`.

Light on purpose: a command reads its job before anything heavy is imported.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from raee.config import (
    BackboneSpec,
    FarSpec,
    KeySpec,
    PolicySpec,
    PromptSpec,
    Settings,
    TunedPolicy,
)
from raee.errors import InputError, clauses, cut
from storage.corpus import CorpusSpec
from storage.versions import NAME_PATTERN


class Job(Settings):
    """What to build, and how to classify with it."""

    name: str = Field(
        pattern=f"^{NAME_PATTERN}$",
        description="The database's name: lowercase letters, digits and dashes.",
    )
    store: str = Field(min_length=1, description="Where databases lie: a folder or a URI.")
    corpus: CorpusSpec = Field(description="The labelled texts.")
    prompt: str | PromptSpec | None = Field(
        default=None,
        description="A built-in prompt's name, or a prompt of your own. A sentence encoder needs "
        "none: the corpus's labels are then their own descriptions.",
    )
    backbone: BackboneSpec
    key: KeySpec = Field(default=KeySpec(), description="The vector by which neighbours are found.")
    policy: PolicySpec = Field(
        default=TunedPolicy(), description="At which exit a row answers: a name, or with settings."
    )
    far: FarSpec | None = Field(
        default=FarSpec(), description="What becomes of rows unlike the database's; null: nothing."
    )
    balance: Literal["database", "corpus"] = Field(
        default="database",
        description="Label shares that readers expect: the database's, or those estimated from "
        "the unlabelled corpus.",
    )
    sample_rows: int = Field(
        default=20_000,
        ge=1,
        description="Rows whose states are kept for the figures of probes without the text.",
    )
    index: str = Field(
        default="auto",
        min_length=1,
        description="`auto`: exact search as far as its time allows, then what measured recall "
        "allows; or one of FAISS's own descriptions, such as IVF4096,Flat.",
    )
    keep_text: bool = Field(
        default=True, description="Entries carry the text, for reports and explanations."
    )
    max_reject_fraction: float = Field(
        default=0.01, ge=0, le=1, description="More unusable rows than this stop the job."
    )
    credentials: str | None = Field(
        default=None,
        min_length=1,
        description="An AWS Credentials block of the orchestrator, for S3; by default they come "
        "from the environment or the AWS profile.",
    )
    single_writer: bool = Field(
        default=False,
        description="Only one process at a time writes to the store: allows a store that cannot "
        "refuse to write over a file.",
    )
    shard_rows: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="Rows of a shard; `auto`: tens of seconds of work."
    )


def load_job(path: str) -> Job:
    """A job file.

    Raises InputError, with one line that names the file and the key, where it is not one.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2026-13-45 is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InputError(f"{path}{where}: this is no YAML: {problem}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a job file is a mapping of keys such as name, store, corpus")
    try:
        values = _expand(values, path, "")
        return Job.model_validate(values)
    except ValidationError as error:
        # A mapping was never meant to be the string that a prompt could be instead.
        faults = [
            e
            for e in error.errors()
            if (e["loc"][1:] != ("str",) or not isinstance(e["input"], dict))
            # Nor is a list empty of which no item is any good.
            and (e["type"] != "too_short" or not e["input"])
        ]
        lines = [_line(fault, values) for fault in faults]
        raise InputError(f"{path}: {clauses(lines)}") from error


def validated_policy(name: str) -> PolicySpec:
    """A policy by its name.  Raises InputError for one that is not there."""
    values = {"policy": name}
    try:
        return _PolicyName.model_validate(values).policy
    except ValidationError as error:
        raise InputError(_line(error.errors()[0], values)) from error


class _PolicyName(Settings):
    policy: PolicySpec


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _expand(value: Any, path: str, key: str) -> Any:
    """`${VAR}` in strings from the environment."""
    if isinstance(value, dict):
        return {k: _expand(v, path, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, path, f"{key}.{i}") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def from_environment(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise InputError(f"{path}: {key}: environment variable {name} is not set")
        return os.environ[name]

    return _VARIABLE.sub(from_environment, value)


_IN_YAML = {
    "dict_type": "input should be a mapping",
    "model_type": "input should be a mapping",
    "model_attributes_type": "input should be a name or a mapping",
    "tuple_type": "input should be a list",
    "too_short": "input should not be empty",
}
"""By a type of pydantic's errors, what it says of Python's types, in YAML's words."""


def _line(error: Any, values: dict[str, Any]) -> str:
    """One of pydantic's errors on some values as a clause: the key, and what is wrong."""
    key = cut(".".join(_keys(error["loc"], values, error["type"] == "missing")))
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "union_tag_not_found":
        return f"{key}.name: missing"
    if error["type"] == "union_tag_invalid":
        return (
            f"{key}: {cut(repr(error['input']['name']))} is none of {error['ctx']['expected_tags']}"
        )
    message = _IN_YAML.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]} (it is {cut(repr(error['input']))})"


def _keys(loc: Sequence[str | int], value: Any, last_is_missing: bool) -> Iterator[str]:
    """The keys in an error's place; a user wrote no name of a union's branch that was tried."""
    for number, part in enumerate(loc, 1):
        in_list = isinstance(value, list) and isinstance(part, int)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif not (last_is_missing and number == len(loc)):
            continue
        yield str(part)
