"""Prompts: what is asked of the model, built in or the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml

from raee.config import MOST_LABELS, Family, PromptSpec
from raee.errors import InputError, cut, listed
from raee.prompt_spec import CHAT

Form = Literal["masked", "instruct", "described"]

_FORM_OF_FAMILY: dict[Family, Form] = {
    "masked-lm": "masked",
    "sentence-encoder": "described",
    "causal-lm": "instruct",
    "seq2seq-lm": "instruct",
}

GENERATIVE: tuple[Family, ...] = ("causal-lm", "seq2seq-lm")
"""Families whose models answer with the token that they would write next."""


@dataclass(frozen=True)
class Example:
    """A labelled row of the corpus that is shown before a text."""

    text: str
    """As it is shown: a long one has lost its end."""
    label: str
    key: str
    """`raee.examples.text_key` of the whole text."""


@dataclass(frozen=True)
class Prompt:
    """A template and, for each label in order, the word or description that represents it."""

    labels: tuple[str, ...]
    words: tuple[str, ...]
    template: str = "{text}"
    """The frame of one text; in a chat the user's message."""
    chat: bool = False
    """Whether the template is a message in the tokenizer's own chat template."""
    examples: int = 0
    """Rows of each label that a build picks to be shown before a text, at most."""
    shown: tuple[Example, ...] = ()
    """The rows that it has picked, in the order in which they are shown."""

    def render(self, text: str, mask: str = "") -> str:
        """The template with `text` filled in; `{text}` inside the text stays as it is."""
        before, after = self.frame(mask)
        return before + text + after

    def frame(self, mask: str = "") -> tuple[str, str]:
        """The parts of the template before and after the text."""
        before, _, after = self.template.partition("{text}")
        return before.replace("{mask}", mask), after.replace("{mask}", mask)

    @property
    def mask_is_first(self) -> bool:
        """True if the template's mask comes before the text."""
        return "{mask}" in self.template.partition("{text}")[0]


@cache
def _built_in() -> dict[str, dict]:
    return yaml.safe_load((files("raee.model") / "prompts.yaml").read_text("utf-8"))


def built_in_names() -> tuple[str, ...]:
    """The names of the paper's eight prompts."""
    return tuple(_built_in())


def built_in(name: str, form: Form) -> Prompt:
    """One of the paper's eight prompts in the form for a kind of model.

    Raises InputError if there is no prompt of that name.
    """
    if name not in _built_in():
        raise InputError(
            f"prompt {cut(repr(name))} is not built in; there are {listed(built_in_names())}, "
            "or write your own as {template: .., labels: {..}}"
        )
    prompt = _built_in()[name]
    labels = tuple(prompt["labels"])
    if form == "described":
        return Prompt(labels, tuple(prompt["described"]))
    return Prompt(labels, tuple(prompt[form]["words"]), prompt[form]["template"])


def resolve_prompt(
    spec: str | PromptSpec | None, family: Family, corpus_labels: Sequence[str] | None = None
) -> Prompt:
    """The prompt that a job means.

    Without a prompt, a sentence encoder takes the corpus's labels as their own descriptions.
    Raises InputError if the template does not fit the family, nothing names the labels, or they
    are more than a database holds.
    """
    if isinstance(spec, str):
        return built_in(spec, _FORM_OF_FAMILY[family])
    if spec is not None:
        return _own(spec, family)
    if family != "sentence-encoder":
        raise InputError(f"prompt is missing: family {family} needs a template and label words")
    if corpus_labels is None:
        raise InputError("prompt is missing and no corpus says what the labels are")
    if len(corpus_labels) > MOST_LABELS:
        raise InputError(
            f"the corpus has {len(corpus_labels):,} labels ({listed(corpus_labels)}), more than "
            f"the {MOST_LABELS:,} that a database holds; does corpus.label name the labels' column?"
        )
    return Prompt(tuple(corpus_labels), tuple(corpus_labels))


def examples_of(spec: str | PromptSpec | None) -> int:
    """How many rows of each label a job wants to have shown before a text."""
    return spec.examples if isinstance(spec, PromptSpec) else 0


def declared_labels(spec: str | PromptSpec | None, family: Family) -> tuple[str, ...] | None:
    """The labels that the prompt names, or None if the corpus names them.

    Raises InputError as `resolve_prompt` does.
    """
    return None if spec is None else resolve_prompt(spec, family).labels


def _own(spec: PromptSpec, family: Family) -> Prompt:
    """A prompt of the user's own, or a built-in one with some of it changed."""
    if spec.name is not None:
        prompt = built_in(spec.name, _FORM_OF_FAMILY[family])
        default: str | None = prompt.template
    else:
        _check_different(spec.labels)
        prompt = Prompt(tuple(spec.labels), tuple(spec.labels.values()))
        default = None if family in GENERATIVE else prompt.template
    if spec.template == CHAT:
        template = _message(spec, family, prompt.words, default)
    elif spec.template is not None:
        template = spec.template
    elif default is not None:
        template = default
    else:
        raise InputError(
            f"prompt.template is missing: family {family} needs one with {{text}} once and no "
            f"{{mask}}, or {CHAT!r}"
        )
    _check_template("prompt.template", template, family)
    if spec.examples and family == "sentence-encoder":
        raise InputError(
            "prompt.examples: family sentence-encoder is not asked anything that examples could "
            "answer; leave them out"
        )
    return replace(prompt, template=template, chat=spec.template == CHAT, examples=spec.examples)


def _message(spec: PromptSpec, family: Family, words: Sequence[str], default: str | None) -> str:
    """The user's message of a chat: the user's own, the built-in one or the default."""
    if family not in GENERATIVE:
        raise InputError(
            f"prompt.template {CHAT!r}: family {family} does not chat; give a template, or one of "
            f"the families {' and '.join(GENERATIVE)}"
        )
    if spec.instruction is not None:
        _check_template("prompt.instruction", spec.instruction, family)
        return spec.instruction
    if default is not None:
        return default
    *others, last = words
    choice = f"{', '.join(others)} or {last}" if others else last
    return f"Label the text with one of these words: {choice}. Print the word only.\n\n{{text}}"


def _check_template(key: str, template: str, family: Family) -> None:
    masks = 1 if family == "masked-lm" else 0
    if template.count("{text}") != 1 or template.count("{mask}") != masks:
        needs = "{text} once and {mask} once" if masks else "{text} once and no {mask}"
        raise InputError(f"{key} {cut(repr(template))}: family {family} needs {needs}")


def _check_different(words: dict[str, str]) -> None:
    label_of: dict[str, str] = {}
    for label, word in words.items():
        if not word.strip():
            raise InputError(f"prompt.labels: {cut(repr(label))} is {cut(repr(word))}; give a word")
        if word in label_of:
            raise InputError(
                f"prompt.labels: {cut(repr(label_of[word]))} and {cut(repr(label))} are both "
                f"{cut(repr(word))}; "
                "the model could not tell them apart"
            )
        label_of[word] = label
