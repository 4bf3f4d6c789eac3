"""One small class over fsspec: a folder, local or remote.  Nobody else knows about protocols."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from raee.errors import InputError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """A written file, as a manifest names it."""

    path: str
    """Relative to the version."""
    bytes: int
    sha256: str
    rows: int | None = None


class Folder:
    """A folder at a path or URI.  Names given to its methods are relative to it."""

    def __init__(self, uri: str) -> None:
        if not uri:
            raise InputError("a folder's address is empty")
        try:
            self._fs, self._path = fsspec.core.url_to_fs(uri)
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

    def size(self, name: str) -> int:
        """Bytes of a file.  Raises FileNotFoundError."""
        return int(self._fs.info(self._at(name))["size"])

    def read(self, name: str) -> bytes:
        """The whole of a small file.  Raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self._at(name)))

    def open(self, name: str) -> IO[bytes]:
        """A file for reading, with seek.  Raises FileNotFoundError."""
        return self._fs.open(self._at(name), "rb")

    def write_new(self, name: str, data: bytes) -> None:
        """Write a small file whole, or not at all where the name is taken.

        Raises FileExistsError where it is.
        """
        if not self._local:
            self._fs.pipe_file(self._at(name), data, mode="create")
            return
        partial = self._partial(name)
        try:
            with open(partial, "wb") as file:
                file.write(data)
            os.link(partial, self._at(name))  # fails where the name is taken, whoever took it
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)

    @contextmanager
    def create(self, name: str) -> Iterator["CheckedFile"]:
        """A file to write, put in its place when it is whole; checksums are made on the way.

        A file of that name is replaced.  Where the block fails, nothing is left.
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
        file = self._fs.open(self._at(name), "wb")
        try:
            yield CheckedFile(file, name)
        except BaseException:
            file.discard()
            raise
        file.close()

    def record(self, name: str) -> FileRecord:
        """Size and SHA-256 of a file as it lies there, read once.  Raises FileNotFoundError."""
        digest, size = hashlib.sha256(), 0
        with self.open(name) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return FileRecord(name, size, digest.hexdigest())

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._path, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _partial(self, name: str) -> str:
        folder, _, base = self._at(name).rpartition("/")
        os.makedirs(folder, exist_ok=True)
        return f"{folder}/.{base}.{secrets.token_hex(4)}.partial"


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
