"""Open files and directories that somebody else may have laid out, without following or stamping.

Source: open(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import stat

from smtpd_core.errors import AccessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

_NOATIME = getattr(os, "O_NOATIME", 0)
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
DIRECTORY_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_LINKS_MAX = 40  # as the system follows in one path
_KINDS = (
    (stat.S_ISLNK, "a symbolic link: not followed"),
    (stat.S_ISDIR, "a directory where a file is expected"),
    (stat.S_ISFIFO, "a FIFO: not opened"),
    (stat.S_ISSOCK, "a socket: not opened"),
    (stat.S_ISCHR, "a device: not opened"),
    (stat.S_ISBLK, "a device: not opened"),
)


def why(error: OSError) -> str:
    """Say in a few words why the system refused."""
    if error.errno == errno.ELOOP:
        return "a symbolic link: not followed"
    return error.strerror or "cannot be read"


def open_below(name: str, flags: int, parent: Optional[int]) -> int:
    """Open without touching the time of access where the system allows."""
    try:
        return os.open(name, flags | _NOATIME, dir_fd=parent)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
    return os.open(name, flags, dir_fd=parent)


def open_file(name: str, parent: Optional[int]) -> int:
    """Open a regular file, and nothing else: opening alone may wake a writer or move a tape."""
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, kind_of(mode))
    fd = open_below(name, FILE_FLAGS, parent)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):  # it was replaced meanwhile
        os.close(fd)
        raise OSError(errno.EINVAL, kind_of(mode))
    return fd


def kind_of(mode: int) -> str:
    """Say what a thing is that should have been a regular file."""
    for test, description in _KINDS:
        if test(mode):
            return description
    return "not a regular file"


def describe(entry: os.DirEntry[str]) -> str:
    """Say what an entry is that should have been a regular file."""
    try:
        return kind_of(entry.stat(follow_symlinks=False).st_mode)
    except OSError as error:
        return why(error)


def entries_of(fd: int) -> list[os.DirEntry[str]]:
    """List a directory in the order of its names; raises OSError."""
    with os.scandir(fd) as entries:
        return sorted(entries, key=entry_name)


def entry_name(entry: os.DirEntry[str]) -> str:
    """Give the key to sort by."""
    return entry.name


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Tell a directory, and no link to one."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Tell a regular file, and no link to one."""
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        return False


def resolve_below(root: str, path: str) -> str:
    """Follow a path the way a process with that root directory would.

    A link in a mounted disk is then never followed into the disks of this host.
    Raises AccessError for a chain of links without end.
    """
    pending = [part for part in path.split("/") if part][::-1]
    resolved: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == ".":
            continue
        if part == "..":
            del resolved[-1:]
            continue
        try:
            target = os.readlink("/".join([root, *resolved, part]))
        except OSError:
            resolved.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise AccessError(f"{path}: too many symbolic links below {root}")
        if target.startswith("/"):
            resolved.clear()
        pending += [name for name in target.split("/") if name][::-1]
    return "/".join([root.rstrip("/"), *resolved]) or "/"
