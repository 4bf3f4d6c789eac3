"""The beginning of a long text, which is all that a model reads of it.

Before a model's vocabulary sees a text, its tokenizer takes the text apart, at spaces most of all.
What stands before such a place gets the same tokens whatever comes after it, so a text that is far
longer than the model takes need not be tokenized whole.  The tokenizer is asked at each place: what
it makes of the characters before it alone must be the beginning of what it makes of those around.
"""

import string
from itertools import islice, product
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from tokenizers import PreTokenizedString

from raee.model.coding import coded

_AROUND = 32
"""Characters on each side of a place that the tokenizer is asked about, at least."""

_TRIES = 32
"""Places of a text at which the tokenizer is asked; then the text stays whole."""

Kind = Literal["letter", "digit", "mark", "ideograph", "wide mark", "space", "line"]

_EXAMPLES: dict[Kind, str] = {
    "letter": "a",
    "digit": "5",
    "mark": ".",
    "ideograph": "\u597d",
    "wide mark": "\u3002",
    "space": " ",
    "line": "\n",
}

_APART: set[tuple[Kind, Kind]] = {
    ("letter", "letter"),
    ("digit", "digit"),  # some group digits from the last one on, however many there are
    ("mark", "mark"),
}
"""Kinds between which no text is cut."""


class _Known(NamedTuple):
    """What is found out of a tokenizer once."""

    kinds: frozenset[tuple[Kind, Kind]]
    """Those between which it takes examples apart: it is asked nowhere else."""
    around: int
    """Characters on each side of a place: as many as its longest added token has, or more."""


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def beginning(tokenizer: Any, text: str, size: int, end: str = "") -> str:
    """A text up to the last place among its first `size` characters where it may be cut.

    It is the whole text if it is no longer, if there is no such place in the second half of them,
    or if the tokenizer would have to be asked too often.  end: what comes after the text, which
    must not join what is left of it, either.
    """
    if len(text) <= size:
        return text
    if tokenizer not in _known:
        added = (len(str(token)) for token in tokenizer.added_tokens_decoder.values())
        _known[tokenizer] = _Known(_kinds_apart(tokenizer), max([_AROUND, *added]))
    kinds, around = _known[tokenizer]
    likely = (
        place
        for place in range(size, size // 2, -1)
        if (_kind(text[place - 1]), _kind(text[place])) in kinds
    )
    for place in islice(likely if kinds else (), _TRIES):
        before, after = text[max(0, place - around) : place], text[place : place + around]
        if _part(tokenizer, before, after) and (not end or _part(tokenizer, before, end[:around])):
            return text[:place]
    return text


def _kinds_apart(tokenizer: Any) -> frozenset[tuple[Kind, Kind]]:
    return frozenset(
        (one, other)
        for (one, before), (other, after) in product(_EXAMPLES.items(), repeat=2)
        if one not in ("space", "line")
        and (one, other) not in _APART
        and _part(tokenizer, f"a{before}", f"{after}a")
    )


def _part(tokenizer: Any, before: str, after: str) -> bool:
    """Whether what a tokenizer makes of the end of a text does not depend on what comes after."""
    if tokenizer.backend_tokenizer.pre_tokenizer is None:
        return False
    pieces, both = (_pieces(tokenizer.backend_tokenizer, t) for t in (before, before + after))
    if both[: len(pieces)] != pieces:
        return False
    # Added tokens are found before anything is taken apart.
    alone, every = coded(tokenizer, [before, before + after], False)["input_ids"]
    return bool(every[: len(alone)] == alone)


def _pieces(backend: Any, text: str) -> list[tuple[str, tuple[int, int]]]:
    """The parts of a text, normalized, and where they stand in it."""
    parts = PreTokenizedString(text)
    if backend.normalizer is not None:
        parts.normalize(backend.normalizer.normalize)
    backend.pre_tokenizer.pre_tokenize(parts)
    return [(part, at) for part, at, _ in parts.get_splits("original", "char")]


def _kind(character: str) -> Kind | None:
    if character == " ":
        return "space"
    if character == "\n":
        return "line"
    if character.isascii():
        if character.isalpha():
            return "letter"
        if character.isdigit():
            return "digit"
        return "mark" if character in string.punctuation else None
    if "\u4e00" <= character <= "\u9fff":
        return "ideograph"
    if character in "\u3001\u3002\uff01\uff0c\uff1f":
        return "wide mark"
    return "letter" if character.isalpha() else None
