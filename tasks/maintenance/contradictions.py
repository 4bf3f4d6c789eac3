"""Contradictions between a version's manifest and its files, as far as the files' footers tell.

Used by `verify_versions` and the command `verify`.  No column is read, so beside a check of every
byte of the version this costs next to nothing.
"""

from collections.abc import Iterator

from raee.errors import InputError, listed
from raee.exits import parse_exits
from storage.checked import FileRecord
from storage.manifest import MANIFEST, Manifest
from storage.parquet import Footer, read_footer
from storage.store import Folder


def contradictions(folder: Folder, manifest: Manifest) -> list[str]:
    """What a manifest says that its files or another part of it contradict, a line each.

    folder: the version's.  Raises FileNotFoundError if a file of its entries is missing.
    """
    found = [*_of_labels(manifest), *_of_exits(manifest), *_of_rows(manifest)]
    for file in _below(manifest, "entries/"):
        try:
            found += _of_entries(manifest, file, read_footer(folder, file.path))
        except InputError as error:
            found.append(str(error))
    return found


def _of_labels(manifest: Manifest) -> Iterator[str]:
    prompt, labels = manifest.prompt, manifest.labels
    if prompt.get("labels") != labels:
        asked = listed(prompt.get("labels") or [])
        yield f"{MANIFEST} names the labels {listed(labels)}, and in its prompt {asked}"
    elif len(prompt.get("words") or []) != len(labels):
        yield f"{MANIFEST} has not as many words in its prompt as it has labels, {len(labels):,}"


def _of_exits(manifest: Manifest) -> Iterator[str]:
    try:
        parse_exits(manifest.exits)
    except InputError as error:
        yield f"{MANIFEST}: {error}"


def _of_rows(manifest: Manifest) -> Iterator[str]:
    """A manifest counts the same rows several times."""
    rejected = sum(manifest.rejected.values())
    shown = manifest.corpus.get("shown", 0)
    counts: dict[str, tuple[int | None, int]] = {
        "its entries": (_rows(manifest, "entries/"), manifest.rows),
        "its rejects": (_rows(manifest, "rejects/"), rejected),
    }
    if _below(manifest, "neighbours/"):
        counts["its lists of neighbours"] = (_rows(manifest, "neighbours/"), manifest.rows)
    for file in _below(manifest, "keys/"):
        counts[file.path] = (file.rows, manifest.rows)
    if manifest.pruned is None:
        counts["its corpus"] = (manifest.corpus.get("rows"), manifest.rows + rejected + shown)
    for what, (counted, expected) in counts.items():
        if counted != expected:
            yield f"{MANIFEST} counts {counted} rows of {what}; its other counts make {expected}"


def _of_entries(manifest: Manifest, file: FileRecord, footer: Footer) -> Iterator[str]:
    if footer.rows != file.rows:
        yield f"{file.path} has {footer.rows} rows, its manifest says {file.rows}"
    labels = len(manifest.labels)
    for column in ("label", "answers"):
        largest = footer.largest.get(column, 0)
        if largest >= labels:
            yield (
                f"{file.path}: column {column} goes up to {largest}, the labels of its manifest "
                f"to {labels - 1}"
            )
    if "answers" in footer.schema.names:
        width, exits = footer.schema.field("answers").type.list_size, len(manifest.exits)
        if width != exits:
            yield f"{file.path} has the answers of {width} exits, its manifest names {exits}"


def _rows(manifest: Manifest, folder: str) -> int:
    return sum(file.rows or 0 for file in _below(manifest, folder))


def _below(manifest: Manifest, folder: str) -> list[FileRecord]:
    return [file for file in manifest.files if file.path.startswith(folder)]
