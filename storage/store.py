"""One small class over fsspec: a folder, local or remote.  No other module knows protocols."""

import errno
import functools
import glob
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from raee.errors import InputError
from storage import local
from storage.checked import CheckedFile, FileRecord
from storage.faults import (
    check_read_whole,
    in_words,
    is_empty,
    is_no_bucket,
    of_the_path,
    placed,
    status,
)

_CHUNK = 1 << 20

_BLOCK = 16 << 20
"""Bytes of a part of a multipart upload and of a read ahead: a remote file takes so much memory."""

_SMALL = 4 << 20
"""Bytes that take about as long to come as a remote store takes to answer."""

_TAKEN = (412, 304)
"""Servers' answers to a write of a taken name; older MinIOs give the second."""

_CONFLICT = 409
"""The answer if another conditional write of the name is under way, which may yet fail."""

_CONFLICT_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between tries of a write while the server settles another of the same name."""

_single_writers: set[str] = set()
"""Stores that were declared to have one writing process at a time."""


def declare_single_writer(store: str) -> None:
    """From now on, in this process and store, `write_new` may look first and write then.

    For stores that cannot refuse a taken name; `storage.conditional` finds out which can.
    """
    _single_writers.add(Folder(store).uri)


def use_s3_options(options: dict[str, Any]) -> None:
    """From now on reach S3 with these options of s3fs; without any, as the environment says.

    They hold for all of this process: corpora and outputs lie there, too.
    """
    fsspec.config.conf.pop("s3", None)
    if options:
        fsspec.config.conf["s3"] = options


@dataclass(frozen=True)
class Found:
    """A file as a listing shows it."""

    name: str
    """Relative to the folder that was listed."""
    bytes: int
    modified: datetime


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _clearly(
    method: Callable[Concatenate["Folder", _P], _R],
) -> Callable[Concatenate["Folder", _P], _R]:
    """A method whose errors are in plain words and name the folder."""

    @functools.wraps(method)
    def clear(folder: "Folder", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with folder.faults():
            return method(folder, *args, **kwargs)

    return clear


class Folder:
    """A folder at a path or URI.  Names given to its methods are relative to it.

    Its methods raise InputError if the store refuses the user (no such bucket, no access, a file
    where a folder should be), ConnectionError if the store does not answer, and OSError if there is
    no room.  It raises InputError if the address is empty or of a kind that fsspec does not know.
    """

    def __init__(self, uri: str) -> None:
        if not uri:
            raise InputError("a folder's address is empty")
        try:
            # No listing is remembered: another process's later files must be seen.
            self._fs, self._path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise InputError(f"{uri}: {error}") from error
        self._local = isinstance(self._fs, LocalFileSystem)
        self._path = self._path.rstrip("/")

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    @property
    def uri(self) -> str:
        """The folder's address; a plain path if it is local."""
        return self._path if self._local else str(self._fs.unstrip_protocol(self._path))

    def require_writable_kind(self) -> None:
        """Raises InputError if files of that kind of address can only be read."""
        if self.uri.startswith(("http://", "https://")):
            raise InputError(f"{self}: the web is only read; give a folder, or s3://bucket/folder")

    @_clearly
    def exists(self, name: str) -> bool:
        """Whether a file or folder is there."""
        try:
            # The `exists` of many filesystems answers no if it could not find out.
            self._fs.info(self._at(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @_clearly
    def names(self) -> list[str]:
        """Names of the files and folders in it, sorted; none if it does not exist.

        Hidden ones, such as a file that was never finished, are left out.  Raises InputError if a
        file is in the way.
        """
        try:
            if self._local:
                names = os.listdir(self._path)
            else:
                found = self._fs.ls(self._path, detail=False, refresh=True)
                # A file of the folder's own name is listed, too.
                paths = [path.rstrip("/") for path in found if path.rstrip("/") != self._path]
                names = [path.rpartition("/")[2] for path in paths]
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise
            return []
        return sorted(name for name in names if not name.startswith("."))

    @_clearly
    def files(self) -> list[Found]:
        """All files below it, in the order of their names; none if it does not exist.

        Raises InputError if a file is in the way.
        """
        if self._local:
            return [Found(*found) for found in sorted(local.files(self._path))]
        try:
            listed = self._fs.find(self._path, detail=True)
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise
            return []
        found = []
        for path, info in sorted(listed.items()):
            if info["type"] != "file":  # the folder itself, whose first file came meanwhile
                continue
            modified = info.get("LastModified") or info["created"]
            if isinstance(modified, float):
                modified = datetime.fromtimestamp(modified, UTC)
            name = path.removeprefix(self._path).lstrip("/")
            if name and not name.endswith("/"):  # some tools write such a file for a folder
                found.append(Found(name, int(info["size"]), modified))
        return found

    @_clearly
    def size(self, name: str) -> int:
        """Bytes of a file.  Raises FileNotFoundError if there is none."""
        return int(self._fs.info(self._at(name))["size"])

    @_clearly
    def read(self, name: str) -> bytes:
        """The whole of a small file.  Raises FileNotFoundError if there is none."""
        if not self._fs.async_impl:
            return b"".join(self.chunks(name))
        # One request: opening a file, or reading it in several parts, asks for its size first.
        return self._fs.cat_file(self._at(name), max_concurrency=1)

    def open(self, name: str) -> IO[bytes]:
        """A file for reading parts of it; no more of a large remote one is moved than is read.

        Raises FileNotFoundError if there is none.
        """
        return self._open(name, "none")

    @_clearly
    def _open(self, name: str, ahead: str) -> IO[bytes]:
        """A file for reading.  ahead: how fsspec reads a remote one, beyond what is asked for."""
        if self._local:
            return open(self._at(name), "rb")
        if self._fs.async_impl:
            # One request for a small file, not three: for its size, a table's end and its columns.
            begin = self._beginning(name)
            if len(begin) < _SMALL:
                return io.BytesIO(begin)
        return self._fs.open(self._at(name), "rb", block_size=_BLOCK, cache_type=ahead)

    def _beginning(self, name: str) -> bytes:
        """As much of a remote file as one request brings soon; all of it if it is small."""
        try:
            return self._fs.cat_file(self._at(name), start=0, end=_SMALL, max_concurrency=1)
        except OSError as error:
            if is_empty(error):
                return b""
            raise

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's bytes, in order.

        Raises FileNotFoundError if there is none, and OSError if not all bytes come.
        """
        with self._open(name, "readahead") as file:
            while True:
                with self.faults(name):
                    chunk = file.read(_CHUNK)
                    if not chunk:
                        check_read_whole(file, file.tell())
                if not chunk:
                    return
                yield chunk

    def local_path(self, name: str) -> Path | None:
        """Where a file lies on this machine's disk; None if the folder is remote."""
        return Path(self._at(name)) if self._local else None

    @_clearly
    def write_new(self, name: str, data: bytes) -> None:
        """Write a small file whole, or not at all if the name is taken.

        Raises FileExistsError if it is.  A remote file of just this content is no error: an earlier
        try went through before its connection broke.
        """
        if self._has_single_writer():
            self._look_and_write(name, data)
        elif self._local:
            local.write_new(self._at(name), data)
        elif not self._put_new(name, data) and not self._holds(name, data):
            raise FileExistsError(errno.EEXIST, "there is such a file already", f"{self}/{name}")

    @contextmanager
    def create(self, name: str) -> Iterator[CheckedFile]:
        """A file to write, which gets its name when it is whole; its checksum is made on the way.

        It is for names that nobody else writes, as in a step's own attempt: a file of that name is
        replaced.  If the block fails, nothing is left.
        """
        if self._local:
            whole = local.whole(self._at(name))
            with self.faults(), whole as partial, open(partial, "wb") as file:
                yield CheckedFile(file, name)
            return
        with self.faults():
            file = self._fs.open(self._at(name), "wb", block_size=_BLOCK)
        try:
            yield CheckedFile(file, name, self.faults)
            with self.faults():
                file.close()
        except BaseException:
            # Otherwise fsspec would write what it has when the object goes.
            file.closed = True
            with suppress(Exception):  # the first error says more
                file.discard()
            raise

    @_clearly
    def copy(
        self, names: Sequence[str], target: "Folder", new_names: Sequence[str] | None = None
    ) -> None:
        """Copy files to another folder of the same store, without passing through here.

        new_names: their names there; by default the same.  Raises FileNotFoundError if a file is
        missing.
        """
        new_names = names if new_names is None else new_names
        if not self._local:
            sources, targets = [self._at(n) for n in names], [target._at(n) for n in new_names]
            self._fs.copy(sources, targets, on_error="raise")
            return
        for name, new_name in zip(names, new_names, strict=True):
            local.copy(self._at(name), target._at(new_name))

    @_clearly
    def record(self, name: str) -> FileRecord:
        """Size in bytes and SHA-256 of a file as it lies there, read once.

        Raises FileNotFoundError if there is none.
        """
        digest, size = hashlib.sha256(), 0
        for chunk in self.chunks(name):
            digest.update(chunk)
            size += len(chunk)
        return FileRecord(name, size, digest.hexdigest())

    @_clearly
    def delete(self, name: str) -> None:
        """Delete a file; nothing happens if it is not there."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self._fs.rm_file(self._at(name))

    @_clearly
    def remove(self) -> None:
        """Delete the folder with all that is in it.  Raises OSError if something stays."""
        with suppress(FileNotFoundError):
            # fsspec takes a remote path for a pattern.
            self._fs.rm(self._path if self._local else glob.escape(self._path), recursive=True)
        # S3 answers for each of a thousand files, and s3fs ignores those answers.
        left = [] if self._local else self.files()
        if left:
            raise OSError(f"{self}/{left[0].name} could not be deleted; may you delete there?")

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def faults(self, name: str = "") -> Iterator[None]:
        """Within the block, errors are in plain words that name the folder, or a file of it."""
        try:
            yield
        except Exception as error:
            where = f"{self}/{name}" if name else str(self)
            plain = (of_the_path if self._local else in_words)(error, where)
            plain = plain or placed(error, where)
            if plain is None:
                raise
            raise plain from error

    def _has_single_writer(self) -> bool:
        return any(self.uri == s or self.uri.startswith(f"{s}/") for s in _single_writers)

    def _holds(self, name: str, data: bytes) -> bool:
        with suppress(FileNotFoundError):
            return self.read(name) == data
        return False

    def _put_new(self, name: str, data: bytes) -> bool:
        """Write a remote file unless the name is taken; returns whether it did."""
        for wait in _CONFLICT_WAITS:
            try:
                self._fs.pipe_file(self._at(name), data, mode="create")
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if status(error.__cause__) in _TAKEN:
                    return False
                if status(error.__cause__) != _CONFLICT:
                    raise
                conflict = error
                time.sleep(wait)
        if not self.exists(name):
            raise conflict
        return False

    def _look_and_write(self, name: str, data: bytes) -> None:
        if self.exists(name):
            raise FileExistsError(errno.EEXIST, "there is such a file already", f"{self}/{name}")
        with self.create(name) as file:
            file.write(data)
