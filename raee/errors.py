"""The one error that a user's input can cause, and how messages name what may be long."""

from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Bad input: the message is one line that says what, where and what to do.

    The command line prints it without a traceback and exits with 2; tasks never retry it.
    """


def is_unicode(value: str) -> bool:
    """Whether a string can be written as UTF-8: bytes that are none may stand in one."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def cut(value: object, most: int = 80) -> str:
    """A value as a message names it: on one line, and cut where it is longer than `most`.

    What is no Unicode in it, as in a file's name, is written as its number: no log takes it else.
    """
    said = " ".join(str(value).encode(errors="backslashreplace").decode().split())
    return said if len(said) <= most else f"{said[: most - 2]}.."


def listed(values: Iterable[object], most: int = 10) -> str:
    """Values as a message lists them: the first `most`, each cut, and how many more there are."""
    every = list(values)
    said = ", ".join(cut(value) for value in every[:most]) or "none"
    return said if len(every) <= most else f"{said} and {len(every) - most:,} more"


def clauses(said: Sequence[str]) -> str:
    """What a message has to say one after the other: the first ten, and how many more there are."""
    more = [f"and {len(said) - 10:,} more"] if len(said) > 10 else []
    return "; ".join([*said[:10], *more])
