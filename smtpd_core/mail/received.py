"""Compose the trace fields: Received, Return-Path, Delivered-To, and their dates.

All are LF-ended octets, as the spool keeps them.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Optional

from smtpd_core import text
from smtpd_core.errors import LocalError
from smtpd_core.ids import format_msgid
from smtpd_core.mail.address import Address, is_domain

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
UNKNOWN_HOST = "<unknown>"
_CONTROLS = re.compile("[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Trace:
    """What a Received field says of one message.

    `helo` empty leaves out the from part (source masking); `tls` is `version:cipher:bits:YES`
    or NO; `recipient` is given when exactly one was accepted; `user` is None where the listener
    does not ask for the auth part, and empty for a session that did not authenticate.
    """

    helo: str
    host: str
    address: str
    server: str
    protocol: str
    msgid: int
    date: str
    tls: Optional[str] = None
    user: Optional[str] = None
    recipient: Optional[Address] = None


def format_date(now: int, offset_seconds: int, zone: str) -> str:
    """Spell a moment in the zone that is offset_seconds east of UTC and called zone."""
    moment = time.gmtime(now + offset_seconds)
    sign = "-" if offset_seconds < 0 else "+"
    hours, minutes = divmod(abs(offset_seconds) // 60, 60)
    return (
        f"{_DAYS[moment.tm_wday]}, {moment.tm_mday} {_MONTHS[moment.tm_mon - 1]} {moment.tm_year} "
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} "
        f"{sign}{hours:02d}{minutes:02d} ({zone})"
    )


def bracketed(address: str) -> str:
    """Give a peer's address its one pair of brackets; IPv6 may bring its own."""
    return address if address.startswith("[") else f"[{address}]"


def safe_host(name: str) -> str:
    """Give a reverse name back only when it is a host name: DNS answers can hold any octet."""
    return name if is_domain(name) else UNKNOWN_HOST


def protocol_name(*, extended: bool, secured: bool, authenticated: bool) -> str:
    """Name the protocol of a session: SMTP, ESMTP, ESMTPS, ESMTPSA and so on."""
    return (
        ("E" if extended else "") + "SMTP" + ("S" if secured else "") + ("A" * int(authenticated))
    )


def _encode(lines: str) -> bytes:
    return text.encode(lines)


def _refuse_controls(*values: str) -> None:
    for value in values:
        if _CONTROLS.search(value):
            raise LocalError(f"a trace field cannot hold {value[:64]!r}")


def received(trace: Trace) -> bytes:
    """Compose the Received field of a message as OpenSMTPD 7.8 does.

    Raises LocalError when a value holds a control: it would add a line to the message.
    """
    _refuse_controls(trace.helo, trace.address, trace.server, trace.protocol, trace.date)
    _refuse_controls(trace.tls or "", trace.user or "", str(trace.recipient or ""))
    origin = ""
    if trace.helo:
        origin = f"from {trace.helo} ({safe_host(trace.host)} {bracketed(trace.address)})"
    line = f"\tby {trace.server} (OpenSMTPD) with {trace.protocol} id {format_msgid(trace.msgid)}"
    if trace.tls:
        line += f" ({trace.tls})"
        if trace.user:
            line += f" auth=yes user={trace.user}"
        elif trace.user is not None:
            line += " auth=no"
    if trace.recipient is not None:
        line += f"\n\tfor <{trace.recipient}>"
    return _encode(f"Received: {origin}\n{line};\n\t{trace.date}\n")


def return_path(sender: Address) -> bytes:
    """Compose what goes first at local delivery; nothing for the null sender."""
    _refuse_controls(str(sender))
    return b"" if sender.is_null else _encode(f"Return-Path: <{sender}>\n")


def delivered_to(recipient: Address) -> bytes:
    """Compose the mark by which a later delivery recognises a loop."""
    _refuse_controls(str(recipient))
    return _encode(f"Delivered-To: {recipient}\n")
