"""Compose a delivery status notification: what became of a message, for its sender.

A multipart/report of three parts: a text for people, the fields for programs, and the header
section of the original or all of it. Lines end with LF, as in the spool. Nothing foreign becomes
a line of its own: every value loses its line ends and control characters here, whoever passed
it. Source: RFC 3461 section 6, RFC 3464, RFC 6522; Subject and From are those of the original.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from smtpd_core.errors import FormatError
from smtpd_core.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_VALUE = 900  # octets of a foreign value in a line: with its name it stays below 998
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")  # RFC 2046 section 5.1.1
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_TYPE = re.compile(r"[0-9A-Za-z-]+")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_SMTP_REPLY = re.compile(r"[245][0-9]{2}[ -]")


class DsnError(FormatError):
    """A description no notification can be made of."""


class Kind(enum.Enum):
    """What became of the message; the word of the Subject and of the Action fields."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True)
class Recipient:
    """One recipient. orcpt is the value of the ORCPT parameter, `type;xtext`, as received.

    text is the reply of the host, or what went wrong here; remote_host the host that sent it.
    """

    address: str
    status: str
    text: str = ""
    orcpt: str = ""
    remote_host: str = ""


@dataclass(frozen=True)
class Report:
    """What is reported, to whom, by whom.

    boundary separates the parts: text that nobody can guess, so that no original can hold it.
    envid is the value of the ENVID parameter, as received. date, arrival and retry_until are
    dates as header fields spell them; delay_seconds and lifetime_seconds are for delays.
    """

    kind: Kind
    host: str
    sender: str
    recipients: tuple[Recipient, ...]
    boundary: str
    date: str
    envid: str = ""
    arrival: str = ""
    retry_until: str = ""
    delay_seconds: int = 0
    lifetime_seconds: int = 0
    eightbit: bool = False  # the original has octets past 127


_PARAGRAPHS = {
    Kind.FAILED: (
        "Your message could not be delivered to the recipients below.",
        "This was the last attempt.",
    ),
    Kind.DELAYED: ("Your message has been waiting here for more than {delay}.",),
    Kind.DELIVERED: ("Your message was delivered to the recipients below.",),
    Kind.RELAYED: (
        "Your message was handed on for the recipients below,",
        "to a host that will not report its delivery.",
    ),
}


def compose(report: Report, original: Iterable[bytes], *, full: bool = False) -> Iterator[bytes]:
    """Give the notification in pieces; original is the header section, or all of it with full.

    Raises DsnError before the first piece.
    """
    if not _BOUNDARY.fullmatch(report.boundary) or not report.recipients:
        raise DsnError("a notification needs a boundary and a recipient")
    for recipient in report.recipients:
        if not _STATUS.fullmatch(recipient.status):
            raise DsnError(f"{recipient.status!r} is not a status code")
    return _pieces(report, original, full=full)


def _pieces(report: Report, original: Iterable[bytes], *, full: bool) -> Iterator[bytes]:
    separator = f"--{report.boundary}"
    content = "message/rfc822" if full else "text/rfc822-headers"
    encoding = ["Content-Transfer-Encoding: 8bit"] if report.eightbit else []
    lines = [
        *_header(report),
        *encoding,
        "",
        "This is a MIME-encapsulated message.",
        "",
        separator,
        "Content-Description: Notification",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        *_notification(report, full=full),
        "",
        separator,
        "Content-Description: Delivery Report",
        "Content-Type: message/delivery-status",
        "",
        *_status_fields(report),
        "",
        separator,
        f"Content-Description: {'Message' if full else 'Message headers'}",
        f"Content-Type: {content}",
        *encoding,
        "",
        "",
    ]
    yield "\n".join(lines).encode("ascii")
    last = b"\n"
    for piece in original:
        if piece:
            yield piece
            last = piece[-1:]
    yield (b"" if last == b"\n" else b"\n") + f"\n{separator}--\n".encode("ascii")


def _header(report: Report) -> list[str]:
    host = _value(report.host)
    return [
        f"Subject: Delivery status notification: {report.kind.value}",
        f"From: Mailer Daemon <MAILER-DAEMON@{host}>",
        f"To: {_value(report.sender)}",
        f"Date: {_value(report.date)}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{report.boundary}"',
    ]


def _notification(report: Report, *, full: bool) -> list[str]:
    delay = _period(report.delay_seconds)
    lines = [
        "    Hi!",
        "",
        f"    This is the MAILER-DAEMON of {_value(report.host)}; please do not",
    ]
    lines += ["    reply to this message.", ""]
    lines += ["    " + line.format(delay=delay) for line in _PARAGRAPHS[report.kind]]
    lines.append("")
    for recipient in report.recipients:
        text = _value(recipient.text)
        lines.append(f"{_value(recipient.address)}{': ' if text else ''}{text}")
    lines.append("")
    if report.kind is Kind.DELAYED:
        lifetime = _period(report.lifetime_seconds)
        lines += [
            "    This is a warning only: delivery will be tried again",
            f"    until the message has been here for {lifetime}.",
            "    There is no need to send it once more.",
            "",
        ]
    what = "Your message" if full else "The header of your message"
    lines.append(f"    {what} follows.")
    return lines


def _status_fields(report: Report) -> list[str]:
    lines = _fields(
        ("Original-Envelope-Id", _xtext(report.envid)),
        ("Reporting-MTA", f"dns; {report.host}"),
        ("Arrival-Date", report.arrival),
    )
    for recipient in report.recipients:
        remote = recipient.remote_host
        lines += [
            "",
            *_fields(
                ("Original-Recipient", _original_recipient(recipient.orcpt)),
                ("Final-Recipient", f"rfc822; {recipient.address}"),
                ("Action", report.kind.value),
                ("Status", recipient.status),
                ("Remote-MTA", f"dns; {remote}" if remote else ""),
                ("Diagnostic-Code", _diagnostic(recipient)),
                ("Will-Retry-Until", report.retry_until if report.kind is Kind.DELAYED else ""),
            ),
        ]
    return lines


def _fields(*fields: tuple[str, str]) -> list[str]:
    """Spell the fields that have a value."""
    return [f"{name}: {_value(value)}" for name, value in fields if value]


def _diagnostic(recipient: Recipient) -> str:
    """Give the reply of a host; what went wrong here is of no type that RFC 3464 knows."""
    if not recipient.text:
        return ""
    return f"{'smtp' if _SMTP_REPLY.match(recipient.text) else 'x-local'}; {recipient.text}"


def _original_recipient(orcpt: str) -> str:
    kind, separator, text = orcpt.partition(";")
    if not separator or not _TYPE.fullmatch(kind):
        return ""
    return f"{kind}; {_xtext(text)}"


def _xtext(text: str) -> str:
    """Undo xtext (RFC 3461 section 4); what is not well-formed stays as it is."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def _value(text: str) -> str:
    """Make a text fit to stand in one line, in ASCII: no line end or control gets through."""
    safe = escape(text).encode("ascii", "backslashreplace").decode("ascii")
    return safe if len(safe) <= MAX_VALUE else safe[: MAX_VALUE - 3] + "..."


def _period(seconds: int) -> str:
    """Spell a period in its largest whole unit: `1 hour`, `4 days`."""
    units = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((pair for pair in units if seconds >= pair[0]), units[-1])
    count = seconds // size
    return f"{count} {unit}{'' if count == 1 else 's'}"
