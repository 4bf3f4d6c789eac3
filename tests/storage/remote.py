"""A store that is remote to `Folder` and a folder to its tests, so that processes can share it."""

import hashlib
import io
import os
import random
import sys
import time
from pathlib import Path

import fsspec
from fsspec.spec import AbstractFileSystem

from storage.cache import local_file
from storage.checked import FileRecord
from storage.store import Folder


class Remote(AbstractFileSystem):
    """Notes each file that is opened, in `.opened` beside it; reads as slowly as it is told."""

    protocol = "remote"

    def info(self, path, **_):
        return {"name": path, "size": os.stat(path).st_size, "type": "file"}

    def _open(self, path, *_, **__):
        file = _Slow(path)
        with open(Path(path).parent / ".opened", "a") as opened:
            opened.write(f"{Path(path).name}\n")
        return file


class _Slow(io.FileIO):
    def read(self, size=-1):
        # The kill test stops at audited calls; a read of the network would be one of them.
        sys.audit("remote.read")
        time.sleep(float(os.environ.get("REMOTE_READ_SECONDS", "0")))
        return super().read(size)


fsspec.register_implementation("remote", Remote, clobber=True)


def remote_folder(path: Path) -> Folder:
    """The folder at a path, as a remote one."""
    return Folder(f"remote://{path}")


def opened(path: Path) -> list[str]:
    """Names of the files that were opened in a remote folder, in that order."""
    return (path / ".opened").read_text().split() if (path / ".opened").exists() else []


def content(number: int, size: int) -> bytes:
    """Bytes that differ from those of any other number."""
    return random.Random(number).randbytes(size)


def record_of(name: str, data: bytes) -> FileRecord:
    """What a manifest says of a file."""
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def use_files(path: str, seed: str, uses: str, sizes: str) -> None:
    """What each of several processes does: use files of these sizes in an order of its own."""
    folder, draw = remote_folder(Path(path)), random.Random(int(seed))
    files = [content(i, int(size)) for i, size in enumerate(sizes.split(","))]
    while not (Path(path) / "go").exists():
        time.sleep(0.001)
    for _ in range(int(uses)):
        number = draw.randrange(len(files))
        with local_file(folder, record_of(f"file-{number}", files[number])) as local:
            time.sleep(draw.random() / 500)
            assert local.read_bytes() == files[number]


def kill_at_each_call(path: str) -> None:
    """Kill a process at each call to the system while it evicts a file and gets another."""
    folder, cache = remote_folder(Path(path)), Path(os.environ["RAEE_CACHE"])
    old, new = (record_of(name, (Path(path) / name).read_bytes()) for name in ("old", "new"))
    call, partials, died = 0, 0, True
    while died:
        call += 1
        with local_file(folder, old):
            pass
        child = os.fork()
        if not child:
            _die_at_call(call)
            with local_file(folder, new):
                pass
            os._exit(0)
        died = bool(os.waitpid(child, 0)[1])
        partials += any(cache.glob("*.partial"))
        with local_file(folder, new) as local:
            assert record_of("new", local.read_bytes()) == new, call
        left = [entry.name for entry in cache.iterdir()]
        assert left == [new.sha256], (call, left)
    sys.stdout.write(f"{call} {partials}")


def _die_at_call(number: int) -> None:
    calls = 0

    def count(event: str, _: tuple) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), 9)

    sys.addaudithook(count)


if __name__ == "__main__":
    {"use-files": use_files, "kill": kill_at_each_call}[sys.argv[1]](*sys.argv[2:])
