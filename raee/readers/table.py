"""Which readers there are: a new one is a module, and a line here.

This module is light on purpose: a reader is imported when it is asked for.
"""

from functools import cache
from importlib import import_module

from raee.readers.reader import Reader

READERS = {
    "head": "raee.readers.head",
    "vote": "raee.readers.vote",
    "probe": "raee.readers.probe",
    "probes": "raee.readers.probes",
    "de3": "raee.readers.de3",
    "logistic": "raee.readers.logistic",
    "words": "raee.readers.words",
    "pool": "raee.readers.pool",
}
"""Module of each reader, which has it as READER, by name; in the order of an entry's lists."""


def reader(name: str) -> Reader:
    """A reader by its name, which is one of READERS."""
    return _imported(READERS[name])


def readers() -> list[Reader]:
    """All readers, in the order of an entry's lists."""
    return [reader(name) for name in READERS]


@cache
def _imported(module: str) -> Reader:
    return import_module(module).READER
