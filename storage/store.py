"""One small class over fsspec: a folder, local or remote.  Nobody else knows about protocols."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from raee.errors import InputError

_CHUNK = 1 << 20

_BLOCK = 16 << 20
"""Bytes of a part of a multipart upload and of a read ahead: what a remote file takes in memory."""


@dataclass(frozen=True)
class FileRecord:
    """A written file, as a manifest names it."""

    path: str
    """Relative to the version."""
    bytes: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True)
class Found:
    """A file as a listing shows it."""

    name: str
    """Relative to the folder that was listed."""
    bytes: int
    modified: datetime


class Folder:
    """A folder at a path or URI.  Names given to its methods are relative to it."""

    def __init__(self, uri: str) -> None:
        if not uri:
            raise InputError("a folder's address is empty")
        try:
            # What another process has written since must be seen: no listing is remembered.
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
        """The folder's address; a plain path where it is local."""
        return self._path if self._local else str(self._fs.unstrip_protocol(self._path))

    def exists(self, name: str) -> bool:
        """Whether a file or folder is there."""
        return bool(self._fs.exists(self._at(name)))

    def names(self) -> list[str]:
        """Names of the files and folders in it, sorted; none where it does not exist.

        Hidden ones, such as a file that was never finished, are left out.  Raises InputError where
        a file is in the way.
        """
        try:
            found = self._fs.ls(self._path, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise InputError(f"{self}: a file stands where a folder should be") from None
        names = sorted(path.rstrip("/").rpartition("/")[2] for path in found)
        return [name for name in names if not name.startswith(".")]

    def files(self) -> list[Found]:
        """All files below it, in the order of their names; none where it does not exist."""
        try:
            listed = self._fs.find(self._path, detail=True)
        except FileNotFoundError:
            return []
        found = []
        for path, info in sorted(listed.items()):
            modified = info.get("LastModified") or info.get("mtime") or info["created"]
            if isinstance(modified, int | float):
                modified = datetime.fromtimestamp(modified, UTC)
            name = path[len(self._path) :].lstrip("/")
            found.append(Found(name, int(info["size"]), modified))
        return found

    def size(self, name: str) -> int:
        """Bytes of a file.  Raises FileNotFoundError."""
        return int(self._fs.info(self._at(name))["size"])

    def read(self, name: str) -> bytes:
        """The whole of a small file.  Raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self._at(name)))

    def open(self, name: str) -> IO[bytes]:
        """A file for reading, with seek.  Raises FileNotFoundError."""
        if self._local:
            return open(self._at(name), "rb")
        return self._fs.open(self._at(name), "rb", block_size=_BLOCK)

    def local_path(self, name: str) -> Path | None:
        """Where a file lies on this machine's disk; None where the folder is remote."""
        return Path(self._at(name)) if self._local else None

    def write_new(self, name: str, data: bytes) -> None:
        """Write a small file whole, or not at all where the name is taken.

        Raises FileExistsError where it is.  Where a connection broke and the file is there with
        just this content, an earlier try went through.
        """
        try:
            if self._local:
                self._link_new(name, data)
            else:
                self._fs.pipe_file(self._at(name), data, mode="create")
        except FileExistsError:
            taken = True
        except OSError as error:
            taken = _name_is_taken(error)
            if not taken:
                raise
        else:
            return
        if self._local or self.read(name) != data:
            raise FileExistsError(errno.EEXIST, "there is such a file already", f"{self}/{name}")

    @contextmanager
    def create(self, name: str) -> Iterator["CheckedFile"]:
        """A file to write, put in its place when it is whole; checksums are made on the way.

        For names that nobody else writes, as in a step's own attempt: a file of that name is
        replaced.  Where the block fails, nothing is left.
        """
        if self._local:
            partial = self._partial(name)
            try:
                with open(partial, "wb") as file:
                    yield CheckedFile(file, name)
                os.replace(partial, self._at(name))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial)
            return
        file = self._fs.open(self._at(name), "wb", block_size=_BLOCK)
        try:
            yield CheckedFile(file, name)
        except BaseException:
            file.discard()
            # fsspec would else write what it has when the object goes.
            file.closed = True
            raise
        file.close()

    def copy(self, names: Sequence[str], target: "Folder") -> None:
        """Copy files to the same names in another folder of the same store, not through here.

        Raises FileNotFoundError.
        """
        if not self._local:
            sources, targets = [self._at(n) for n in names], [target._at(n) for n in names]
            self._fs.copy(sources, targets, on_error="raise")
            return
        for name in names:
            partial = target._partial(name)
            try:
                try:
                    os.link(self._at(name), partial)
                except OSError as error:
                    if error.errno == errno.ENOENT:
                        raise
                    shutil.copyfile(self._at(name), partial)  # another disk, or one without links
                os.replace(partial, target._at(name))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial)

    def record(self, name: str) -> FileRecord:
        """Size and SHA-256 of a file as it lies there, read once.  Raises FileNotFoundError."""
        digest, size = hashlib.sha256(), 0
        with self.open(name) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return FileRecord(name, size, digest.hexdigest())

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens where it is not there."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._path, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _link_new(self, name: str, data: bytes) -> None:
        partial = self._partial(name)
        try:
            with open(partial, "wb") as file:
                file.write(data)
            os.link(partial, self._at(name))  # fails where the name is taken, whoever took it
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)

    def _partial(self, name: str) -> str:
        folder, _, base = self._at(name).rpartition("/")
        os.makedirs(folder, exist_ok=True)
        return f"{folder}/.{base}.{secrets.token_hex(4)}.partial"


def _name_is_taken(error: OSError) -> bool:
    """Whether a conditional write was refused: not every server says which condition failed."""
    response = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code")
    # A conflict is another conditional write of the same name under way (S3's 409).
    return code in ("PreconditionFailed", "412", "ConditionalRequestConflict")


class CheckedFile:
    """A file being written, with its size and SHA-256 so far."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: Any) -> int:
        """Append bytes, or anything with the buffer protocol."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._digest.update(view)
        self._bytes += len(view)
        return len(view)

    def record(self, rows: int | None = None) -> FileRecord:
        """What was written; ask when all of it was."""
        return FileRecord(self._name, self._bytes, self._digest.hexdigest(), rows)

    # What pyarrow asks of a file object.
    closed = False

    def flush(self) -> None:
        """Nothing is kept back here."""

    def close(self) -> None:
        """The block that opened the file closes it."""

    def tell(self) -> int:
        """Bytes written."""
        return self._bytes

    def writable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Never."""
        return False
