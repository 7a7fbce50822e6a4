"""The mbox format: the From_ line before each message, and text that looks like one.

Source: OpenSMTPD 7.8, mail.local(8) and the helper for files.
"""

from __future__ import annotations

import re

from smtpd_core.text import encode

_UNFIT = re.compile("[\x00-\x20\x7f]")


def from_line(sender: str, date: str) -> bytes:
    """Compose the From_ line; date is that of C's ctime, an empty sender is MAILER-DAEMON.

    What could end the line or its first word becomes a question mark.
    """
    return encode(f"From {_UNFIT.sub('?', sender) or 'MAILER-DAEMON'} {date}\n")


class FromEscaper:
    """A feeder: puts `>` before each `From ` that a reader of the file could take for a start.

    That is one behind an empty line or, for readers that look at every line, any one at the
    beginning of a line.
    """

    def __init__(self, *, every_line: bool = False) -> None:
        self._wanted = b"\nFrom " if every_line else b"\n\nFrom "
        self._escaped = self._wanted[:-5] + b">From "
        self._held = self._wanted[:-5]  # the first line counts as one behind an empty one
        self._surplus = len(self._held)  # octets of it that are not the message's
        self._last = b"\n"

    def feed(self, octets: bytes) -> bytes:
        """Take a piece of the message; give what is certain, less than 7 octets behind."""
        text = (self._held + octets).replace(self._wanted, self._escaped)
        held = 0
        for size in range(min(len(self._wanted) - 1, len(text)), 0, -1):
            if self._wanted.startswith(text[-size:]):
                held = size
                break
        self._held = text[len(text) - held :]
        return self._give(text[: len(text) - held])

    def finish(self) -> bytes:
        """Give the rest, a line end if the message has none, and the empty line after it."""
        rest = self._give(self._held)
        self._held = b""
        return rest + (b"\n" if self._last == b"\n" else b"\n\n")

    def _give(self, text: bytes) -> bytes:
        surplus = min(self._surplus, len(text))
        self._surplus -= surplus
        text = text[surplus:]
        self._last = text[-1:] or self._last
        return text
