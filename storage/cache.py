"""Files of a remote store on this machine's disk, for what is memory-mapped or read by range.

A cache folder holds files named by their SHA-256, so that a name never means two contents:

    {sha256}                    whole and checked; its user holds a shared lock on it
    {sha256}.{token}.partial    a download under way; its writer holds a shared lock on it
    {sha256}.lock               held exclusively by who downloads the file, while others wait for it

All locks are advisory ones of the open file (flock): they vanish with a killed process.  So nobody
uses a file that can be locked exclusively; eviction asks no more, of any of the three kinds.  After
each lock, the code checks that the name still means the locked file.

`RAEE_CACHE` names the folder; without it, it is `raee` in the user's cache folder.
`RAEE_CACHE_BYTES` bounds it.  Only files in use and downloads under way may exceed the bound.

fsspec's file cache does not serve here: it knows neither a bound nor checksums.  diskcache, which
has bounds, has had no release since 2023, and serves no file that it could not evict meanwhile.
"""

import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from raee.errors import InputError
from storage.checked import CheckedFile, FileRecord
from storage.store import Folder

DEFAULT_BYTES = 20_000_000_000
"""Bytes that the cache may hold if `RAEE_CACHE_BYTES` does not say."""

_NAME = re.compile(r"[0-9a-f]{64}(?P<unfinished>\.lock|\.[0-9a-f]{8}\.partial)?")
"""Names of the cache's own files: the folder may hold others, which are left alone."""


@contextmanager
def local_file(folder: Folder, record: FileRecord) -> Iterator[Path]:
    """Within the block, a path on this machine at which just the recorded file lies; read only.

    In a local folder it is the file itself, read once to check it.  For a remote folder it is a
    file of the cache: checked as it comes, and not again; it is not evicted before the block ends,
    and files that were mapped or opened stay readable afterwards.  Several processes and threads
    may ask at once: one downloads, the others wait for it.

    Raises InputError if the file is missing or not what its record says, and OSError if it cannot
    be downloaded or kept, as on a full disk; then nothing of it stays in the cache.
    """
    with local_files(folder, [record]) as (path,):
        yield path


@contextmanager
def local_files(folder: Folder, records: Sequence[FileRecord]) -> Iterator[list[Path]]:
    """Within the block, a path for each record, in their order, as `local_file` has it.

    A remote file takes one open file while the block runs.  Raises as `local_file` does.
    """
    own = [path for record in records if (path := folder.local_path(record.path)) is not None]
    if len(own) == len(records):
        for record in records:
            _check_own(folder, record)
        yield own
        return
    cache = _cache()
    with ExitStack() as stack:
        stack.callback(_evict, cache)  # last, when all are let go
        for record in records:
            stack.callback(_release, _hold(cache, folder, record))
        yield [cache.folder / record.sha256 for record in records]


@dataclass(frozen=True)
class _Cache:
    folder: Path
    limit: int
    """The most bytes that it holds."""


def _cache() -> _Cache:
    limit = os.environ.get("RAEE_CACHE_BYTES") or str(DEFAULT_BYTES)
    if not re.fullmatch(r"0*[1-9][0-9]*", limit):
        raise InputError(
            f"RAEE_CACHE_BYTES is {limit!r}; give the bytes that the cache may hold, as in "
            f"{DEFAULT_BYTES}"
        )
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("RAEE_CACHE") or f"{users}/raee").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache folder {folder} cannot be made: {error.strerror}; "
            "let RAEE_CACHE name a folder that can be written"
        ) from error
    return _Cache(folder, int(limit))


def _check_own(folder: Folder, record: FileRecord) -> None:
    try:
        found = folder.record(record.path)
    except FileNotFoundError:
        raise _damaged(folder, f"{record.path} is missing") from None
    _require_same(folder, record, found)


def _hold(cache: _Cache, folder: Folder, record: FileRecord) -> int:
    """The record's file in the cache, open under a shared lock, downloaded if need be."""
    if not re.fullmatch(r"[0-9a-f]{64}", record.sha256):
        # It becomes a file's name.
        raise _damaged(folder, f"its manifest says no SHA-256 of {record.path}")
    path = cache.folder / record.sha256
    held = _cached(path, record)
    if held is None:
        lock = path.with_suffix(".lock")
        turn = _lock(lock, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
        try:
            held = _cached(path, record)  # the process before may have downloaded it
            if held is None:
                _evict(cache, record.bytes)
                held = _download(folder, record, path)
        finally:
            # It is deleted while held: whoever waits for it finds it gone and makes a new one.
            lock.unlink(missing_ok=True)
            _release(turn)
    # The kernel's own "now" is only as fine as its tick, and the order of uses counts.
    now = time.time_ns()
    os.utime(held, ns=(now, now))
    return held


def _cached(path: Path, record: FileRecord) -> int | None:
    try:
        held = _lock(path, os.O_RDONLY, fcntl.LOCK_SH)
    except FileNotFoundError:
        return None
    if os.fstat(held).st_size == record.bytes:
        return held
    _release(held)  # somebody truncated it; a download replaces it
    return None


def _download(folder: Folder, record: FileRecord, path: Path) -> int:
    """Download a file into the cache; returns it open under a shared lock."""
    partial = path.with_suffix(f".{secrets.token_hex(4)}.partial")
    held = _lock(partial, os.O_RDWR | os.O_CREAT, fcntl.LOCK_SH)
    try:
        try:
            with open(held, "wb", closefd=False) as target:
                checked = CheckedFile(target, record.path)
                for chunk in folder.chunks(record.path):
                    checked.write(chunk)
        except FileNotFoundError:
            raise _damaged(folder, f"{record.path} is missing") from None
        _require_same(folder, record, checked.record())
        # Otherwise a machine that stops could leave the name without its content.
        os.fsync(held)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        _release(held)
        raise
    return held


def _evict(cache: _Cache, wanted: int = 0) -> None:
    """Clear what killed downloads left; make room for `wanted` bytes, longest unused files first.

    Files in use stay.  A file larger than the whole cache never fits: it is the first to go, and no
    other makes room for it.
    """
    files = []
    with suppress(FileNotFoundError):  # somebody cleared the whole folder, which is their right
        for entry in list(os.scandir(cache.folder)):
            name = _NAME.fullmatch(entry.name)
            if name is None:
                continue
            if name["unfinished"]:
                _drop(Path(entry.path))
                continue
            with suppress(FileNotFoundError):
                stat = entry.stat()
                files.append((stat.st_size <= cache.limit, stat.st_mtime_ns, stat.st_size, entry))
    total = sum(size for _, _, size, _ in files)
    room = cache.limit - (wanted if wanted <= cache.limit else 0)
    if total <= room:
        return
    for _, _, size, entry in sorted(files, key=lambda file: file[:2]):
        if _drop(Path(entry.path)):
            total -= size
        if total <= room:
            return


def _drop(path: Path) -> bool:
    """Delete a file that nobody uses; returns whether it is gone."""
    try:
        held = _lock(path, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    path.unlink(missing_ok=True)
    _release(held)
    return True


def _lock(path: Path, flags: int, how: int) -> int:
    """Open and lock the file that has this name once it is locked.

    Raises FileNotFoundError, and BlockingIOError if the lock is not to be waited for.
    """
    while True:
        file = os.open(path, flags, 0o666)
        try:
            fcntl.flock(file, how)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # meanwhile the name was deleted, or given to another file


def _release(file: int) -> None:
    # A forked child has the same open file: closing ours alone would leave it locked.
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _require_same(folder: Folder, meant: FileRecord, found: FileRecord) -> None:
    if found.bytes != meant.bytes:
        raise _damaged(
            folder, f"{meant.path} has {found.bytes} bytes, its manifest says {meant.bytes}"
        )
    if found.sha256 != meant.sha256:
        raise _damaged(folder, f"{meant.path} has another SHA-256 than its manifest says")


def _damaged(folder: Folder, fault: str) -> InputError:
    return InputError(f"{folder} is damaged: {fault}. Roll back to another version or build anew.")
