"""SMTP replies: composed by a server, and read by a client from whatever a server sends."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Optional

from smtpd_core import text as octet_text
from smtpd_core.errors import FormatError, LocalError
from smtpd_core.mail.status import (
    Outcome,
    Result,
    leading_status,
    one_line,
    outcome,
    result_of_code,
)

MAX_LINE = 2047  # octets with the line end; the original's client refuses more
MAX_LINES = 128  # in one reply; the longest EHLO answers seen have about thirty
MAX_REPLY = 32768  # octets in one reply
MAX_WAITING = 256  # complete replies that may wait when more octets come

_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_FOREIGN_REPLY = re.compile(r"([45][0-9][0-9]) (.+)")
_LINE_BREAKERS = re.compile("[\r\n\0]")


class ReplyError(FormatError):
    """Octets that are not an SMTP reply."""


class ReplyTooLongError(ReplyError):
    """Octets that are too many for one reply."""


@dataclass(frozen=True)
class Reply:
    """One reply: a code, an enhanced status code where it has one, and its lines of text.

    A server that sends a reply which `closes` ends the session behind it.
    """

    code: int
    status: Optional[str]
    lines: tuple[str, ...]
    closes: bool = False

    def __post_init__(self) -> None:
        if not self.lines:
            raise LocalError("a reply needs at least one line")
        if not 200 <= self.code <= 599:
            raise LocalError(f"{self.code} is not a reply code")
        if any(_LINE_BREAKERS.search(line) for line in self.lines):
            raise LocalError(f"a line of a reply cannot hold CR, LF or NUL: {self.lines!r}")

    @property
    def positive(self) -> bool:
        """Tell whether the command went through, or may go on."""
        return self.code < 400

    def texts(self) -> list[str]:
        """Give what follows code and separator in each line."""
        if self.status is None:
            return list(self.lines)
        return [f"{self.status} {line}" if line else self.status for line in self.lines]

    def encode(self) -> bytes:
        """Give the octets to send, line ends included."""
        *more, last = self.texts()
        spelled = "".join(f"{self.code}-{line}\r\n" for line in more)
        return octet_text.encode(f"{spelled}{self.code} {last}\r\n")

    def __str__(self) -> str:
        return " / ".join(f"{self.code} {line}" for line in self.texts())


class ReplyLine(NamedTuple):
    """One line of a reply."""

    code: int
    more: bool
    text: bytes


def parse_reply_line(line: bytes) -> ReplyLine:
    """Parse one reply line whose line end has been removed.

    The text is kept as octets: servers send Latin-1 and worse.
    Raises ReplyError when the line does not start with a reply code.
    Source: RFC 5321 section 4.2.
    """
    match = _REPLY_LINE.fullmatch(line)
    if match is None:
        raise ReplyError(f"not an SMTP reply: {line[:64]!r}")
    code, separator, text = match.groups()
    return ReplyLine(int(code), more=separator == b"-", text=text or b"")


def parse_refusal(line: str) -> Reply:
    """Read the one-line refusal that a filter or an `error:` alias gives: `[45]dd text`.

    A 421 closes. Raises ReplyError; then the caller answers an internal error in its place.
    """
    match = _FOREIGN_REPLY.fullmatch(line)
    if match is None or one_line(line) != line:
        raise ReplyError(f"not a refusal of one line: {line[:64]!r}")
    code, text = int(match[1]), match[2]
    status = leading_status(text)
    if status is not None:
        text = text[len(status) + 1 :]
    return Reply(code, status, (text,), closes=code == 421)


def _compose(lines: list[ReplyLine]) -> Reply:
    """Join lines of one reply; the status code is taken off when all of them repeat it."""
    texts = [octet_text.decode(line.text).replace("\0", "?").replace("\r", "?") for line in lines]
    statuses = {leading_status(each) for each in texts}
    status = statuses.pop() if len(statuses) == 1 else None
    if status is not None:
        texts = [each[len(status) + 1 :] for each in texts]
    return Reply(lines[0].code, status, tuple(texts))


class ReplyReader:
    """Read replies from a server that may be slow, broken or hostile.

    A line may end in CRLF or LF: nothing behind a reply is ever taken for anything but a reply.
    """

    def __init__(self) -> None:
        self._tail = b""
        self._lines: list[ReplyLine] = []
        self._octets = 0  # of the reply being read
        self._replies: deque[Reply] = deque()

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing was received that has not been given out."""
        return not (self._tail or self._lines or self._replies)

    def feed(self, octets: bytes) -> None:
        """Take octets.

        Raises ReplyError when they cannot become replies: the connection is then of no use.
        Raises LocalError when replies are waiting and are not asked for.
        """
        if len(self._replies) > MAX_WAITING:
            raise LocalError("replies are waiting; ask for them before feeding more")
        *lines, self._tail = (self._tail + octets).split(b"\n")
        for line in lines:
            self._take(line[:-1] if line.endswith(b"\r") else line, len(line) + 1)
        if len(self._tail) >= MAX_LINE:
            raise ReplyTooLongError("Input too long")

    def next_reply(self) -> Optional[Reply]:
        """Give the next complete reply, or None when octets are missing."""
        return self._replies.popleft() if self._replies else None

    def _take(self, line: bytes, octets: int) -> None:
        self._octets += octets
        if octets > MAX_LINE or self._octets > MAX_REPLY or len(self._lines) >= MAX_LINES:
            raise ReplyTooLongError("Input too long")
        parsed = parse_reply_line(line)
        if self._lines and parsed.code != self._lines[0].code:
            raise ReplyError(f"code {parsed.code} goes on from {self._lines[0].code}")
        self._lines.append(parsed)
        if parsed.more:
            return
        self._replies.append(_compose(self._lines))
        self._lines = []
        self._octets = 0


def errorline(reply: Reply) -> str:
    """Give a reply as one safe line for logs and envelopes.

    The first line stands whole, the others follow without code and repeated status, as the
    original joins them; but words of two lines never run together.
    """
    first, *others = reply.lines
    mark = "-" if others else " "
    status = f"{reply.status} " if reply.status else ""
    joined = f"{reply.code}{mark}{status}{first}"
    for line in others:
        found = leading_status(line)
        rest = (line[len(found) :] if found else line).strip(" ")
        joined += f" {rest}" if rest and not joined.endswith(" ") else rest
    return one_line(joined)


def outcome_of(reply: Reply, context: str = "") -> Outcome:
    """Map a reply that ended an attempt to its Outcome; context stands before the text.

    A positive reply where a final one was due (3xx) is temporary: the peer is out of step.
    """
    status = reply.status or leading_status(reply.lines[0])
    return outcome(result_of_code(reply.code), context + errorline(reply), status)


def refused(reply: Reply, context: str = "") -> Outcome:
    """Map a reply that was not the one hoped for: a 2xx at the wrong place is temporary."""
    found = outcome_of(reply, context)
    if found.result is Result.DELIVERED:
        return outcome(Result.TEMPORARY, found.text)
    return found
