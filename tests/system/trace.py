"""Run a program under strace and tell which of its calls could change a file."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from tests.running import Finished

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterable, Iterator

# Calls that change, stamp or lock a file or a tree whatever their arguments are.
_FORBIDDEN = frozenset(
    """
    creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink
    symlinkat mknod mknodat truncate ftruncate fallocate chmod fchmod fchmodat fchmodat2 chown
    fchown lchown fchownat utime utimes futimesat utimensat setxattr lsetxattr fsetxattr
    setxattrat removexattr lremovexattr fremovexattr removexattrat flock mount umount umount2
    move_mount mount_setattr open_tree fsopen fsmount pivot_root chroot swapon swapoff quotactl
    copy_file_range sendfile splice tee vmsplice pwrite64 pwritev pwritev2 writev io_setup
    io_submit io_uring_setup fsync fdatasync sync syncfs sync_file_range name_to_handle_at
    open_by_handle_at fanotify_init fanotify_mark inotify_add_watch ioprio_set acct
    """.split()  # noqa: SIM905 - a list to read
)
_OPENS = ("open", "openat", "openat2")
_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE|EXCL)")
_ALLOWED_IOCTLS = ("TCGETS", "TIOCGWINSZ")
_LOCKS = re.compile(r"F_(OFD_)?SETLK|F_SETLEASE|F_NOTIFY|F_ADD_SEALS|F_SET_RW_HINT")
# The end of a call that was interrupted by another process's says nothing that its beginning
# did not, but for its result.
_CALL = re.compile(r"\d+ +(\w+)\((.*)")
_OPENED = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)", ([A-Z_|0-9]+)')


class Call(NamedTuple):
    """A call as it began; descriptors in it carry their path."""

    name: str
    rest: str


class Opened(NamedTuple):
    """An attempt to open a file, as the program asked for it."""

    path: str
    flags: frozenset[str]


def run(log: pathlib.Path, *command: object, stdin: int = subprocess.DEVNULL) -> Finished:
    """Run a program under strace, which writes to a log."""
    done = subprocess.run(
        ["strace", "-f", "-y", "-s", "256", "-o", str(log), *map(str, command)],
        check=False,
        stdin=stdin,
        capture_output=True,
        timeout=60,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def calls(log: pathlib.Path) -> Iterator[Call]:
    """Read a log."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = _CALL.match(line)
            if match:
                yield Call(match[1], match[2])


def changes(found: Iterable[Call]) -> list[Call]:
    """Give the calls that could have changed a file: none is allowed but to write to a pipe."""
    return [call for call in found if _could_change(call)]


def _could_change(call: Call) -> bool:
    name, rest = call
    if name in _FORBIDDEN:
        return True
    if name in _OPENS:
        return bool(_WRITING.search(rest))
    if name == "write":
        return not rest.startswith(("1<", "2<")) and not re.match(r"\d+<pipe:", rest)
    if name == "ioctl":
        return re.match(rf"\d+<.*>, ({'|'.join(_ALLOWED_IOCTLS)})\b", rest) is None
    if name == "fcntl":
        return bool(_LOCKS.search(rest))
    return name == "mmap" and "PROT_WRITE" in rest and "MAP_SHARED" in rest and "-1" not in rest


def opened(found: Iterable[Call], below: pathlib.Path) -> list[Opened]:
    """Give all that was opened below a directory."""
    wanted = f"{below}/"
    given = []
    for call in found:
        match = _OPENED.match(call.rest) if call.name in _OPENS else None
        if match:
            path = match[2] if match[2].startswith("/") else f"{match[1]}/{match[2]}"
            if path.startswith(wanted):
                given.append(Opened(path, frozenset(match[3].split("|"))))
    return given
