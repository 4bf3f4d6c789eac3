"""Whether a store refuses to write over a file: aliases and manifests rely on it.

A trial answers that: some servers ignore the condition, others do not know it.
"""

import errno
import secrets

from raee.errors import InputError
from storage.store import Folder, declare_single_writer

SINGLE_WRITER = "single-writer"
"""The file that says in a store that only one process at a time writes there."""

_CANNOT = (errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EINVAL)
"""Errors of disks without hard links, and of servers that do not know conditional writes."""

_probed: dict[str, str | None] = {}
"""By store, why it cannot refuse; None if it can."""


def require_conditional_writes(
    store: str, single_writer: bool = False, also: str | None = None
) -> None:
    """Make sure, once per process and store, that only one of several racing writers wins.

    single_writer: whether the user has promised that only one process at a time writes there.  A
    store that cannot refuse a taken name is then marked, so that it need not be promised again,
    and `Folder.write_new` looks before it writes.  also: a folder around it for which the same
    holds.  Raises InputError if the store cannot refuse, and nobody has promised.
    """
    folder = Folder(store)
    if folder.uri not in _probed:
        _probed[folder.uri] = _why_not(folder)
    reason = _probed[folder.uri]
    if reason is None:
        return
    if not single_writer and not folder.exists(SINGLE_WRITER):
        raise InputError(
            f"store {folder} {reason}, so of two processes one could undo what the other wrote; "
            "say `single_writer: true` in the job if only one process at a time writes there"
        )
    for folder_uri in (store, *([] if also is None else [also])):
        declare_single_writer(folder_uri)
    if single_writer and not folder.exists(SINGLE_WRITER):
        folder.write_new(SINGLE_WRITER, b"One process at a time may write here.\n")


def _why_not(folder: Folder) -> str | None:
    """Why a store cannot refuse a taken name; None if it can."""
    name = f".probe-{secrets.token_hex(8)}"
    written = False
    try:
        folder.write_new(name, b"first")
        written = True
        folder.write_new(name, b"second")
    except FileExistsError:
        return None if written else "says of a new file that it is there already"
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return f"cannot write a file only if there is none ({error.strerror or error})"
    finally:
        folder.delete(name)
    return "writes over a file although it was asked to write only if there is none"
