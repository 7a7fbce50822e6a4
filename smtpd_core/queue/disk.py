"""The seam through which the spool is changed: a few calls below one directory.

Paths are relative to the spool. The last name of a path is never followed when it is a link, and
the directories before it belong to nobody but the queue's user. Every descriptor closes itself
across exec. A refusal of the system is the OSError it is: whoever calls knows what it means.
tests/fakes/disk.py holds a model of it that can lose what was not flushed.
"""

from __future__ import annotations

import errno
import os
import stat

from smtpd_core.errors import SmtpdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional, Protocol

    class Disk(Protocol):
        """What the spool needs of a file system; see SystemDisk for what each call means."""

        def mkdir(self, path: str, mode: int, /) -> None: ...  # noqa: D102
        def create(self, path: str, mode: int, /) -> int: ...  # noqa: D102
        def open(self, path: str, /) -> int: ...  # noqa: D102
        def write(self, handle: int, octets: bytes, /) -> None: ...  # noqa: D102
        def read(self, handle: int, size: int, offset: int, /) -> bytes: ...  # noqa: D102
        def size(self, handle: int, /) -> int: ...  # noqa: D102
        def rewind(self, handle: int, /) -> None: ...  # noqa: D102
        def flush(self, handle: int, /) -> None: ...  # noqa: D102
        def close(self, handle: int, /) -> None: ...  # noqa: D102
        def load(self, path: str, limit: int, /) -> bytes: ...  # noqa: D102
        def rename(self, old: str, new: str, /) -> None: ...  # noqa: D102
        def unlink(self, path: str, /) -> None: ...  # noqa: D102
        def rmdir(self, path: str, /) -> None: ...  # noqa: D102
        def flush_directory(self, path: str, /) -> None: ...  # noqa: D102
        def names(self, path: str, /) -> list[str]: ...  # noqa: D102
        def status(self, path: str, /) -> Optional[Status]: ...  # noqa: D102
        def chmod(self, path: str, mode: int, /) -> None: ...  # noqa: D102
        def chown(self, path: str, uid: int, gid: int, /) -> None: ...  # noqa: D102


FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FIRST_READ = 8192  # holds all but the strangest envelopes
_PIECE = 1 << 16
_flush_data = getattr(os, "fdatasync", os.fsync)  # the size of a file counts as data

# What the system runs out of, or may have only for a while; any other refusal of an operation
# that the spool's rules allow is a broken disk, and a sender may try again all the same.
_EXHAUSTED = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open in the system",
}


class SpoolError(SmtpdError):
    """The spool could not do what was asked; nothing partial is visible.

    `temporary` when the same request may succeed later, as with a full disk.
    """

    def __init__(self, message: str, temporary: bool = True) -> None:
        """Take one sentence; errors of the disk are temporary."""
        super().__init__(message)
        self.temporary = temporary


def refused(path: str, error: OSError) -> SpoolError:
    """Turn a refusal of the system into the error of the spool."""
    return SpoolError(f"{path}: {reason(error)}")


def reason(error: OSError) -> str:
    """Say in a few words why the system refused."""
    return _EXHAUSTED.get(error.errno or 0) or error.strerror or "failed"


def quietly(act: Callable[[str], None], path: str) -> None:
    """Do what is good to have done, and may fail."""
    try:
        act(path)
    except OSError:
        pass


class Status:
    """What the system says about a name: kind is `directory`, `file` or `other`."""

    __slots__ = ("gid", "kind", "mode", "mtime", "size", "uid")

    def __init__(self, status: os.stat_result) -> None:
        """Take from a result of stat what a spool's rules are about; mode is 12 bits."""
        mode = status.st_mode
        self.kind = "other"
        if stat.S_ISDIR(mode):
            self.kind = "directory"
        elif stat.S_ISREG(mode):
            self.kind = "file"
        self.mode = stat.S_IMODE(mode)
        self.uid = status.st_uid
        self.gid = status.st_gid
        self.size = status.st_size
        self.mtime = int(status.st_mtime)


class SystemDisk:
    """The file system below an open directory."""

    __slots__ = ("_root",)

    def __init__(self, root: int) -> None:
        """Take over the descriptor of the spool's directory."""
        self._root = root

    @classmethod
    def below(cls, path: str) -> SystemDisk:
        """Open the directory of a spool. Raises SpoolError."""
        try:
            return cls(os.open(path, _DIRECTORY))
        except OSError as error:
            raise refused(path, error) from None

    def release(self) -> None:
        """Let go of the spool's directory."""
        os.close(self._root)

    def mkdir(self, path: str, mode: int) -> None:
        """Make a directory, with exactly this mode whatever the umask."""
        os.mkdir(path, mode, dir_fd=self._root)
        if mode & 0o077:  # a umask may have taken some of these
            os.chmod(path, mode, dir_fd=self._root)

    def create(self, path: str, mode: int) -> int:
        """Create a file that must not exist yet; open for writing and reading."""
        return os.open(path, _CREATE, mode, dir_fd=self._root)

    def open(self, path: str) -> int:
        """Open a regular file for reading, and nothing else."""
        handle = os.open(path, _READ, dir_fd=self._root)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "not a regular file")
        return handle

    def write(self, handle: int, octets: bytes) -> None:
        """Write all octets at the end."""
        view = memoryview(octets)
        while view:
            view = view[os.write(handle, view) :]

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Read at most so many octets from a place; none at the end."""
        return os.pread(handle, size, offset)

    def size(self, handle: int) -> int:
        """Give the length of an open file."""
        return os.fstat(handle).st_size

    def rewind(self, handle: int) -> None:
        """Go to the beginning, for a process that the handle is given to."""
        os.lseek(handle, 0, os.SEEK_SET)

    def flush(self, handle: int) -> None:
        """Return when the content of a file is on the disk, and what leads from its inode."""
        _flush_data(handle)

    def close(self, handle: int) -> None:
        """Close a file."""
        os.close(handle)

    def load(self, path: str, limit: int) -> bytes:
        """Read a small file, at most so many octets."""
        handle = os.open(path, _READ, dir_fd=self._root)
        try:
            octets = os.read(handle, _FIRST_READ)
            if len(octets) < _FIRST_READ:
                return octets[:limit]
            pieces = [octets]
            length = len(octets)
            while octets and length < limit:
                octets = os.read(handle, _PIECE)
                pieces.append(octets)
                length += len(octets)
            return b"".join(pieces)[:limit]
        finally:
            os.close(handle)

    def rename(self, old: str, new: str) -> None:
        """Move a name; a file that is there is replaced in the same instant."""
        os.rename(old, new, src_dir_fd=self._root, dst_dir_fd=self._root)

    def unlink(self, path: str) -> None:
        """Remove the name of a file."""
        os.unlink(path, dir_fd=self._root)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path, dir_fd=self._root)

    def flush_directory(self, path: str) -> None:
        """Return when the names in a directory are on the disk."""
        handle = os.open(path, _DIRECTORY, dir_fd=self._root)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def names(self, path: str) -> list[str]:
        """List a directory, in no order."""
        handle = os.open(path, _DIRECTORY, dir_fd=self._root)
        try:
            return os.listdir(handle)
        finally:
            os.close(handle)

    def status(self, path: str) -> Optional[Status]:
        """Describe a name, not following it; None when it does not exist."""
        try:
            return Status(os.stat(path, dir_fd=self._root, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def chmod(self, path: str, mode: int) -> None:
        """Set the 12 bits of a mode, of a directory or regular file and never through a link."""
        handle = os.open(path, _READ, dir_fd=self._root)
        try:
            os.fchmod(handle, mode)
        finally:
            os.close(handle)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set the owner, never through a link."""
        os.chown(path, uid, gid, dir_fd=self._root, follow_symlinks=False)
