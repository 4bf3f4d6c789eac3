"""A job file's text as plain values.  An ambiguity that YAML settles silently is an error here."""

import codecs
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from raee.errors import InputError

_KINDS = {"bool": "a boolean", "null": "nothing", "int": "a number", "float": "a number"} | {
    "timestamp": "a date"
}
"""By the last part of a tag, what YAML takes a word without quotes for."""

_LARGEST = 2**63 - 1
"""The largest number that the orchestrator and JSON readers hold."""

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""What a string of a job file takes from the environment; there is no way to say it literally."""

_SHOWN = 80
"""How many characters of a value a message shows."""


Unquoted = dict[str, tuple[str, str]]
"""By key, such as `corpus.text`, a word that YAML takes for no text, and what it takes it for."""


class JobFile(NamedTuple):
    """The content of a job file."""

    values: dict[str, Any]
    """The values, with variables expanded."""
    unquoted: Unquoted


def read_job_file(path: str) -> JobFile:
    """A job file's values; `${VAR}` in its strings comes from the environment.

    Raises InputError, with one line that names the file and the line in it, if it is no YAML, no
    mapping, or has a word that YAML takes for something else than text.
    """
    text = _text(path)
    try:
        return _File(path, text).read()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"character U+{error.character:04X} may not stand there"
        raise InputError(f"{path} line {line}: this is no YAML: {what}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        hint = "; indent with spaces" if "'\\t'" in problem else ""
        raise InputError(f"{path}{where}: this is no YAML: {problem}{hint}") from error
    except RecursionError:
        raise InputError(f"{path}: lists or mappings are nested too deep") from None


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such job file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    # Some editors and shells mark the encoding of their files, and YAML's own rules allow it.
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: this is no UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        raise InputError(f"{path}: there are null bytes in it; save the file as UTF-8")
    return text


class _File:
    """A file on its way from nodes, which know their lines, to values."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._loader = yaml.SafeLoader(text)
        self._unquoted: Unquoted = {}
        self._seen: set[int] = set()
        self._around: list[yaml.Node] = []
        self._faults: list[str] = []

    def read(self) -> JobFile:
        root = self._document()
        values = None
        if isinstance(root, yaml.MappingNode):
            self._look_over(root, "")
            if self._faults:
                raise InputError(f"{self._path} {'; '.join(self._faults)}")
            values = self._loader.construct_document(root)
        if not isinstance(values, dict):
            raise InputError(
                f"{self._path}: a job file is a mapping of keys such as name, store, corpus"
            )
        return JobFile(values, self._unquoted)

    def _document(self) -> yaml.Node | None:
        nodes: list[Any] = []
        while self._loader.check_node():
            nodes.append(self._loader.get_node())
        if len(nodes) > 1:
            raise self._error(nodes[1], "", "a second document begins; a job file has one")
        return nodes[0] if nodes else None

    def _look_over(self, node: yaml.Node, key: str) -> None:
        """Check a node and all below it; expand its variables."""
        if any(node is outer for outer in self._around):
            raise self._error(node, key, "this stands within itself")
        if id(node) in self._seen:  # an anchor's node again
            return
        self._seen.add(id(node))
        self._around.append(node)
        if isinstance(node, yaml.MappingNode):
            for name, value in self._pairs(node, key):
                self._look_over(value, _below(key, name))
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._look_over(item, _below(key, str(number)))
        elif isinstance(node, yaml.ScalarNode):
            self._look_at(node, key)
        self._around.pop()

    def _pairs(self, node: yaml.MappingNode, key: str) -> Iterator[tuple[str, yaml.Node]]:
        """A mapping's names and values; a mapping that is merged into it has no name of its own."""
        lines: dict[str, int] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise self._error(name, key, "a key is a name, and no list or mapping")
            if not name.value and name.style is None:
                raise self._error(name, key, "a key has no name")
            kind, line = _kind(name), _line_of(name)
            if kind is not None:
                what = f'the key {name.value} is {kind} to YAML; put it in quotes: "{name.value}"'
                self._faults.append(
                    f"line {line}: {key}: {what}" if key else f"line {line}: {what}"
                )
            elif name.value in lines:
                twice = f"key {_below(key, name.value)} stands twice"
                self._faults.append(f"line {line}: {twice}, first in line {lines[name.value]}")
            lines.setdefault(name.value, line)
            yield ("" if name.tag.endswith(":merge") else name.value), value

    def _look_at(self, node: yaml.ScalarNode, key: str) -> None:
        kind = _kind(node)
        if kind is None:
            node.value = self._expanded(node, key)
            return
        written = node.value if len(node.value) <= _SHOWN else f"{node.value[:_SHOWN]}.."
        try:
            value = self._loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # a date such as 2026-13-45
            raise self._error(
                node, key, f"{written} cannot be {kind}; put text in quotes"
            ) from None
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise self._error(node, key, f"{written} is too large a number")
        self._unquoted[key] = written or "nothing", kind

    def _expanded(self, node: yaml.ScalarNode, key: str) -> str:
        if "\0" in node.value:
            raise self._error(node, key, "there is a null byte in it")

        def from_environment(match: re.Match[str]) -> str:
            name = match[1]
            if name not in os.environ:
                raise InputError(f"{self._path}: {key}: environment variable {name} is not set")
            return os.environ[name]

        return VARIABLE.sub(from_environment, node.value)

    def _error(self, node: yaml.Node, key: str, what: str) -> InputError:
        where = f"{self._path} line {_line_of(node)}"
        return InputError(f"{where}: {key}: {what}" if key else f"{where}: {what}")


def _kind(node: yaml.ScalarNode) -> str | None:
    """The kind of value that YAML takes a scalar for; None if it is text, or a merge key."""
    return _KINDS.get(node.tag.rpartition(":")[2])


def _line_of(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _below(key: str, name: str) -> str:
    return ".".join(filter(None, (key, name)))
