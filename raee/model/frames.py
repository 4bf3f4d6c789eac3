"""What a model is given of a row beside its text: template, special tokens, demonstrations.

A frame is made of strings that the tokenizer reads in one piece with the text: only so are the
tokens where they meet those that the model expects.
"""

from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any
from unicodedata import category, east_asian_width

from raee.config import Family
from raee.errors import InputError, cut
from raee.model.prompts import GENERATIVE, Example, Prompt

_MARKER = "\ue000\ue001\ue000"
"""A text that no template has, which shows where a chat template puts its messages."""

_NO_THINKING = {"enable_thinking": False, "thinking": False}
"""Asks chat templates, under the names that they have for it, for an answer without reasoning."""

_TODAY = {
    "%Y": "2024",
    "%y": "24",
    "%m": "07",
    "%B": "July",
    "%b": "Jul",
    "%d": "26",
    "%A": "Friday",
    "%a": "Fri",
    "%H": "12",
    "%M": "00",
    "%S": "00",
}
"""The day that chat templates are told, by code of strftime: a version is not read anew daily."""

_BETWEEN = {"causal-lm": "\n\n", "seq2seq-lm": "\n\n", "masked-lm": " "}
"""By family, what separates demonstrations from each other and from the text's own template."""


@dataclass(frozen=True)
class Frame:
    """What surrounds a text, as strings."""

    before: str
    after: str
    special_tokens: bool
    """Whether the tokenizer adds its own special tokens; a chat template has them all."""
    lead: str | None
    """What comes between the end of the prompt and a label word: a space or nothing; None if the
    word has the position of a mask."""
    in_decoder: bool
    """Whether the label word is the first that a decoder writes, with nothing before it."""
    answer: str = ""
    """An answer that the tokenizer reads after the prompt of a causal model.  The prompt's last
    tokens may depend on whether a word comes: they are those that precede it in a finished text."""
    closing: int = 0
    """How many tokens at the end of a row are the answer's, or special ones behind it: they are
    left out, since the model answers there."""

    def around(self, text: str) -> str:
        """The whole prompt."""
        return self.before + text + self.after


def frame_of(prompt: Prompt, tokenizer: Any, family: Family) -> Frame:
    """What a model is given of a row with a prompt, demonstrations included.

    Raises InputError if the prompt is a chat and the tokenizer has no chat template, or one that
    does not show the user's message once.
    """
    if prompt.chat:
        begin, end, in_answer = _in_chat(prompt, tokenizer)
        frame = Frame(begin, end, False, in_answer, family == "seq2seq-lm")
        return _answered_by(frame, prompt, tokenizer, 0) if family == "causal-lm" else frame
    before, after = prompt.frame(tokenizer.mask_token or "")
    lead: str | None = None
    if family in GENERATIVE:
        after, lead = _answered(after)
    shown = "".join(_demonstration(prompt, each, lead) + _BETWEEN[family] for each in prompt.shown)
    frame = Frame(shown + before, after, True, lead, family == "seq2seq-lm")
    if family != "causal-lm":
        return frame
    return _answered_by(frame, prompt, tokenizer, closing_tokens(tokenizer))


def closing_tokens(tokenizer: Any) -> int:
    """How many special tokens the tokenizer puts behind a text."""
    # Of a text that it makes nothing of, the special tokens before it would count, too.
    texts = ["a", "1", "\u00e9", "\u4e2d"]
    marks = tokenizer(texts, return_special_tokens_mask=True)["special_tokens_mask"]
    return min(len([*takewhile(bool, reversed(each))]) for each in marks)


def answer_tokens(tokenizer: Any, frame: Frame, word: str) -> tuple[list[int], list[int]]:
    """The tokens of a causal model's prompt, special ones apart, and those of a word after it.

    Raises InputError if the word makes one token with the end of the prompt.
    """
    prompt = frame.around("a")
    coded = tokenizer(prompt + (frame.lead or "") + word, add_special_tokens=False, verbose=False)
    ids, offsets = coded["input_ids"], coded[0].offsets
    own = len([*takewhile(lambda span: span[1] <= len(prompt), offsets)])
    if own < len(ids) and offsets[own][0] < len(prompt):
        raise InputError(
            f"label word {cut(repr(word))} makes one token with the end of prompt.template for "
            "this tokenizer; end the template in a space or a new line"
        )
    return ids[:own], ids[own:]


def _answered_by(frame: Frame, prompt: Prompt, tokenizer: Any, special: int) -> Frame:
    """The frame with the first label word as an answer.  special: tokens that close a row."""
    answer = (frame.lead or "") + prompt.words[0] if prompt.words else ""
    written = len(answer_tokens(tokenizer, frame, prompt.words[0])[1]) if answer else 0
    return replace(frame, answer=answer, closing=special + written)


def _demonstration(prompt: Prompt, example: Example, lead: str | None) -> str:
    """A labelled text in the template's own form."""
    word = prompt.words[prompt.labels.index(example.label)]
    if lead is None:
        return prompt.render(example.text, word)  # the word takes the mask's position
    before, after = prompt.frame()
    return before + example.text + _answered(after)[0] + lead + word


def _answered(end: str) -> tuple[str, str]:
    """The end of a template as it is read, and what comes between it and a label word.

    A space belongs to the word that follows it: tokenizers that mark the beginnings of words have
    a token for both, and models have hardly ever seen the space alone.
    """
    bare = end.rstrip(" ")
    last = bare[-1:]
    apart = last.isspace() or category(last or " ") in ("Ps", "Pi")
    # Words of scripts that are written without spaces have none in front, either.
    wide = bool(last) and east_asian_width(last) in "WF"
    return bare, "" if bare == end and (apart or wide) else " "


def _in_chat(prompt: Prompt, tokenizer: Any) -> tuple[str, str, str]:
    """What a chat has before and after the text, and before a label word in the answer."""
    if not tokenizer.chat_template:
        raise InputError(
            "prompt.template 'chat': this model's tokenizer has no chat template; give a template "
            "with {text} instead, or a model that was trained to chat"
        )
    before, after = prompt.frame()

    def message(text: str) -> dict[str, str]:
        return {"role": "user", "content": (before + text + after).rstrip(" ")}

    def answer(word: str) -> dict[str, str]:
        return {"role": "assistant", "content": word}

    turns: list[dict[str, str]] = []
    for example in prompt.shown:
        word = prompt.words[prompt.labels.index(example.label)]
        turns += [message(example.text), answer(word)]
    asked = _rendered(tokenizer, [*turns, message(_MARKER)], True)
    if asked.count(_MARKER) != 1:
        raise InputError(
            f"prompt.template 'chat': this model's chat template shows the user's message "
            f"{asked.count(_MARKER)} times instead of once; give a template with {{text}} instead"
        )
    begin, _, end = asked.partition(_MARKER)
    said = _rendered(tokenizer, [*turns, message("a"), answer(_MARKER)], False)
    lead, _, _ = said.removeprefix(f"{begin}a{end}").partition(_MARKER)
    if lead.strip():
        return begin, end, ""  # the template writes an answer otherwise than it asks for one
    return (begin, end, lead) if lead in ("", " ") else (begin, end + lead, "")


def _rendered(tokenizer: Any, turns: list[dict[str, str]], asks: bool) -> str:
    """A chat by the tokenizer's own template.  asks: whether the assistant's turn begins there."""
    try:
        return str(
            tokenizer.apply_chat_template(
                turns,
                chat_template=_on_one_day(tokenizer.get_chat_template()),
                tokenize=False,
                add_generation_prompt=asks,
                **_NO_THINKING,
            )
        )
    except Exception as error:  # what a template raises is its own
        raise InputError(
            f"prompt.template 'chat': this model's chat template cannot be used "
            f"({cut(error, 200)}); give a template with {{text}} instead"
        ) from error


def _on_one_day(template: str) -> str:
    """A chat template that is told the same day every day."""
    if "strftime_now" not in template:
        return template
    day = "".join(f"|replace({code!r},{value!r})" for code, value in _TODAY.items())
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{day} }}}}{{%- endmacro -%}}{template}"
