"""A commented job file, for people who have none yet: `raee init` writes it.

Comments and defaults are those of the job's own models, so a new key is in the next file; a
template would have to follow them by hand.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raee.errors import InputError, cut
from tasks.job import Job
from tasks.job_file import VARIABLE

_WIDTH = 92

_HEAD = (
    "A job of raee: what to build, and how to classify with it.  A key behind a # has its default; "
    "docs/method.md and docs/corpora.md say more.  Relative addresses begin at the folder in which "
    "raee is started; a variable of the environment is written ${NAME}."
)

_MOST_LABELS = 50
"""Labels for which a prompt is written out."""

_LONGEST_LABEL = 80
"""Characters of such a label."""


def job_text(values: Mapping[str, Any], labels: Sequence[str]) -> str:
    """A job file with a comment and a line for each key that there is.

    values: the keys that are set, as in a job file; of a mapping only those of its keys.  All
    others are comments with their defaults.  labels: all labels of the corpus, if they are known.
    """
    lines = [*_comment(_HEAD, "")]
    for name, field in Job.model_fields.items():
        lines += ["", *_comment(_meaning(field), "")]
        given = values.get(name)
        if isinstance(given, dict):
            lines += [f"{name}:", *_below(field, given)]
        elif name == "prompt" and labels and _can_be_shown(labels):
            lines += ["# prompt:", "#   labels:"]
            lines += [f"#     {_yaml(label)}: {_yaml(label)}" for label in labels]
        else:
            lines.append(_line(name, field, values))
    return "\n".join(lines) + "\n"


def check_can_be_written(what: str, value: str) -> None:
    """Raises InputError for a string that a job file would take for another one."""
    if VARIABLE.search(value) or "\0" in value:
        raise InputError(
            f"{what} {cut(repr(value))}: a job file cannot hold a null byte, and takes ${{NAME}} "
            "for a variable of the environment; rename it"
        )


def _below(field: FieldInfo, given: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a mapping's keys."""
    model = field.annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    for name, inner in model.model_fields.items():
        yield from _comment(_meaning(inner), "  ")
        yield f"  {_line(name, inner, given)}"


def _line(name: str, field: FieldInfo, given: Mapping[str, Any]) -> str:
    if name in given:
        return f"{name}: {_yaml(given[name])}"
    default = field.get_default()
    plain = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
    return f"# {name}: {_yaml(plain)}"


def _meaning(field: FieldInfo) -> str:
    """What a key is, and what it may be if that is one of a few words."""
    kind = field.annotation
    meaning = field.description or getattr(kind, "__doc__", None) or ""
    if get_origin(kind) is Literal:
        meaning += f" One of {', '.join(get_args(kind))}."
    return meaning


def _comment(text: str, indent: str) -> list[str]:
    begin = f"{indent}# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=begin, subsequent_indent=begin, break_long_words=False
    )


def _can_be_shown(labels: Sequence[str]) -> bool:
    return len(labels) <= _MOST_LABELS and max(map(len, labels)) <= _LONGEST_LABEL


def _yaml(value: Any) -> str:
    """A value on one line, whatever is in it."""
    is_odd = isinstance(value, str) and not value.isprintable()
    written = yaml.safe_dump(
        [value],
        default_flow_style=True,
        default_style='"' if is_odd else None,
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
    return written.strip()[1:-1]
