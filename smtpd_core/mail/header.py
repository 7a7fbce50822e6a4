"""Find, walk and fold header fields, and edit the header section of a message being received.

Messages here have LF line ends, as DataReader gives them and as the spool keeps them.

`HeaderEditor` is a feeder. While it is inside the header section it holds back the field it
cannot judge yet: a line that has not ended, and a To, Cc or From field that may go on in the
next line. Everything else passes at once, and behind the empty line every octet passes as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Optional

from smtpd_core import text
from smtpd_core.errors import FormatError
from smtpd_core.mail import addresslist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smtpd_core.mail.address import Address

MAX_RECEIVED = 100  # fields; a message that has so many is going round
MAX_FIELD_NAME = 1022  # octets; one more is refused by the original's parser
MAX_ADDRESS_FIELD = 65535  # octets of an unfolded To, Cc or From
MAX_LINE = 65535  # octets with the line end, as the session's own limit
MAX_FOLDED_LINE = 78  # RFC 5322 section 2.1.1

_ADDRESS_FIELDS = frozenset((b"to", b"cc", b"from"))
_FIELD_START = (b" ", b"\t")


class HeaderError(FormatError):
    """A header section that makes the message unfit to be accepted."""


class MalformedHeaderError(HeaderError):
    """A header section that is not one."""


class RoutingLoopError(HeaderError):
    """A message that was received too often."""


class Field(NamedTuple):
    """One header field: its name as written, and its value with its folding, less the line end."""

    name: bytes
    value: bytes


def walk(message: bytes) -> Iterator[Field]:
    """Give the fields of the header section; it ends at the first line that belongs to none."""
    lines: list[bytes] = []
    start = 0
    while start < len(message):
        end = message.find(b"\n", start)
        end = len(message) if end < 0 else end
        line = message[start:end]
        start = end + 1
        if lines and line.startswith(_FIELD_START):
            lines.append(line)
            continue
        if lines:
            yield _field(lines)
        if b":" not in line or line.startswith(_FIELD_START):
            return
        lines = [line]
    if lines:
        yield _field(lines)


def _field(lines: list[bytes]) -> Field:
    name, _, value = b"\n".join(lines).partition(b":")
    return Field(name.rstrip(b" \t"), value)


def find(message: bytes, name: bytes) -> Optional[bytes]:
    """Give the value of the first field of that name in any case, unfolded and stripped."""
    for each in walk(message):
        if each.name.lower() == name.lower():
            return unfold(each.value)
    return None


def unfold(value: bytes) -> bytes:
    """Make one line of a folded value. Source: RFC 5322 section 2.2.3."""
    return value.replace(b"\n", b"").strip(b" \t")


def fold(name: bytes, value: bytes) -> bytes:
    """Compose a field, folded at its spaces so that lines stay within 78 octets where they can."""
    lines = [name + b":"]
    for word in value.split(b" "):
        if len(lines[-1]) + 1 + len(word) > MAX_FOLDED_LINE and word and len(lines[-1]) > 1:
            lines.append(b"")
        lines[-1] += b" " + word
    return b"\n".join(lines) + b"\n"


def has_delivered_to(message: bytes, recipient: Address) -> bool:
    """Tell whether a message was delivered to a recipient before.

    Source: OpenSMTPD 7.8, where the name is followed by exactly one space, in any case.
    """
    wanted = text.encode(f" {recipient}").lower()
    return any(
        each.name.lower() == b"delivered-to" and each.value.lower() == wanted
        for each in walk(message)
    )


@dataclass(frozen=True)
class HeaderRules:
    """How the header of one message is edited.

    `domain` completes addresses; `date` and `message_id` (the text between the angle brackets)
    are given where they are to be added when missing; `sender` is the address that takes the
    place of those in From where the listener masquerades.
    """

    domain: str
    date: Optional[str] = None
    message_id: Optional[str] = None
    sender: Optional[Address] = None


class HeaderEditor:
    """Edit a message on its way in. A refused message has no octets that may be kept."""

    def __init__(self, rules: HeaderRules) -> None:
        self._rules = rules
        self._domain = text.encode(rules.domain)
        self._tail = b""  # a line that has not ended
        self._held: list[bytes] = []  # lines of an address field that has not ended
        self._held_octets = 0
        self._name = b""  # of the field that the last line belongs to; empty before the first
        self._names: set[bytes] = set()  # of those that may have to be added
        self._received = 0
        self._over = False

    def feed(self, octets: bytes) -> bytes:
        """Take some octets of the message; return those that are certain.

        Raises MalformedHeaderError and RoutingLoopError; the message then is to be refused.
        """
        if self._is_over():
            return octets
        data = self._tail + octets
        out: list[bytes] = []
        start = 0
        while not self._is_over():
            end = data.find(b"\n", start)
            if (len(data) if end < 0 else end) - start >= MAX_LINE:
                raise MalformedHeaderError(f"a header line has more than {MAX_LINE - 1} octets")
            if end < 0:
                break
            out.append(self._line(data[start : end + 1]))
            start = end + 1
        self._tail = b"" if self._is_over() else data[start:]
        if self._is_over():
            out.append(data[start:])
        return b"".join(out)

    def _is_over(self) -> bool:
        """Tell whether the header section has ended."""
        return self._over

    def finish(self) -> bytes:
        """Return what was held back; the message ends here, perhaps without an empty line."""
        if self._is_over():
            return b""
        last = self._line(self._tail + b"\n") if self._tail else b""
        self._tail = b""
        if self._is_over():
            return last
        self._over = True
        return last + self._release() + self._missing()

    def _line(self, line: bytes) -> bytes:
        """Judge one header line, its LF included."""
        if line == b"\n":
            self._over = True
            return self._release() + self._missing() + line
        if line.startswith(_FIELD_START):
            if not self._name:
                raise MalformedHeaderError("the first header line starts with white space")
            return self._keep(line)
        name, colon, _ = line.partition(b":")
        if not colon:
            raise MalformedHeaderError("a header line has no colon")
        if len(name) > MAX_FIELD_NAME:
            raise MalformedHeaderError(f"a header name has more than {MAX_FIELD_NAME} octets")
        released = self._release()
        self._start(name.rstrip(b" \t").lower() or b":")
        return released + self._keep(line)

    def _start(self, name: bytes) -> None:
        self._name = name
        if name == b"received":
            self._received += 1
            if self._received >= MAX_RECEIVED:
                raise RoutingLoopError(f"the message has {MAX_RECEIVED} Received fields")
        elif name in (b"date", b"message-id"):
            self._names.add(name)

    def _keep(self, line: bytes) -> bytes:
        if self._name == b"bcc":
            return b""
        if self._name not in _ADDRESS_FIELDS:
            return line
        self._held.append(line)
        self._held_octets += len(line)
        if self._held_octets > MAX_ADDRESS_FIELD:
            raise MalformedHeaderError(f"an address field has more than {MAX_ADDRESS_FIELD} octets")
        return b""

    def _release(self) -> bytes:
        """Give the address field that has just ended, edited."""
        if not self._held:
            return b""
        name, _, value = b"".join(self._held).partition(b":")
        self._held.clear()
        self._held_octets = 0
        body = value[:-1]
        if self._rules.sender is not None and self._name == b"from":
            body = addresslist.masquerade(body, text.encode(str(self._rules.sender)))
        elif self._domain:
            body = addresslist.append_domain(body, self._domain)
        return name + b":" + body + b"\n"

    def _missing(self) -> bytes:
        added = b""
        if self._rules.date is not None and b"date" not in self._names:
            added += text.encode(f"Date: {self._rules.date}\n")
        if self._rules.message_id is not None and b"message-id" not in self._names:
            added += text.encode(f"Message-ID: <{self._rules.message_id}>\n")
        return added
