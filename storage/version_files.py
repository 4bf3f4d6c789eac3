"""The files of a version: in one folder if it is published, each with its step if it is not yet."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.cache import local_files
from storage.checked import FileRecord
from storage.parquet import read_table
from storage.store import Folder


@dataclass(frozen=True)
class VersionFiles:
    """A version's files, which are read alike whether it is published or not."""

    placed: Mapping[str, tuple[Folder, FileRecord]]
    """By path in the version, the folder in which a file lies under that path, and its record."""

    def __contains__(self, path: str) -> bool:
        return path in self.placed

    def below(self, folder: str) -> list[str]:
        """The paths below a folder of the version, such as `entries/`, in order."""
        return sorted(path for path in self.placed if path.startswith(folder))

    def folder_of(self, path: str) -> Folder:
        """The folder in which a file lies.  Raises KeyError if there is no such file."""
        return self.placed[path][0]

    def read(self, path: str) -> bytes:
        """The whole of a small file.  Raises KeyError, and FileNotFoundError if it is gone."""
        return self.folder_of(path).read(path)

    def table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table, or some of its columns.

        Raises KeyError if there is no such file, and InputError if it is no Parquet or lacks a
        column.
        """
        return read_table(self.folder_of(path), path, columns)

    @contextmanager
    def locally(self, paths: Sequence[str]) -> Iterator[dict[str, Path]]:
        """Within the block, by path, where each of some files lies on this machine, checked.

        Raises KeyError if there is no such file, and InputError if one is not what its record says.
        """
        with ExitStack() as stack:
            here: dict[str, Path] = {}
            for folder, some in self._by_folder(paths):
                records = [self.placed[path][1] for path in some]
                found = stack.enter_context(local_files(folder, records))
                here |= zip(some, found, strict=True)
            yield here

    def copy(self, target: Folder) -> list[FileRecord]:
        """Copy all files to a folder of the same store; returns their records, in order.

        Copying twice does no harm.  Raises FileNotFoundError if one is gone.
        """
        for folder, paths in self._by_folder(self.placed):
            folder.copy(paths, target)
        return [self.placed[path][1] for path in sorted(self.placed)]

    def _by_folder(self, paths: Iterable[str]) -> list[tuple[Folder, list[str]]]:
        """The folders with their paths: a store is asked for the files of one folder at a time."""
        groups: dict[str, tuple[Folder, list[str]]] = {}
        for path in paths:
            folder = self.folder_of(path)
            groups.setdefault(folder.uri, (folder, []))[1].append(path)
        return list(groups.values())
