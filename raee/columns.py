"""Texts and labels as Python has them: lists, arrays or series, checked and made plain."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.errors import InputError, cut, is_unicode, listed

_LABEL = "a label is a string (not blank, valid Unicode), a whole number (64 bits) or a truth value"


def texts_of(values: Iterable[Any]) -> list[str]:
    """Texts as plain strings, one or more.

    Raises InputError, with the row, if one of them is none, or if `values` is no column of texts.
    """
    texts = _column("texts", values)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{row}] is {_kind(text)}; a text is a string")
        if not is_unicode(text):
            raise InputError(f"texts[{row}], {cut(ascii(text))}, is not valid Unicode")
    return [str(text) for text in texts]


def labels_of(values: Iterable[Any], rows: int) -> NDArray[Any]:
    """Labels (rows,): strings, whole numbers or truth values, all of one kind.

    Raises InputError, with the row, if one of them is none, or if they are not as many as the rows.
    """
    labels = _column("labels", values)
    if len(labels) != rows:
        raise InputError(f"there are {rows:,} texts and {len(labels):,} labels; give one a text")
    kinds: dict[str, int] = {}
    for row, label in enumerate(labels):
        kind = _kind_of_label(label)
        if kind is None:
            raise InputError(f"labels[{row}] is {_kind(label)}; {_LABEL}")
        kinds.setdefault(kind, row)
    if len(kinds) > 1:
        both = ", ".join(f"labels[{row}] is {kind}" for kind, row in kinds.items())
        raise InputError(f"labels are of several kinds: {both}; give all as strings")
    return np.array([label.item() if isinstance(label, np.generic) else label for label in labels])


def names_of(labels: NDArray[Any]) -> list[str]:
    """(rows,) the names that a database has for labels."""
    return [str(label) for label in labels.tolist()]


def classes_of(labels: NDArray[Any], declared: Iterable[str] | None) -> NDArray[Any]:
    """(classes,) the labels that can be answered, ascending.

    declared: names that the prompt has, which may be more.  Raises InputError if there are fewer
    than two labels among the rows, or if a name that no row has cannot be one of such labels.
    """
    found = np.unique(labels)
    if len(found) < 2:
        raise InputError(f"all labels are {cut(repr(found[0].item()))}; a classifier needs two")
    missing = sorted({*(declared or ())} - {*names_of(found)})
    if not missing:
        return found
    try:
        more = np.array(missing).astype(found.dtype.type)
    except ValueError:
        more = found[:0]
    if found.dtype.kind == "b" or names_of(more) != missing:
        raise InputError(
            f"the prompt names {listed(missing)}, which no row has, and labels are "
            f"{_kind(found[0].item())}; give labels as the prompt names them"
        )
    return np.unique(np.concatenate([found, more]))


def _column(name: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str | bytes):
        raise InputError(f"{name}: give a list, not one string")
    if isinstance(values, Mapping | set | frozenset):
        kind = type(values).__name__
        raise InputError(f"{name}: a {kind} is no column; give a list, an array or a series")
    if getattr(values, "ndim", 1) != 1 or hasattr(values, "columns"):
        raise InputError(f"{name}: give one column: a list, an array (rows,) or a series")
    try:
        column = list(values)
    except TypeError:
        raise InputError(f"{name} are {_kind(values)}; give a list, an array or a series") from None
    if not column:
        raise InputError(f"there are no {name}")
    return column


def _kind_of_label(label: Any) -> str | None:
    if isinstance(label, str):
        return "a string" if label.strip() and is_unicode(label) else None
    if isinstance(label, bool | np.bool_):
        return "a truth value"
    # numpy makes floats of larger numbers beside others, which are no longer the same.
    is_whole = isinstance(label, Integral) and -(2**63) <= int(label) < 2**63
    return "a whole number" if is_whole else None


def _kind(value: Any) -> str:
    """A value in words, for a message."""
    if value is None or isinstance(value, str):
        return cut(ascii(value))
    return f"{cut(repr(value), 40)} ({type(value).__name__})"
