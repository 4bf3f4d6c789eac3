"""A store that is remote to `Folder` and fails when it is told to: `faulty://` and a local path.

Like an object store it shows a file when it is whole, and refuses a taken name where asked to.
"""

import errno
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

EVER = sys.maxsize


@dataclass(frozen=True)
class Fault:
    """What goes wrong at some calls of one kind."""

    call: str
    """info, ls, find, open, read, write, pipe_file, cp_file or rm."""
    error: Callable[[], Exception] | None = None
    first: int = 1
    """The first call that it strikes, from 1."""
    times: int = 1
    """How many calls it strikes, one after the other."""
    late: bool = False
    """Whether the call is done all the same, and only its answer is lost."""
    short: bool = False
    """Whether what is read ends in its middle, as long as the file is open."""
    seconds: float = 0.0
    """How long the call waits."""
    below: str = ""
    """Counts and strikes only calls whose path has this in it."""


def full() -> Exception:
    """What a full disk says: not which file it is about."""
    return OSError(errno.ENOSPC, "No space left on device")


class _Weather:
    """The faults of now, and the calls so far."""

    def __init__(self, faults: Sequence[Fault] = (), room: int = EVER) -> None:
        self.calls: Counter[str] = Counter()
        self.written = 0
        self._room = room
        self._faults = faults
        self._met = [0] * len(faults)

    @contextmanager
    def call(self, call: str, path: str) -> Iterator[bool]:
        """Around a call; yields whether its reading is to be cut short."""
        self.calls[call] += 1
        struck = [fault for i, fault in enumerate(self._faults) if self._strikes(i, call, path)]
        time.sleep(sum(fault.seconds for fault in struck))
        self._fail(struck, late=False)
        yield any(fault.short for fault in struck)
        self._fail(struck, late=True)

    def take(self, size: int) -> None:
        """Write so many bytes.  Raises OSError where they do not fit; nothing does from then on."""
        self.written += size
        if self.written > self._room:
            raise full()

    def _strikes(self, i: int, call: str, path: str) -> bool:
        fault = self._faults[i]
        if fault.call != call or fault.below not in path:
            return False
        self._met[i] += 1
        return fault.first <= self._met[i] < fault.first + fault.times

    def _fail(self, struck: Sequence[Fault], late: bool) -> None:
        for fault in struck:
            if fault.error is not None and fault.late == late:
                raise fault.error()


_weather = _Weather()


@contextmanager
def weather(*faults: Fault, room: int = EVER) -> Iterator[_Weather]:
    """Within, faulty stores have these faults, and take `room` bytes; yields an account of it."""
    global _weather
    before, _weather = _weather, _Weather(faults, room)
    try:
        yield _weather
    finally:
        _weather = before


class Faulty(AbstractFileSystem):
    """A local folder whose calls meet the weather."""

    protocol = "faulty"
    _disk = LocalFileSystem()

    def info(self, path, **_):
        with _weather.call("info", path):
            return self._disk.info(self._strip_protocol(path))

    def ls(self, path, detail=True, **_):
        with _weather.call("ls", path):
            return self._disk.ls(self._strip_protocol(path), detail=detail)

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **_):
        with _weather.call("find", path):
            return self._disk.find(self._strip_protocol(path), maxdepth, withdirs, detail)

    def _open(self, path, mode="rb", block_size=None, **options):
        with _weather.call("open", path):
            pass
        return _File(self, path, mode, block_size, **options)

    def pipe_file(self, path, value, mode="overwrite", **_):
        with _weather.call("pipe_file", path):
            put(path, value, new=mode == "create")

    def cp_file(self, path1, path2, **_):
        with _weather.call("cp_file", path2):
            put(path2, Path(path1).read_bytes())

    def rm_file(self, path):
        with _weather.call("rm", path):
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def created(self, path):
        return self._disk.created(path)

    def modified(self, path):
        return self._disk.modified(path)


class _File(AbstractBufferedFile):
    _ends = EVER

    def _fetch_range(self, start, end):
        with _weather.call("read", self.path) as short:
            if short:
                self._ends = min(self._ends, (start + end) // 2)
            with open(self.path, "rb") as file:
                file.seek(start)
                return file.read(max(0, min(end, self._ends) - start))

    def _initiate_upload(self):
        self._parts = []

    def _upload_chunk(self, final=False):
        with _weather.call("write", self.path):
            self._parts.append(self.buffer.getvalue())
            if final:
                put(self.path, b"".join(self._parts))

    def discard(self):
        self._parts = []


def put(path: str, data: bytes, new: bool = False) -> None:
    """Write a file whole.  Raises FileExistsError where it is to be new and is there."""
    if new and os.path.exists(path):
        raise FileExistsError(errno.EEXIST, "there is such a file already", path)
    _weather.take(len(data))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(data)


fsspec.register_implementation("faulty", Faulty, clobber=True)
