"""Command lines, cut from a stream of octets: CRLF ends a line, and nothing else does."""

from __future__ import annotations

import re
from typing import Optional

from smtpd_core.errors import LocalError
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import CommandError

MAX_LINE = 65535  # octets without CRLF; so many are refused, as the original does
MAX_COMMAND = 2047  # octets without CRLF; one more is refused
MAX_BUFFER = 2 * MAX_LINE  # octets; who feeds more does not ask for lines

_SPECIAL = re.compile(rb"[\r\n\0]")


class LineReader:
    """A buffer of octets that gives out lines, or, to whom reads something else, everything."""

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0  # of what was not given out
        self._searched = 0  # up to here nothing ends the line or spoils it

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits."""
        return self._start == len(self._buffer)

    def feed(self, octets: bytes) -> None:
        """Take octets; raises LocalError when lines are waiting and are not asked for."""
        if len(self._buffer) - self._start > MAX_BUFFER:
            raise LocalError("lines are waiting; ask for them before feeding more")
        self._buffer = self._buffer[self._start :] + octets
        self._searched -= self._start
        self._start = 0

    def take_all(self) -> bytes:
        """Give out everything."""
        octets = self._buffer[self._start :]
        self._buffer = b""
        self._start = self._searched = 0
        return octets

    def next_line(self) -> Optional[bytes]:
        """Give the next line without its CRLF; None when octets are missing.

        Raises CommandError with a reply that closes. A NUL is refused because others end the
        line there, and a CR or LF that stands alone because others might.
        """
        found = _SPECIAL.search(self._buffer, self._searched)
        at = found.start() if found else len(self._buffer)
        self._searched = at
        if at - self._start >= MAX_LINE:
            raise CommandError(answers.LINE_TOO_LONG)
        after = self._buffer[at + 1 : at + 2]
        if found is None or (found[0] == b"\r" and not after):
            return None
        if found[0] != b"\r" or after != b"\n":
            raise CommandError(answers.BAD_OCTET)
        line = self._buffer[self._start : at]
        if len(line) > MAX_COMMAND:
            raise CommandError(answers.COMMAND_TOO_LONG)
        self._start = self._searched = at + 2
        return line
