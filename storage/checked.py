"""A file as it is written: its size and checksum, as a manifest will name them."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO, Any


@dataclass(frozen=True)
class FileRecord:
    """A written file, as a manifest names it."""

    path: str
    """The file's path, relative to the version."""
    bytes: int
    sha256: str
    rows: int | None = None


class CheckedFile:
    """A file being written, with its size and SHA-256 so far."""

    def __init__(
        self,
        file: IO[bytes],
        name: str,
        faults: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._file = file
        self._faults = faults
        self._name = name
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: Any) -> int:
        """Append bytes, or anything with the buffer protocol."""
        view = memoryview(data).cast("B")
        with self._faults():
            self._file.write(view)
        self._digest.update(view)
        self._bytes += len(view)
        return len(view)

    def record(self, rows: int | None = None) -> FileRecord:
        """The record of the file; ask when all of it is written.  rows: of a table."""
        return FileRecord(self._name, self._bytes, self._digest.hexdigest(), rows)

    # pyarrow asks for the following of a file object.
    closed = False

    def flush(self) -> None:
        """Nothing: no bytes are kept back here."""

    def close(self) -> None:
        """Nothing: the block that opened the file closes it."""

    def tell(self) -> int:
        """How many bytes are written."""
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
