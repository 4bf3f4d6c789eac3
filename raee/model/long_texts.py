"""The beginning of a long text, which is all that a model reads of it.

A tokenizer that takes words apart at spaces gives the words up to a space the same tokens whatever
comes after it.  So a text that is far longer than the model takes need not be tokenized whole.
"""

from typing import Any

_WORDS = "aa bb Cc"
_SPACES = {2, 5}


def splits_at_spaces(tokenizer: Any) -> bool:
    """Whether a space between two letters parts tokens from those that come after it."""
    splitting = tokenizer.backend_tokenizer.pre_tokenizer
    if splitting is None or any(" " in str(t) for t in tokenizer.added_tokens_decoder.values()):
        return False
    ends = {end for _, (_, end) in splitting.pre_tokenize_str(_WORDS)}
    return ends >= _SPACES


def beginning(text: str, size: int) -> str:
    """A text up to the last space between two letters among its first `size` characters.

    It is the whole text if it is no longer, or has no such space.
    """
    if len(text) <= size:
        return text
    space = text.rfind(" ", 1, size)
    while space > 0:
        if text[space - 1].isalpha() and text[space + 1].isalpha():
            return text[:space]
        space = text.rfind(" ", 1, space)
    return text
