"""The one error that a user's input can cause, and how messages name what may be long."""

from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Bad input: the message is one line that says what, where and what to do.

    The command line prints it without a traceback and exits with 2; tasks never retry it.
    """


def is_unicode(value: str) -> bool:
    """Whether a string can be written as UTF-8: it may hold bytes that were no UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def cut(value: object, most: int = 80) -> str:
    """A value as a message names it: on one line, truncated to `most` characters if it is longer.

    Characters that are no Unicode, as in a file's name, are written as numbers: logs refuse them.
    """
    line = " ".join(str(value).encode(errors="backslashreplace").decode().split())
    return line if len(line) <= most else f"{line[: most - 2]}.."


def listed(values: Iterable[object], most: int = 10) -> str:
    """Values as a message lists them: the first `most`, truncated, and how many more follow."""
    every = list(values)
    line = ", ".join(cut(value) for value in every[:most]) or "none"
    return line if len(every) <= most else f"{line} and {len(every) - most:,} more"


def clauses(parts: Sequence[str]) -> str:
    """The parts of a message, one after the other: the first ten, and how many more follow."""
    more = [f"and {len(parts) - 10:,} more"] if len(parts) > 10 else []
    return "; ".join([*parts[:10], *more])
