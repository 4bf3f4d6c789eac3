"""The job: one pydantic model is the job file, the flows' parameters and the manifest's `job`.

This module is light on purpose: a command reads its job before anything heavy is imported.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError

from raee.config import (
    BackboneSpec,
    FarSpec,
    KeySpec,
    Method,
    PolicySpec,
    PromptSpec,
    Settings,
    TunedPolicy,
)
from raee.errors import InputError, clauses, cut
from storage.corpus import CorpusSpec
from storage.database import Database
from storage.manifest import NAME_PATTERN
from tasks.job_file import Unquoted, read_job_file

_SHORT = Repr()
"""Shortens values in messages: anchors may make them endless."""
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


Balance = Literal["auto", "database", "corpus"]


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
    balance: Balance = Field(
        default="auto",
        description="Label shares that readers expect: the database's, or those estimated from "
        "the unlabelled corpus if they differ beyond noise. `auto` draws the estimate towards the "
        "database's shares by as much as it is noise, `corpus` takes it as it is.",
    )
    sample_rows: int = Field(
        default=20_000,
        ge=1,
        description="Rows whose states are kept for the figures of probes without the text.",
    )
    words_rows: int = Field(
        default=200_000,
        ge=1,
        description="Rows that n-grams are fitted on; a sample with the corpus's label shares if "
        "it has more, and no fewer than `sample_rows`.",
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

    @property
    def method(self) -> Method:
        """What decides a version beside its rows."""
        return Method.model_validate({key: getattr(self, key) for key in Method.model_fields})

    @property
    def database(self) -> Database:
        """The database that it builds and reads."""
        return Database(self.store, self.name)


def load_job(path: str) -> Job:
    """Read a job file.

    Raises InputError, with one line that names the file and the key, if it is no valid job.
    """
    values, unquoted = read_job_file(path)
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        # A mapping was never meant to be the string that a prompt could be instead.
        faults = [
            e
            for e in error.errors()
            if (e["loc"][1:] != ("str",) or not isinstance(e["input"], dict))
            # A list whose items are all wrong is not empty, either.
            and (e["type"] != "too_short" or not e["input"])
        ]
        lines = [_line(fault, values, unquoted) for fault in faults]
        raise InputError(f"{path}: {clauses(lines)}") from error


def validated_policy(name: str) -> PolicySpec:
    """A policy by its name.  Raises InputError if there is no such policy."""
    values = {"policy": name}
    try:
        return _PolicyName.model_validate(values).policy
    except ValidationError as error:
        raise InputError(_line(error.errors()[0], values, {})) from error


class _PolicyName(Settings):
    policy: PolicySpec


_IN_YAML = {
    "dict_type": "input should be a mapping",
    "model_type": "input should be a mapping",
    "model_attributes_type": "input should be a name or a mapping",
    "tuple_type": "input should be a list",
    "too_short": "input should not be empty",
}
"""By a type of pydantic's errors, its message in YAML's words instead of Python's."""


def _line(error: Any, values: dict[str, Any], unquoted: Unquoted) -> str:
    """An error of pydantic's on some values as a clause: the key, and what is wrong."""
    key = cut(".".join(_keys(error["loc"], values, error["type"] == "missing")))
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = get_close_matches(str(error["loc"][-1]), known, 1, cutoff=0.65)
        return f"{key}: unknown key" + "".join(f"; did you mean {name}?" for name in near)
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "union_tag_not_found":
        return f"{key}.name: missing"
    if error["type"] == "union_tag_invalid":
        return (
            f"{key}: {cut(repr(error['input']['name']))} is none of {error['ctx']['expected_tags']}"
        )
    message = _IN_YAML.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    shown = _as_written(error["input"], key, unquoted)
    if error["type"] == "string_type" and key in unquoted:
        shown += f", {unquoted[key][1]} to YAML; put text in quotes"
    return f"{key}: {message[0].lower()}{message[1:]} (it is {cut(shown)})"


def _as_written(value: Any, key: str, unquoted: Unquoted) -> str:
    """A value for a message, as it is written in the file."""
    if key in unquoted:
        return unquoted[key][0]
    if isinstance(value, list) and len(value) <= _SHORT.maxlist:
        shown = [_SHORT.repr(item) for item in value]
        items = (unquoted.get(f"{key}.{i}", (item,))[0] for i, item in enumerate(shown))
        return f"[{', '.join(items)}]"
    return _SHORT.repr(value)


def _known_keys(loc: Sequence[str | int]) -> list[str]:
    """The keys that a job may have at a location, as pydantic names it."""
    models: list[type[BaseModel]] = [Job]
    for part in loc:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        below = [model for field in fields for model in _models_in(field.annotation)]
        # A part that is no key names the branch of a union that was tried.
        models = below or [m for m in models if part in (m.__name__, _name_of(m))]
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _name_of(model: type[BaseModel]) -> Any:
    return model.model_fields["name"].default if "name" in model.model_fields else None


def _keys(loc: Sequence[str | int], value: Any, last_is_missing: bool) -> Iterator[str]:
    """The keys in an error's location, without names of a union's branches: no user wrote these."""
    for number, part in enumerate(loc, 1):
        in_list = isinstance(value, list) and isinstance(part, int)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif not (last_is_missing and number == len(loc)):
            continue
        yield str(part)
