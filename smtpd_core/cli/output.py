"""Standard output and standard error: the only module that prints.

Octets go out through the descriptors themselves, so that what a spool holds is never re-encoded
on the way, and an error in writing is seen. What goes to a terminal is escaped there; what goes
to a pipe or a file is exact.
"""

from __future__ import annotations

import os

from smtpd_core import text
from smtpd_core.errors import AccessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BUFFER_OCTETS = 65536  # a pipe's usual size: one write fills it
_DEFAULT_COLUMNS = 80


class OutputClosedError(Exception):
    """The reader of standard output went away; the program ends without a word."""


class Output:
    """Where a command writes: lines for people and programs, warnings for the operator."""

    __slots__ = (
        "_buffer",
        "_size",
        "colour",
        "err_fd",
        "error_terminal",
        "out_fd",
        "program",
        "progress_shown",
        "terminal",
    )

    def __init__(
        self, program: str, environ: Mapping[str, str], out_fd: int = 1, err_fd: int = 2
    ) -> None:
        """Write to two descriptors; colour only on a terminal that can, and never with NO_COLOR.

        Source: no-color.org for NO_COLOR.
        """
        self.program = program
        self.out_fd = out_fd
        self.err_fd = err_fd
        self.terminal = _is_terminal(out_fd)
        self.error_terminal = _is_terminal(err_fd)
        self.colour = (
            self.terminal and not environ.get("NO_COLOR") and environ.get("TERM", "") != "dumb"
        )
        self.progress_shown = False
        self._buffer: list[bytes] = []
        self._size = 0

    def write(self, octets: bytes) -> None:
        """Write octets as they are; for a terminal the caller has escaped them."""
        self._buffer.append(octets)
        self._size += len(octets)
        if self._size >= _BUFFER_OCTETS:
            self.flush()

    def line(self, line: str) -> None:
        """Write one line of text; on a terminal, foreign controls in it are made visible."""
        self.write(text.encode(text.escape(line) if self.terminal else line) + b"\n")

    def flush(self) -> None:
        """Hand everything written so far to the system.

        Raises OutputClosedError when nobody reads any more, AccessError for other failures.
        """
        if self._buffer:
            octets = b"".join(self._buffer)
            self._buffer.clear()
            self._size = 0
            if self.terminal:  # elsewhere it is not in the way
                self.clear_progress()
            self._send(octets)

    def _send(self, octets: bytes) -> None:
        view = memoryview(octets)
        try:
            while view:
                view = view[os.write(self.out_fd, view) :]
        except BrokenPipeError:
            raise OutputClosedError from None
        except OSError as error:
            raise AccessError(f"standard output: {error.strerror}") from None

    def warn(self, line: str) -> None:
        """Write one line to standard error behind the program's name."""
        self.error_line(f"{self.program}: {line}")

    def error_line(self, line: str) -> None:
        """Write one line to standard error as it is; a closed standard error is no failure."""
        self.flush()
        self.clear_progress()
        self._error(text.encode(text.escape(line)) + b"\n")

    def progress(self, line: str) -> None:
        """Show a line that the next output replaces; only on a terminal."""
        if self.error_terminal:
            shown = text.escape(line)[: self.columns() - 1]
            self.progress_shown = True  # before it is: an interrupt may come in between
            self._error(b"\r" + text.encode(shown) + b"\x1b[K")

    def clear_progress(self) -> None:
        """Take the progress line away."""
        if self.progress_shown:
            self._error(b"\r\x1b[K")
            self.progress_shown = False

    def _error(self, octets: bytes) -> None:
        try:
            os.write(self.err_fd, octets)
        except OSError:
            pass  # there is nowhere left to say so

    def columns(self) -> int:
        """Give the width of the terminal, of standard output or else of standard error."""
        for descriptor in (self.out_fd, self.err_fd):
            try:
                columns = os.get_terminal_size(descriptor).columns
            except OSError:
                continue
            if columns > 0:
                return columns
        return _DEFAULT_COLUMNS


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
