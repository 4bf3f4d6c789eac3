"""Keeps inputs and outputs apart: no run reads what an earlier one has written."""

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import takewhile

from raee.errors import InputError
from storage.corpus_files import CorpusFile
from storage.database import databases
from storage.manifest import MANIFEST
from storage.store import Folder

_Parts = list[str]
"""An address in parts, the protocol first; links on this machine's disk are followed."""

_WRITTEN = (".parquet", ".json")
"""Endings of the files that are written here and could be taken for a corpus."""

_BEGINNING = re.compile(rb'\{\s*"format": \d+,\s*"(name|key)": "')
"""How manifests begin: a version's names the database next, an output's its key."""


def check_output_apart(input: str, output: str) -> None:
    """Raises InputError if an output lies in its input, or an input in its output."""
    if _parts(input) == _parts(output):
        raise InputError(f"output {output} is its own input; give a folder apart from it")
    if _reads(_parts(input), _parts(output)):
        raise InputError(
            f"output {output} lies in the input {input}, and the next classification would read "
            "it; give a folder apart from it"
        )
    if _begins(_fixed(_parts(input)), _parts(output)):
        raise InputError(f"input {input} lies in the output {output}; give a folder apart from it")


def check_store_apart(corpus: str, store: str) -> None:
    """Raises InputError if a store's databases lie in a corpus."""
    if _reads(_parts(corpus), _parts(databases(store).uri)):
        raise InputError(
            f"store {store} lies in the corpus {corpus}, and the next build would read it; give "
            "one of both a folder apart from the other"
        )


def check_none_is_ours(corpus: str, files: Sequence[CorpusFile]) -> None:
    """Raises InputError if a version of a database, or an output, lies in a corpus."""
    for file in files:
        folder, _, name = file.uri.rpartition("/")
        if name != MANIFEST:
            continue
        with Folder(folder).open(name) as manifest:
            found = _BEGINNING.match(manifest.read(1_000))
        if found is not None:
            what = "a version of a database" if found[1] == b"name" else "a classification's output"
            raise InputError(
                f"corpus {corpus}: {folder} holds {what} and no corpus; name the files that are to "
                "be read all the same, as in part-*.parquet"
            )


def _reads(input: _Parts, folder: _Parts) -> bool:
    """Whether an input is a folder around another one, or a pattern of what is written there."""
    return _begins(folder, input) or _matches(input, folder)


def _matches(pattern: _Parts, folder: _Parts) -> bool:
    """Whether a pattern may match a folder, or a file that is written below it."""
    if not folder:
        return not pattern or _may_be_written(pattern[-1])
    if not pattern:
        return False
    if pattern[0] == "**":
        return _matches(pattern[1:], folder) or _matches(pattern, folder[1:])
    return fnmatchcase(folder[0], pattern[0]) and _matches(pattern[1:], folder[1:])


def _may_be_written(pattern: str) -> bool:
    end = re.split(r"[*?\]]", pattern)[-1]
    return any(ending.endswith(end) or end.endswith(ending) for ending in _WRITTEN)


def _begins(parts: _Parts, start: _Parts) -> bool:
    return parts[: len(start)] == start


def _parts(uri: str) -> _Parts:
    protocol, _, path = Folder(uri).uri.rpartition("://")
    parts = list(filter(None, path.split("/")))
    if not protocol:
        fixed = _fixed(parts)
        parts = [*os.path.realpath(f"/{'/'.join(fixed)}").split("/")[1:], *parts[len(fixed) :]]
    return [protocol, *filter(None, parts)]


def _fixed(parts: _Parts) -> _Parts:
    """The parts before the first one that may be a pattern."""
    return list(takewhile(lambda part: not set(part) & set("*?["), parts))
