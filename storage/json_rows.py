"""Rows of JSON lines: polars reads them by the block, and Python's json what it cannot.

Both give the same rows.  polars makes strings of all values: a line is read again if a text looks
like anything but a string, a name like a list, or if it has a float for a name (polars writes 1.0
as 1), or half a surrogate pair, which polars does not see.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import IO, Any

import numpy as np
import polars as pl

from raee.errors import InputError
from storage.blocks import BOM, Block, Mark, Unstructured, blocks
from storage.rows import Batch, Columns, batch_of_values, check_columns, frame_of
from storage.values import Role, column_of

_NESTED = r"[\[{](?s:.*)[\]}]"
_NO_STRING = rf"^(?:{_NESTED}|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false)$"
_NO_NAME = rf"^{_NESTED}$"

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def json_names(file: IO[bytes], uri: str) -> list[str]:
    """The keys of a file's first objects, a block of them; none if it is empty."""
    for block in blocks(file, 0, None):
        assert not isinstance(block, Unstructured)
        if len(block):
            _check_no_list(block, uri)
            return _keys(block, uri)
    return []


def json_batches(
    file: IO[bytes],
    uri: str,
    columns: Columns,
    given: Collection[Role],
    mark: Mark,
    end: int | None,
) -> Iterator[Batch]:
    """The rows of a file from a mark on, up to a byte at which a row begins.

    given: the roles whose key may be missing.  Raises InputError if no object has a column's key.
    """
    before, offset = mark
    file.seek(offset)
    for block in blocks(file, offset, None, end):
        assert not isinstance(block, Unstructured)
        if not len(block):
            continue
        batch = _batch(block, columns, before)
        if before == 0 and (mark, end) == ((0, 0), None):  # a part of a file may well lack a key
            _check_keys(block, batch, uri, columns, given)
        yield batch
        before += len(block)


def count_json(
    file: IO[bytes], uri: str, columns: Columns, given: Collection[Role]
) -> Iterator[Mark]:
    """The marks of a file, and at the end how many rows there are, with byte 0.

    Raises InputError as `json_batches` does.
    """
    before = 0
    for block in blocks(file, 0, None):
        assert not isinstance(block, Unstructured)
        if before == 0 and len(block):
            _check_keys(block, _batch(block, columns, 0), uri, columns, given)
        yield from block.marks(before)
        before += len(block)
    yield before, 0


def _batch(block: Block, columns: Columns, before: int) -> Batch:
    found = _parsed(block, columns, before)
    if found is not None:
        return found
    rows = [_row(block.line(i), columns) for i in range(len(block))]
    return batch_of_values(before, block.marks(before), rows)


def _parsed(block: Block, columns: Columns, before: int) -> Batch | None:
    """The rows of a block as polars reads them; None if it cannot."""
    data = block.of(np.ones(len(block), bool))
    if data.startswith(BOM):  # polars would remove it
        return None
    schema = dict.fromkeys(columns.values(), pl.String)
    try:
        found = pl.scan_ndjson(data, schema=schema).collect()
    except pl.exceptions.ComputeError:
        return None
    if len(found) != len(block):
        return None
    odd = pl.Series(np.zeros(len(block), bool))
    patterns = [_SURROGATE]
    for role, name in columns.items():
        odd |= found[name].str.contains(_NO_STRING if role == "text" else _NO_NAME).fill_null(False)
        if role != "text":
            patterns.append(re.compile(_key(name) + rb"\s*:\s*-?[0-9]+[.eE]"))
    again = odd.to_numpy(writable=True)
    for pattern in patterns:
        if pattern.search(data):
            again |= [bool(pattern.search(block.line(i))) for i in range(len(block))]
    frame = frame_of(
        {role: column_of(found[name], role) for role, name in columns.items()}, len(block)
    )
    if again.any():
        positions = np.flatnonzero(again)
        rows = [_row(block.line(i), columns) for i in positions.tolist()]
        mended = batch_of_values(0, [], rows).frame
        order = np.arange(len(block))
        order[positions] = len(block) + np.arange(len(positions))
        frame = pl.concat([frame, mended])[order]
    return Batch(before, block.marks(before), frame)


def _key(name: str) -> bytes:
    """A pattern for all ways to write a key: any of its characters may be escaped."""
    ways = []
    for character in name:
        units = character.encode("utf-16-be").hex(" ", 2).split()
        escaped = "".join(rf"\\u{unit}" for unit in units)
        plain = re.escape(json.dumps(character, ensure_ascii=False)[1:-1]).replace("/", r"\\?/")
        ways.append(rf"(?:{plain}|(?i:{escaped}))")
    return f'"{"".join(ways)}"'.encode()


def _row(line: bytes, columns: Columns) -> dict[Any, Any] | str:
    """The values of a line, or why it cannot be read."""
    try:
        values = _loaded(line)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(values, dict):
        return "no JSON object"
    return {role: values.get(name) for role, name in columns.items()}


def _loaded(line: bytes) -> Any:
    return json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_first_of_each)


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; the first counts if a key appears twice, as polars has it."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


def _check_keys(
    block: Block, batch: Batch, uri: str, columns: Columns, given: Collection[Role]
) -> None:
    """Raises InputError if no object among a file's first has a column's key."""
    _check_no_list(block, uri)
    missing = [role for role in columns if batch.frame[role].null_count() == len(batch)]
    if missing and (keys := _keys(block, uri)):
        check_columns(uri, {role: columns[role] for role in missing}, given, keys)


def _check_no_list(block: Block, uri: str) -> None:
    if block.data.lstrip().startswith(b"[") and _row(block.line(0), {}) == "no JSON":
        raise _one_list(uri)


def _keys(block: Block, uri: str) -> list[str]:
    """The keys of a block's objects.  Raises InputError if it looks like no JSON lines."""
    keys: dict[str, None] = {}
    for row in range(len(block)):
        try:
            found = _loaded(block.line(row))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            keys |= dict.fromkeys(found)
    if keys:
        return list(keys)
    begin = block.data.lstrip()
    if begin.startswith(b"["):
        raise _one_list(uri)
    if block.line(0).strip() == b"{":
        raise InputError(f"{uri}: a JSON object over several lines; write every object on one line")
    if not begin.startswith(b"{"):
        raise InputError(f"{uri}: no JSON lines: none of the first is an object")
    return []


def _one_list(uri: str) -> InputError:
    return InputError(
        f"{uri}: one JSON list, no JSON object a line; write every object on a line of its own"
    )
