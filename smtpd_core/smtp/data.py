"""The text after DATA, both ways: off the wire without its dots, and back onto it.

The end of a message is CRLF "." CRLF and nothing else. Every other form that some server takes
for it (LF.LF, LF.CRLF, CR.CR, CRLF.CR ...) needs a CR or LF that stands alone; DataReader refuses
those, and DataWriter never sends one. So a second message can be smuggled neither in nor out.
"""

from __future__ import annotations

import re
from typing import NoReturn

from smtpd_core.errors import FormatError, LocalError

MAX_LINE = 65535  # octets, line end not counted; so many are refused, as the original does

_END = b"\r\n.\r\n"
_NEWLINE = re.compile(rb"[\r\n]")


class DataError(FormatError):
    """Text after DATA that ends the session."""


class BareNewlineError(DataError):
    """A CR or LF that stands alone: somebody's way to smuggle a message."""


class LineTooLongError(DataError):
    """A line that has no end in sight."""


class DataReader:
    """Read the text of a message: LF line ends, dots unstuffed, up to the final dot.

    At most one unfinished line is held back. Text past max_size is not given out, but read on:
    the refusal is due after the final dot.
    """

    def __init__(self, max_size: int = 0) -> None:
        """Read a message of at most max_size octets, its LF counted; 0 is without limit."""
        self._max_size = max_size
        self._tail = b""  # starts at the start of a line
        self.size = 0
        self.too_big = False
        self.has_nul = False  # no mail may have one, and some servers take `.` NUL for the end
        self.ended = False
        self.rest = b""  # what came behind the final dot

    def feed(self, octets: bytes) -> bytes:
        """Take octets; return the text that is certain.

        Raises BareNewlineError and LineTooLongError.
        """
        if self.ended:
            raise LocalError("the message has ended")
        if b"\n" not in octets and b"\r" not in octets and self._tail[-1:] != b"\r":
            self._tail += octets  # the middle of a line, and cheap: it may come in single octets
            if len(self._tail) >= MAX_LINE:
                _refuse(self._tail)
            return b""
        data = self._tail + octets
        # The search begins in the line before: a dot at the very start ends the message too.
        end = (b"\r\n" + data).find(_END)
        if end >= 0:
            self.ended = True
            self._tail = b""
            self.rest = data[end + 3 :]
            return self._text(data[:end])
        cut = data.rfind(b"\r\n") + 2 if b"\r\n" in data else 0
        tail = self._tail = data[cut:]
        # What an unfinished line can no longer become is refused at once.
        if b"\n" in tail or b"\r" in tail[:-1] or len(tail) - tail.endswith(b"\r") >= MAX_LINE:
            _refuse(data)
        return self._text(data[:cut])

    def _text(self, lines: bytes) -> bytes:
        """Turn whole lines into text."""
        ends = lines.count(b"\r\n")
        if lines.count(b"\r") != ends or lines.count(b"\n") != ends:
            _refuse(lines)
        if len(lines) >= MAX_LINE and max(map(len, lines.split(b"\r\n"))) >= MAX_LINE:
            _refuse(lines)
        text = (b"\n" + lines.replace(b"\r\n", b"\n")).replace(b"\n.", b"\n")[1:]
        self.size += len(text)
        self.has_nul = self.has_nul or b"\0" in text
        self.too_big = self.too_big or 0 < self._max_size < self.size
        return b"" if self.too_big else text


def _refuse(data: bytes) -> NoReturn:
    """Raise for the first fault of some text, the one that octets fed singly would meet."""
    for line in data.split(b"\r\n"):
        bare = _NEWLINE.search(line)
        if bare is not None and bare.start() < MAX_LINE:
            break
        if len(line) >= MAX_LINE:
            raise LineTooLongError(f"a line has more than {MAX_LINE - 1} octets")
    raise BareNewlineError("a CR or LF stands alone")


class DataWriter:
    """Put a stored message on the wire: CRLF line ends, dots stuffed, the final dot.

    Stored messages may come from anywhere, so nothing is believed of them: CRLF counts as one
    line end, and a CR that stands alone or a NUL becomes a space. It is not made a line end, for
    then it could start a header field or a line of its own; and it is not sent, for the next
    server might do that.
    """

    def __init__(self) -> None:
        self._line_start = True
        self._held_cr = False

    def feed(self, text: bytes) -> bytes:
        """Take stored text; return octets to send."""
        if self._held_cr:
            text = b"\r" + text
        self._held_cr = text.endswith(b"\r")
        if self._held_cr:
            text = text[:-1]
        return self._encode(text)

    def finish(self) -> bytes:
        """Return the end of the message: of its last line where that is missing, and the dot."""
        last = self._encode(b"\r") if self._held_cr else b""
        self._held_cr = False
        return last + (b"" if self._line_start else b"\r\n") + b".\r\n"

    def _encode(self, text: bytes) -> bytes:
        if not text:
            return b""
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\0", b" ")
        stuffed = text.replace(b"\n.", b"\n..")
        if self._line_start and text.startswith(b"."):
            stuffed = b"." + stuffed
        self._line_start = text.endswith(b"\n")
        return stuffed.replace(b"\n", b"\r\n")
