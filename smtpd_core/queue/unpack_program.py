"""A program of the host as a filter: octets in, octets out, no shell, no deadlock, no zombie.

It is fed and emptied by turns, so that neither side waits for the other, and a source that is a
pipe serves as well as a file.
"""

from __future__ import annotations

import os

from smtpd_core.errors import FormatError
from smtpd_core.text import decode, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Optional

DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin")  # never $PATH: root may run this
MAX_MEMORY = 256 << 20  # octets that xz may take; zstd stops at 128 MiB by itself
_MAX_PIECE = 1 << 16  # octets read from the program at once: what a pipe holds
_MAX_COMPLAINT = 300  # octets kept of what the program says on standard error
_SIGKILL = 9
_SIGPIPE = 13  # Python ignores it, and the program would inherit that
_STANDARD = (0, 1, 2)

# Our own environment is not passed on: these programs take options from it. For xz that is the
# one way to give a limit which xz of BusyBox, that has no such option, does not stumble over.
_ENVIRONMENT = {
    "PATH": ":".join(DIRECTORIES),
    "LC_ALL": "C",
    "XZ_DEFAULTS": f"--memlimit-decompress={MAX_MEMORY}",
}


def find_program(name: str, directories: tuple[str, ...] = DIRECTORIES) -> Optional[str]:
    """Give the path of a program that this user may run, or None."""
    for directory in directories:
        path = f"{directory}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def run_filter(
    arguments: list[str], path: str, take: Callable[[], bytes]
) -> Generator[bytes, None, str]:
    """Yield what a program makes of the octets that take() gives, b"" at their end.

    Returns how the program failed, or "". A FormatError of take() is raised after the last octet;
    OSError when the program cannot be started. Closing the generator ends the program.
    """
    pid, feed, output, errors = _spawn(arguments, path)
    conversation = _Conversation(feed, output, errors)
    try:
        yield from conversation.run(take)
        status = _wait(pid)
        pid = 0
    finally:
        conversation.close()
        if pid:
            os.kill(pid, _SIGKILL)
            _wait(pid)
    if conversation.failure is not None:
        raise conversation.failure
    complaint = escape(decode(conversation.complaint.strip().partition(b"\n")[0]))
    if status == 0 or (status is None and not complaint):
        return ""
    return complaint or f"{arguments[0]} ended with status {status}"


class _Conversation:
    """The three pipes to a running program."""

    __slots__ = ("_errors", "_feed", "_output", "complaint", "failure")

    def __init__(self, feed: int, output: int, errors: int) -> None:
        self._feed = feed  # -1 once closed
        self._output = output
        self._errors = errors
        self.complaint = b""  # the beginning of what came on standard error
        self.failure: Optional[FormatError] = None  # of the source
        os.set_blocking(feed, False)

    def run(self, take: Callable[[], bytes]) -> Generator[bytes, None, None]:
        """Carry octets both ways until the program has closed its output and its complaints."""
        import select

        octets = b""
        watched = [self._output, self._errors]
        while watched:
            if self._feed >= 0 and not octets:
                octets = self._take(take)
            feeds = [self._feed] if self._feed >= 0 else []
            readable, writable, _ = select.select(watched, feeds, [])
            if writable:
                octets = self._write(octets)
            if self._errors in readable:
                piece = os.read(self._errors, _MAX_PIECE)
                self.complaint = (self.complaint + piece)[:_MAX_COMPLAINT]
                if not piece:
                    watched.remove(self._errors)
            if self._output in readable:
                piece = os.read(self._output, _MAX_PIECE)
                if piece:
                    yield piece
                else:
                    watched.remove(self._output)

    def close(self) -> None:
        """Close the pipes."""
        self._close_feed()
        os.close(self._output)
        os.close(self._errors)

    def _take(self, take: Callable[[], bytes]) -> bytes:
        """Fetch octets for the program; tell it when there are no more."""
        octets = b""
        try:
            octets = take()
        except FormatError as failure:
            self.failure = failure
        if not octets:
            self._close_feed()
        return octets

    def _write(self, octets: bytes) -> bytes:
        """Feed what fits in the pipe; give the rest."""
        try:
            return octets[os.write(self._feed, octets) :]
        except BlockingIOError:
            return octets
        except BrokenPipeError:  # it wants no more; its status says why
            self._close_feed()
            return b""

    def _close_feed(self) -> None:
        if self._feed >= 0:
            os.close(self._feed)
            self._feed = -1


def _spawn(arguments: list[str], path: str) -> tuple[int, int, int, int]:
    """Start a program; give its pid and our ends of its standard descriptors."""
    theirs: list[int] = []
    ours: list[int] = []
    try:
        for place in _STANDARD:
            reading, writing = _pipe()
            theirs.append(writing if place else reading)
            ours.append(reading if place else writing)
        pid = os.posix_spawn(
            path,
            arguments,
            _ENVIRONMENT,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs[place], place) for place in _STANDARD],
            setsigdef=(_SIGPIPE,),
        )
    except OSError:
        for end in ours:
            os.close(end)
        raise
    finally:
        for end in theirs:
            os.close(end)
    return pid, ours[0], ours[1], ours[2]


def _pipe() -> tuple[int, int]:
    """Make a pipe that takes the place of no standard descriptor, should one be closed."""
    ends = os.pipe()
    if min(ends) > max(_STANDARD):
        return ends
    import fcntl

    moved = []
    try:
        for end in ends:
            moved.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, len(_STANDARD)))
    finally:
        for end in ends:
            os.close(end)
    return moved[0], moved[1]


def _wait(pid: int) -> Optional[int]:
    """Reap a child; give its exit status, or None where children are not waited for."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # SIGCHLD is ignored in what started us
        return None
