"""The line of `show queue` that programs have been reading since 2013.

EVPID|SRC|AGENT|FLAGS|SENDER|RCPT|DEST|CTIME|EXPIRY|LASTTRY|RETRY|STATE|DELAY|ERROR
Source: smtpctl(8); OpenSMTPD smtpctl.c, show_queue_envelope.
"""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.queue import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Protocol

    from smtpd_core.queue.entries import Entry
    from smtpd_core.queue.shape import Shapes

    class Format(Protocol):
        """How a listing is written."""

        details: bool  # whether it shows times and sizes of files
        fast: bool  # whether format_fast makes its rows too
        safe: bool  # whether its rows can go to a terminal as they are
        separator: str  # what stands between rows

        def head(self) -> str:
            """Give what comes first, even if no row follows."""

        def heading(self) -> str:
            """Give what comes before the first row, if there is one."""

        def row(self, entry: Entry) -> str:
            """Give one entry, the same whatever came before it."""

        def tail(self, rows: bool) -> str:
            """Give what comes last; whether there were rows is told."""


_FLAG_NAMES = (
    ("bounce", fields.FLAG_BOUNCE),
    ("auth", fields.FLAG_AUTHENTICATED),
    ("internal", fields.FLAG_INTERNAL),
)
# The same from the octets of a file, for every list that a release writes.
_FLAGS = {
    fields.format_flags(flags).encode(): ",".join(
        [name for name, bit in _FLAG_NAMES if flags & bit]
    ).encode()
    for flags in range(8)
}


def format_flags(flags: int) -> str:
    """Spell flags as the listing does."""
    return ",".join([name for name, bit in _FLAG_NAMES if flags & bit])


def format_line(entry: Entry) -> str:
    """Make the line of one entry, without its end.

    The expiry is what the original prints, which in format 3 is not the truth. Releases of
    format 3 spell the error in vis(3), older ones print it as it is. The state is `offline`
    in queue/, elsewhere the name of the bucket.
    """
    envelope = entry.envelope
    error = envelope.errorline
    bucket = entry.item.bucket
    return (
        f"{entry.evpid:016x}|{envelope.family or '?'}|{envelope.type}"
        f"|{format_flags(envelope.flags)}"
        f"|{envelope.sender or '@'}|{envelope.rcpt or '@'}|{envelope.dest or '@'}"
        f"|{envelope.ctime}|{envelope.expiry}|{envelope.last_try}|{envelope.retry}"
        f"|{'offline' if bucket == 'queue' else bucket}|"
        f"|{error if envelope.version in (1, 2) else text.vis(error)}"
    )


def format_fast(shapes: Shapes, evpid: int, octets: bytes) -> Optional[bytes]:
    """Make the line, with its end, straight from the octets of an ordinary envelope in queue/.

    None when the envelope is not ordinary: then format_line does it.
    """
    values = shapes.match(octets)
    if values is None:
        return None
    kind, error, sockaddr, sender, rcpt, dest, ctime, last_try, ttl, retry, flags = values
    family = shapes.family(sockaddr)
    if not family:
        return None
    return b"%016x|%b|%b|%b|%b|%b|%b|%b|%b|%b|%b|offline||%b\n" % (
        evpid,
        family,
        kind,
        _FLAGS[flags],
        sender,
        rcpt,
        dest,
        ctime,
        ctime if ttl == b"0" else b"%d" % (int(ctime) + int(ttl)),
        last_try,
        retry,
        error,
    )


class Classic:
    """The classic format of a listing: one line per envelope."""

    details = False
    fast = True
    safe = False
    separator = ""

    def head(self) -> str:
        """Give nothing."""
        return ""

    def heading(self) -> str:
        """Give nothing."""
        return ""

    def row(self, entry: Entry) -> str:
        """Give the line."""
        return format_line(entry) + "\n"

    def tail(self, rows: bool) -> str:  # noqa: ARG002  (all formats are asked alike)
        """Give nothing."""
        return ""
