"""The files of a corpus: what a folder, a glob or an address means, and what each file is."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urldefrag

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from raee.errors import InputError, cut, is_unicode
from storage.faults import in_words, may_pass

FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

_MOST_ENDINGS = 5
"""How many kinds of unread files a message names."""

_TABLES = {
    "_delta_log": "a Delta table",
    ".hoodie": "a Hudi table",
}
"""By the name of a folder, the kind of table around it; Iceberg's shows in its files."""

_WEB = ("http://", "https://")

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus."""

    uri: str
    name: str
    """Its path below the part that all files share: unique within the corpus."""
    stamp: str = ""
    """Its size in bytes, time and ETag, as far as the store knows them: another stamp means another
    content."""
    folders: Mapping[str, str | None] = field(default_factory=dict)
    """Columns that the names of its folders give, as in Hive: label=x."""


@dataclass(frozen=True)
class Listing:
    """The files of a corpus, in the order of their paths, and what else is among them."""

    files: list[CorpusFile]
    left_out: Counter[str]
    """By ending, how many files are not read."""

    def left_out_in_words(self) -> str:
        """The files that are not read, in words; empty if all are."""
        kinds = [
            f"{n:,} {ending}" if ending else f"{n:,} without an ending"
            for ending, n in self.left_out.most_common(_MOST_ENDINGS)
        ]
        more = sum(self.left_out.values()) - sum(
            n for _, n in self.left_out.most_common(_MOST_ENDINGS)
        )
        return ", ".join([*kinds, f"{more:,} others"] if more else kinds)


def list_corpus(uri: str) -> Listing:
    """The files of a corpus.

    Names that begin with `.` or `_` below a folder are left out, as Spark and DuckDB do.  Raises
    InputError if there is no file, or a file cannot be read as a corpus.
    """
    if not uri:
        raise InputError("corpus: its address is empty")
    try:
        fs, path = file_system(uri)
        return _listing(uri, fs, path)
    except InputError:
        raise
    except Exception as error:
        raised = in_words(error, f"corpus {uri}")
        if raised is None and isinstance(error, FileNotFoundError):
            raised = _missing(uri)
        if raised is None and isinstance(error, ValueError | ImportError | OSError):
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raised = None if may_pass(error) else InputError(f"corpus {uri}: {reason}")
        if raised is None:
            raise
        raise raised from error


def file_system(uri: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem of an address, and the path in it; the filesystem caches no listings.

    Raises ValueError or ImportError if the address is of no known kind.
    """
    protocol, separator, path = uri.partition("://")
    if not separator or protocol in ("file", "local"):
        return LocalFileSystem(use_listings_cache=False), os.path.abspath(path or uri)
    if "::" in protocol:
        return fsspec.core.url_to_fs(uri, use_listings_cache=False)
    # A path may contain `::`, which joins addresses elsewhere.
    kind = fsspec.get_filesystem_class(protocol)
    options = kind._get_kwargs_from_urls(uri) | {"use_listings_cache": False}
    if uri.startswith(_WEB) and "%" in uri.partition("?")[2]:
        options["encoded"] = True  # a signature covers the query as it is written
    return kind(**options), kind._strip_protocol(uri)


def stamp_of(fs: AbstractFileSystem, path: str) -> str:
    """The stamp of a file, by which to tell whether it is still the one that was listed."""
    return _stamp(_local(path) if isinstance(fs, LocalFileSystem) else fs.info(path))


def bare(path: str) -> str:
    """A path; a web address loses its query, which may hold a signature."""
    return urldefrag(path)[0].partition("?")[0] if path.startswith(_WEB) else path


def format_of(path: str) -> str:
    """The known ending of a path in lower case, compression left out; empty if it has none."""
    whole = bare(path).lower()
    stem, compression = os.path.splitext(whole)
    if compression not in COMPRESSIONS:
        stem, compression = whole, ""
    ending = next((e for e in FORMATS if stem.endswith(e)), "")
    return "" if compression and ending == ".parquet" else ending


def _listing(uri: str, fs: AbstractFileSystem, path: str) -> Listing:
    is_local, root = isinstance(fs, LocalFileSystem), path
    is_pattern = any(c in bare(path) for c in "*?[")
    if path.startswith(_WEB) and format_of(path) and not is_pattern:
        found = [{"name": path}]  # asking whether it is a folder may download all of it
    elif is_pattern and not fs.exists(path):
        root, pattern = _fixed_part(path)
        hidden = {part[0] for part in pattern.split("/") if part.startswith((".", "_"))}
        found = [
            info
            for matched in sorted(str(p) for p in fs.glob(path))
            for info in _below(uri, fs, matched)
            if hidden or not _is_hidden(str(info["name"])[len(root) :])
        ]
    elif fs.isdir(path):
        found = [i for i in _below(uri, fs, path) if not _is_hidden(str(i["name"])[len(path) :])]
    else:
        # Many filesystems' `exists` says no if it could not find out.
        found = [_local(path) if is_local and os.path.lexists(path) else fs.info(path)]
        if not format_of(path):
            raise InputError(f"corpus {uri}: not one of {', '.join(FORMATS)}")
    unread = Counter(_ending(info["name"]) for info in found if not format_of(info["name"]))
    read = {str(info["name"]): info for info in found if format_of(info["name"])}
    if not read:
        raise InputError(f"corpus {uri}: no file there ends in {', '.join(FORMATS)}")
    names = sorted(read)
    for name in names:
        _check_name(uri, name)
        _check_kind(name, read[name])
        if name.startswith(_WEB):  # a page that lists files says nothing else about them
            read[name] = fs.info(name)
    folders = [bare(name).split("/")[:-1] for name in names]
    shared = 0
    while all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
        shared += 1
    return Listing(
        [
            CorpusFile(
                uri=name if is_local else fs.unstrip_protocol(name),
                name="/".join(bare(name).split("/")[shared:]),
                stamp=_stamp(read[name]),
                folders=_hive(bare(name)[len(root) :]),
            )
            for name in names
        ],
        unread,
    )


def _missing(uri: str) -> InputError:
    return InputError(f"corpus {uri}: there is no such file or folder")


def _below(uri: str, fs: AbstractFileSystem, root: str) -> Iterator[dict[str, Any]]:
    """The files below a folder that count; a file is its own.

    Raises InputError if a folder is a table whose files cannot be read alone.
    """
    if isinstance(fs, LocalFileSystem):
        found = _walk(uri, root)
    elif fs.isdir(root):
        found = iter(fs.find(root, detail=True).values())
    else:
        yield fs.info(root)
        return
    for info in found:
        inner = str(info["name"])[len(root) :].strip("/").split("/")
        for depth, part in enumerate(inner):
            table = _TABLES.get(part)
            if part == "metadata" and inner[-1].endswith(".metadata.json"):
                table = "an Iceberg table"
            if table is not None:
                where = "/".join([root.rstrip("/"), *inner[:depth]])
                raise InputError(
                    f"corpus {uri}: {where} is {table}: its files also hold rows that were deleted "
                    "since; write the table out as Parquet"
                )
        yield info


def _walk(uri: str, root: str) -> Iterator[dict[str, Any]]:
    """The files below a folder on the disk, through links; each folder once on a path."""
    if not os.path.isdir(root):
        yield _local(root)
        return
    pending = [(root, {os.path.realpath(root)})]
    while pending:
        folder, above = pending.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                # A link to itself has no kind: os.path can handle it.
                if not (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()):
                    yield _local(entry.path)
                    continue
                real = os.path.realpath(entry.path)
                if real in above:
                    raise InputError(f"corpus {uri}: {entry.path} is a link to a folder above it")
                pending.append((entry.path, above | {real}))


def _local(path: str) -> dict[str, Any]:
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return {"name": path, "broken": True}
    return {
        "name": path,
        "size": found.st_size,
        "etag": f"of {found.st_mtime_ns}",
        "mode": found.st_mode,
    }


def _fixed_part(path: str) -> tuple[str, str]:
    """A glob's path up to the first part that is a pattern, and the rest."""
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    return "/".join(parts[:first]), "/".join(parts[first:])


def _is_hidden(below: str) -> bool:
    return any(part.startswith((".", "_")) for part in below.strip("/").split("/"))


def _check_kind(path: str, info: Mapping[str, Any]) -> None:
    """Raises InputError if a path is no file that can be read from its start to its end."""
    if info.get("broken"):
        raise InputError(f"{path}: a link to what is not there")
    mode = info.get("mode")
    if isinstance(mode, int) and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise InputError(f"{path}: a pipe, a socket or a device, no file")


def _check_name(uri: str, path: str) -> None:
    if not is_unicode(path):
        name = cut(os.fsencode(path.rpartition("/")[2]))
        raise InputError(f"corpus {uri}: the name of {name} is not UTF-8; rename it")


def _ending(path: str) -> str:
    return os.path.splitext(bare(path))[1].lower()


def _stamp(info: Mapping[str, Any]) -> str:
    """The stamp; empty if not even the size is known.

    It has only what stores say alike about a listed file and about one that is asked for: the ETag,
    or the time on the disk and from web servers that give no ETag.
    """
    if info.get("size") is None:
        return ""
    tag = str(info.get("ETag") or info.get("etag") or info.get("Last-Modified") or "").strip('"')
    return f"{info['size']} bytes {tag}".strip()


def _hive(below: str) -> dict[str, str | None]:
    """The columns that the names of folders below a corpus's root give."""
    found: dict[str, str | None] = {}
    for part in below.split("/")[:-1]:
        name, separator, value = part.partition("=")
        if separator and name:
            found[unquote(name)] = None if value == _NO_VALUE else unquote(value)
    return found
