"""The beginning of a long text, which is all that a model reads of it.

Before a model's vocabulary sees a text, its tokenizer takes the text apart, at spaces most of all.
What stands before such a place gets the same tokens whatever comes after it, so a text that is far
longer than the model takes need not be tokenized whole.  Which places these are, the tokenizer is
asked, once for each pair of kinds of characters.
"""

import string
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal
from weakref import WeakKeyDictionary

from tokenizers import PreTokenizedString

Kind = Literal["letter", "digit", "mark", "ideograph", "wide mark", "space", "line"]

_EXAMPLES: dict[Kind, str] = {
    "letter": "asTé\u0431",
    "digit": "05",
    "mark": string.punctuation,
    "ideograph": "\u597d\u4e00",
    "wide mark": "\u3002\u3001\uff0c\uff01\uff1f",
    "space": " ",
    "line": "\n",
}

_APART: set[tuple[Kind, Kind]] = {
    ("letter", "letter"),
    ("digit", "digit"),  # some group digits from the last one on
    ("mark", "mark"),
}
"""Kinds between which no text is cut: what comes later may count there."""

_AROUND = (("", "a"), ("a", "a"), ("1", "1"), ("", "."), (" ", " "))


class Cuts:
    """Where the texts of a tokenizer may be cut."""

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._known: dict[tuple[Kind, Kind], bool] = {}
        # An added token is found before anything is taken apart.
        self._whole = [str(t).lower() for t in tokenizer.added_tokens_decoder.values()]

    def part(self, before: str, after: str) -> bool:
        """Whether the tokenizer takes a text apart between two characters, whatever they are in."""
        one, other = _kind(before), _kind(after)
        if one is None or other is None or one in ("space", "line"):
            return False
        if (one, other) not in self._known:
            self._known[one, other] = self._are_parted(one, other)
        return self._known[one, other]

    def are_in(self, text: str, size: int, end: str) -> Iterator[int]:
        """Places in a text after which it may be cut, from character `size` back.

        end: what comes after the text, which may not join what is left of it, either.
        """
        for place in range(min(size, len(text) - 1), 0, -1):
            last = text[place - 1]
            if not self.part(last, text[place]) or (end and not self.part(last, end[0])):
                continue
            if not any(self._spans(token, text, place) for token in self._whole):
                yield place

    def _are_parted(self, before: Kind, after: Kind) -> bool:
        if (before, after) in _APART or self._backend.pre_tokenizer is None:
            return False
        pairs = product(_EXAMPLES[before], _EXAMPLES[after], _AROUND)
        return all(
            len(left) + 1 in self._ends(left + one + other + right)
            for one, other, (left, right) in pairs
        )

    def _ends(self, text: str) -> set[int]:
        """Where the parts of a text end, in its characters."""
        parts = PreTokenizedString(text)
        if self._backend.normalizer is not None:
            parts.normalize(self._backend.normalizer.normalize)
        self._backend.pre_tokenizer.pre_tokenize(parts)
        return {end for _, (_, end), _ in parts.get_splits("original", "char")}

    @staticmethod
    def _spans(token: str, text: str, place: int) -> bool:
        around = text[max(0, place - len(token) + 1) : place + len(token) - 1]
        return token in around.lower()


_cuts: WeakKeyDictionary[Any, Cuts] = WeakKeyDictionary()


def cuts_of(tokenizer: Any) -> Cuts:
    """Where the texts of a tokenizer may be cut, as far as it has been asked in this process."""
    if tokenizer not in _cuts:
        _cuts[tokenizer] = Cuts(tokenizer)
    return _cuts[tokenizer]


def beginning(text: str, size: int, cuts: Cuts, end: str = "") -> str:
    """A text up to the last place among its first `size` characters where it may be cut.

    It is the whole text if it is no longer, or has no such place.  end: what comes after the text.
    """
    if len(text) <= size:
        return text
    place = next(cuts.are_in(text, size, end), None)
    return text if place is None else text[:place]


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
    if character in _EXAMPLES["wide mark"]:
        return "wide mark"
    return "letter" if character.isalpha() else None
