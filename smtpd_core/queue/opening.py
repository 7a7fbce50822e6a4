"""Find out what a path is, and open it as a source of stored objects."""

from __future__ import annotations

import os
import stat

from smtpd_core.errors import AccessError, UsageError
from smtpd_core.queue import access, layout
from smtpd_core.queue.directory import DirectorySource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from smtpd_core.queue.sources import Source


def open_source(path: str, root: Optional[str], stdin_fd: int) -> Source:
    """Open a spool, a part of one, one envelope, or an archive that holds any of these.

    `-` is an archive on standard input. With a root, the path is taken below it, and links are
    followed as if it were `/`. Raises AccessError, and UsageError for a root of standard input.
    """
    if path == "-":
        if root is not None:
            raise UsageError("--root means nothing to an archive on standard input")
        return _open_archive(path, stdin_fd)
    if root is not None:
        path = access.resolve_below(root, path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise AccessError(f"{path}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        return DirectorySource(path)
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise AccessError(f"{path}: {access.kind_of(mode)}")
    return _open_file(path, mode)


def _open_file(path: str, mode: int) -> Source:
    """Open a regular file, or a FIFO that the operator named and so wants to be waited for."""
    waits = stat.S_ISFIFO(mode)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if waits else os.O_NONBLOCK)
    try:
        descriptor = access.open_below(path, flags, None)
        size = 0 if waits else os.fstat(descriptor).st_size
    except OSError as error:
        raise AccessError(f"{path}: {access.why(error)}") from None
    if waits or _is_archive(descriptor, size):
        return _open_archive(path, descriptor)
    from smtpd_core.queue.file import FileSource

    return FileSource(path, descriptor)


def _open_archive(path: str, descriptor: int) -> Source:
    from smtpd_core.queue.archive import ArchiveSource

    return ArchiveSource(path, descriptor)


def _is_archive(descriptor: int, size: int) -> bool:
    """Tell an archive from an envelope: by what is in it, or else because it is too large."""
    from smtpd_core.queue.archive import begins_archive

    if size > layout.ENVELOPE_OCTETS_MAX:
        return True
    found = begins_archive(descriptor)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return found
