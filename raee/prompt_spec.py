"""What a job says about its prompt.  As light as `raee.config`, which has the other keys."""

from collections import Counter
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import PydanticCustomError

from raee.errors import cut, is_unicode, listed
from raee.settings import Settings

MOST_LABELS = 1 << 16
"""The most labels of a database: its entries store them as numbers of 16 bits."""

CHAT = "chat"
"""The template that stands for the tokenizer's own chat template."""


def _in_order(value: Any) -> Any:
    """A list of single labels becomes a mapping; anything else stays as it is."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(v, dict) for v in value):
        raise ValueError(
            "an item of a list of labels is a label with its word, such as `bad: poor`"
        )
    pairs = [pair for each in value for pair in each.items()]
    counts = Counter(name for name, _ in pairs)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"label {cut(repr(min(twice, key=str)))} stands twice")
    return dict(pairs)


def _text(value: str) -> str:
    """A text, if a file can hold it; raises ValueError if it is not valid Unicode."""
    if not is_unicode(value):
        raise ValueError(f"{cut(ascii(value))} is not valid Unicode")
    return value


def _numbered(labels: dict[str, str]) -> dict[str, str]:
    """Labels, if all can be numbered; raises ValueError if there are too many."""
    if len(labels) > MOST_LABELS:
        raise ValueError(
            f"{len(labels):,} labels ({listed(labels)}) are more than the {MOST_LABELS:,} that a "
            "database holds"
        )
    return labels


class PromptSpec(Settings):
    """A prompt of the user's own: what is asked of the model."""

    name: str | None = Field(
        default=None,
        description="A built-in prompt, instead of `labels`: its labels, its words and, unless "
        "there is a `template` here, its template.",
    )
    template: str | None = Field(
        default=None,
        description="The text's frame: `{text}` once; for masked LMs also `{mask}` once. `chat`: "
        "the tokenizer's own chat template, with `instruction` as the user's message.",
    )
    instruction: str | None = Field(
        default=None,
        description="With `template: chat`: the user's message, `{text}` once; default: the "
        "built-in prompt's, or one that names the label words.",
    )
    examples: int = Field(
        default=0,
        ge=0,
        description="Labelled rows of each label that are shown before the text, at most; they "
        "are no rows of the database.",
    )
    labels: Annotated[
        dict[Annotated[str, AfterValidator(_text)], str],
        AfterValidator(_numbered),
        BeforeValidator(_in_order, json_schema_input_type=dict[str, str] | list[dict[str, str]]),
    ] = Field(
        default_factory=lambda: None,
        validate_default=True,
        min_length=1,
        description="Label name to label word (language model) or description (sentence encoder), "
        "in the order of the label integers. As flow parameters, give a list of single ones: "
        "PostgreSQL behind the orchestrator keeps no order of keys.",
    )

    @field_validator("labels", mode="wrap")
    @classmethod
    def _labels_or_a_name(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        named = info.data.get("name") is not None
        if named and not value:
            return {}
        if named:
            raise ValueError("the prompt of `name` has its own; give `name` or `labels`")
        if value is None:
            raise PydanticCustomError("missing", "Field required")
        return handler(value)

    @field_validator("instruction")
    @classmethod
    def _only_in_a_chat(cls, value: str | None, info: ValidationInfo) -> str | None:
        # A validator of the whole would be the name of the branch in the errors of `Job.prompt`.
        if value is not None and info.data.get("template") != CHAT:
            raise ValueError("it goes with `template: chat`")
        return value
