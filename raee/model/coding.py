"""Texts as token ids, by the fastest tokenizer that gives the library's own.

transformers' tokenizers also say where each token stands, which few texts need; their backend can
leave that out.  The package tokie, an extra, takes a tenth of that: of a million generated texts it
gave each the library's ids if all characters were printable ASCII, and of others it did not, so
these stay with the library.  The first texts of each call are tokenized by the library as well; a
tokenizer that gives one of them other ids is not asked again.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("raee")

Ids = NDArray[np.int32]
"""(tokens,) of one text."""

_COMPARED = 16
"""The first texts of a call, which the library tokenizes in any case."""

_MANY = 2_000
"""Texts of a tokenizer from which on loading another one is worth it."""


@dataclass(frozen=True)
class _Faster:
    """A tokenizer that gives the same ids in less time."""

    name: str
    suits: Callable[[str], bool]
    """Whether it is asked for a text."""
    code: Callable[[list[str], bool], list[Ids]]
    """`code(texts, special_tokens)`."""


class _Known:
    """What is known of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.asked = 0
        self.faster = [_of_backend(tokenizer.backend_tokenizer)]
        self._tried = find_spec("tokie") is None

    def look_for_another(self, tokenizer: Any, texts: int) -> None:
        """Load tokie, if it is there, once it is worth it."""
        self.asked += texts
        if not self._tried and self.asked >= _MANY:
            self._tried = True
            try:
                self.faster.insert(0, _of_tokie(tokenizer.backend_tokenizer))
            except Exception as error:  # whatever it says of a kind that it does not know
                logger.info("tokie does not know this kind of tokenizer (%s)", error)


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def token_ids(tokenizer: Any, texts: Sequence[str], special_tokens: bool) -> list[Ids]:
    """One array a text, special tokens included if they are asked for; none is truncated."""
    if not texts:
        return []
    # The library's call leaves its backend in order, too: it neither truncates nor pads.
    right = _arrays(coded(tokenizer, texts[:_COMPARED], special_tokens)["input_ids"])
    found: dict[int, Ids] = dict(enumerate(right))
    for faster in _faster_ones(tokenizer, len(texts)) if len(texts) > len(right) else ():
        asked = [i for i, text in enumerate(texts) if faster.suits(text)]
        asked = [i for i in asked if i < len(right) or i not in found]
        given = dict(
            zip(asked, faster.code([texts[i] for i in asked], special_tokens), strict=True)
        )
        if all(np.array_equal(given[i], own) for i, own in enumerate(right) if i in given):
            found |= given
        else:
            other = "%s gives other tokens than the model's tokenizer: it is not used"
            logger.warning(other, faster.name)
            with suppress(ValueError):  # another thread may have found out as well
                _known[tokenizer].faster.remove(faster)
    if left := [i for i in range(len(texts)) if i not in found]:
        rest = coded(tokenizer, [texts[i] for i in left], special_tokens)["input_ids"]
        found |= zip(left, _arrays(rest), strict=True)
    return [found[i] for i in range(len(texts))]


def coded(tokenizer: Any, texts: Sequence[str], special_tokens: bool) -> Any:
    """What the library's tokenizer says of texts: `input_ids`, and of each where its tokens are."""
    return tokenizer(
        [*texts],
        add_special_tokens=special_tokens,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # it would warn of texts over its limit, which are truncated afterwards
    )


def _faster_ones(tokenizer: Any, texts: int) -> Iterator[_Faster]:
    if tokenizer not in _known:
        _known[tokenizer] = _Known(tokenizer)
    _known[tokenizer].look_for_another(tokenizer, texts)
    yield from [*_known[tokenizer].faster]


def _of_backend(backend: Any) -> _Faster:
    def code(texts: list[str], special_tokens: bool) -> list[Ids]:
        found = backend.encode_batch_fast(texts, add_special_tokens=special_tokens)
        return _arrays(each.ids for each in found)

    return _Faster("encode_batch_fast", lambda text: True, code)


def _of_tokie(backend: Any) -> _Faster:
    from tokie import Tokenizer

    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(backend.to_str())
        file.flush()
        tokenizer = Tokenizer.from_json(file.name)

    def code(texts: list[str], special_tokens: bool) -> list[Ids]:
        # Its stubs leave this out.
        flat: Any = tokenizer.encode_batch_flat  # type: ignore[attr-defined]
        ids, lengths = flat(texts, add_special_tokens=special_tokens)
        ends = np.cumsum(lengths, dtype=np.int64)
        return np.split(ids.astype(np.int32), ends[:-1]) if texts else []

    return _Faster("tokie", lambda text: text.isascii() and text.isprintable(), code)


def _arrays(rows: Iterable[Sequence[int]]) -> list[Ids]:
    return [np.asarray(row, dtype=np.int32) for row in rows]
