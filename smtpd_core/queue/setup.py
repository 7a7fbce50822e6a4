"""The directories of a spool: made when absent, explained when wrong.

The releases refuse to start when type, owner or mode of one of them is not exactly as they would
have made it, so what is made here suits them too. Source: OpenSMTPD 6.8, queue_backend.c,
queue_fs.c and util.c.
"""

from __future__ import annotations

from smtpd_core.queue.disk import SpoolError, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from smtpd_core.queue.disk import Disk

ROOT = "."


class Wanted:
    """A directory as it has to be."""

    __slots__ = ("gid", "mode", "path", "uid")

    def __init__(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Take the path below the spool, `.` for the spool itself."""
        self.path = path
        self.mode = mode
        self.uid = uid
        self.gid = gid


def directories(root_uid: int, queue_uid: int, root_gid: int, queue_gid: int) -> list[Wanted]:
    """List the directories of a spool, outermost first.

    With privileges, root_uid and root_gid are 0; without, all four are the process's own.
    """
    return [
        Wanted(ROOT, 0o711, root_uid, root_gid),
        Wanted("offline", 0o770, root_uid, queue_gid),
        Wanted("purge", 0o700, queue_uid, root_gid),
        Wanted("temporary", 0o700, queue_uid, root_gid),
        Wanted("queue", 0o700, queue_uid, root_gid),
        Wanted("incoming", 0o700, queue_uid, root_gid),
    ]


def make_directories(disk: Disk, wanted: Iterable[Wanted]) -> None:
    """Make what is absent, and see to it that it stays. Raises SpoolError.

    What exists is left as it is: find_problems says what is wrong with it.
    """
    for directory in wanted:
        try:
            if disk.status(directory.path) is not None:
                continue
            # Nobody else may enter before the owner is right.
            disk.mkdir(directory.path, directory.mode & 0o700)
            disk.chown(directory.path, directory.uid, directory.gid)
            disk.chmod(directory.path, directory.mode)
        except OSError as error:
            raise refused(directory.path, error) from None
    try:
        disk.flush_directory(ROOT)  # also for what a start made that was interrupted here
    except OSError as error:
        raise refused(ROOT, error) from None


def find_problems(disk: Disk, wanted: Iterable[Wanted]) -> list[str]:
    """Say what is wrong with the directories, one sentence each; empty when nothing is."""
    problems = []
    for directory in wanted:
        path = directory.path
        try:
            status = disk.status(path)
        except OSError as error:
            problems.append(str(refused(path, error)))
            continue
        if status is None:
            problems.append(f"{path} does not exist")
        elif status.kind != "directory":
            problems.append(f"{path} is not a directory")
        else:
            if status.uid != directory.uid:
                problems.append(f"{path} is owned by uid {status.uid}, not by {directory.uid}")
            if status.gid != directory.gid:
                problems.append(f"{path} is owned by gid {status.gid}, not by {directory.gid}")
            if status.mode != directory.mode:
                problems.append(f"{path} has mode {status.mode:o}, not {directory.mode:o}")
    return problems


def fix_permissions(disk: Disk, wanted: Iterable[Wanted]) -> list[str]:
    """Give directories the owner and mode they ought to have; say what was changed.

    Raises SpoolError for what is no directory, and when the system refuses.
    """
    changed = []
    for directory in wanted:
        path = directory.path
        try:
            status = disk.status(path)
            if status is None:
                continue
            if status.kind != "directory":
                raise SpoolError(f"{path} is not a directory", temporary=False)
            if (status.uid, status.gid) != (directory.uid, directory.gid):
                disk.chown(path, directory.uid, directory.gid)
                changed.append(f"{path} now belongs to {directory.uid}:{directory.gid}")
                status = disk.status(path)  # the system may have taken bits of the mode
            if status is not None and status.mode != directory.mode:
                disk.chmod(path, directory.mode)
                changed.append(f"{path} now has mode {directory.mode:o}")
        except OSError as error:
            raise refused(path, error) from None
    return changed
