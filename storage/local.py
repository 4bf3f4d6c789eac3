"""Files on a disk: each appears whole or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime


@contextmanager
def whole(path: str) -> Iterator[str]:
    """The path to write to in the block; the file gets its own name after it.

    The file is deleted if the block fails.  It is hidden until then, and stays so if the process is
    killed.
    """
    folder, _, name = path.rpartition("/")
    _make(folder)
    partial = f"{folder}/.{name}.{secrets.token_hex(4)}.partial"
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, partial):
            error.filename = path  # a full disk does not say what it is about
        raise
    finally:
        with suppress(OSError):  # it is gone, or the first error says more
            os.unlink(partial)


def _make(folder: str) -> None:
    """Make a folder if there is none.  Raises NotADirectoryError if a file is in the way."""
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from error


def write_new(path: str, data: bytes) -> None:
    """Write a file if there is none.  Raises FileExistsError if anybody has taken the name."""
    try:
        with whole(path) as partial:
            with open(partial, "wb") as file:
                file.write(data)
            os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "there is such a file already", path) from None


def copy(path: str, target: str) -> None:
    """Copy a file, by a link if the disk has them.  Raises FileNotFoundError if it is missing."""
    with whole(target) as partial:
        try:
            os.link(path, partial)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise
            shutil.copyfile(path, partial)  # another disk, or one without links


def files(path: str) -> Iterator[tuple[str, int, datetime]]:
    """Name, bytes and time of all files below a folder; none if it does not exist.

    Others may write and delete there meanwhile.
    """

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for folder, _, names in os.walk(path, onerror=failed):
        for found in (os.path.join(folder, name) for name in names):
            with suppress(FileNotFoundError):
                info = os.stat(found)
                modified = datetime.fromtimestamp(info.st_mtime, UTC)
                yield os.path.relpath(found, path), info.st_size, modified
