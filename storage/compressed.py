"""Compressed files, read as if they were not."""

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from typing import IO, Any

from storage.corpus_files import bare

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DAMAGED = (EOFError, lzma.LZMAError, zlib.error, zstd.ZstdError)
"""Errors that a damaged file raises, apart from OSError."""

_READ = 1 << 16


class _Streams(io.RawIOBase):
    """The contents of several streams, one after the other.

    Python's own files for bzip2 and xz end silently if a stream is damaged at its start, and at the
    zeros that may come between two streams of xz.
    """

    def __init__(self, file: IO[bytes], decompressor: Callable[[], Any]) -> None:
        self._file = file
        self._decompressor = decompressor
        self._stream = decompressor()
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._next(len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        if offset < self._at:
            self._file.seek(0)
            self._stream, self._at = self._decompressor(), 0
        while self._at < offset and self.read(min(_READ, offset - self._at)):
            pass
        return self._at

    def _next(self, most: int) -> bytes:
        found = b""
        while not found:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data.lstrip(b"\0")
                while not packed:
                    read = self._file.read(_READ)
                    if not read:
                        return b""
                    packed = read.lstrip(b"\0")
                self._stream = self._decompressor()
            elif self._stream.needs_input:
                packed = self._file.read(_READ)
                if not packed:
                    raise EOFError("it ends in the middle of a stream")
            found = self._stream.decompress(packed, most)
        return found


_DECOMPRESSED: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": lambda file: io.BufferedReader(_Streams(file, bz2.BZ2Decompressor)),
    ".xz": lambda file: io.BufferedReader(_Streams(file, lzma.LZMADecompressor)),
    ".zst": zstd.ZstdFile,
}


def decompressed(file: IO[bytes], path: str) -> Any:
    """A file, decompressed as the ending of its name says; itself if the name says nothing.

    Reading a damaged file raises one of DAMAGED or OSError.
    """
    unpack = _DECOMPRESSED.get(os.path.splitext(bare(path).lower())[1])
    return file if unpack is None else unpack(file)
