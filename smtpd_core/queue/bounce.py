"""Who is told what, and when: bounce envelopes, and the reports they become.

An attempt that ends in something its sender wants to know makes a bounce envelope beside the
message: the order to send a report. Orders about one message that say the same thing are gathered
for a moment and become one mail, which mail/dsn.py composes.

Who wants to know is what RFC 3461 says (the releases report more than was asked for): without
NOTIFY failures and delays, with it exactly what it lists. Nobody is told about a mail without
sender, nor about a report that failed. A loop is a failure: nothing will be tried again.
Source: RFC 3461 sections 4.1, 5.2 and 6.2; OpenSMTPD 7.8, queue.c and bounce.c.
"""

from __future__ import annotations

from smtpd_core import ids
from smtpd_core.mail.dsn import Kind, Recipient, Report
from smtpd_core.mail.status import Outcome, Result, outcome
from smtpd_core.queue import retry
from smtpd_core.queue.envelope import Envelope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

NOTIFY_SUCCESS = 1
NOTIFY_FAILURE = 2
NOTIFY_DELAY = 4
NOTIFY_NEVER = 8
_NOTIFY_DEFAULT = NOTIFY_FAILURE | NOTIFY_DELAY
_NOTIFY_OF = {
    "failed": NOTIFY_FAILURE,
    "delayed": NOTIFY_DELAY,
    "delivered": NOTIFY_SUCCESS,
}
_CLASS_OF = {"failed": 5, "delayed": 4, "delivered": 2}

NULL_SENDER = "@"
BOUNCE_TTL_SECONDS = 7 * 86_400
GATHER_SECONDS = 1
GROUP_MAX = 1000  # recipients reported in one mail


class Delay:
    """A warning that is due: how long the message has waited, and how long it may."""

    __slots__ = ("interval", "lifetime")

    def __init__(self, interval: int, lifetime: int) -> None:
        """Take both in seconds; the interval is one of those configured."""
        self.interval = interval
        self.lifetime = lifetime


def expired() -> Outcome:
    """Make the outcome of an envelope that waited for too long. Source: RFC 3463, X.4.7."""
    return outcome(Result.PERMANENT, "Envelope expired", "5.4.7")


def lost() -> Outcome:
    """Make the outcome of an envelope whose message is gone. Source: RFC 3463, X.3.0."""
    return outcome(Result.PERMANENT, "The message was lost", "5.3.0")


def record_failure(
    envelope: Envelope, result: Outcome, now: int, delay: Optional[Delay] = None
) -> Envelope:
    """Give the envelope as it is to be stored after an attempt that failed for now."""
    later = Envelope(**vars(envelope))
    later.retry = retry.count_retry(envelope.retry)
    later.last_try = now
    later.errorline = result.text
    later.esc_class = result.status.status_class
    later.esc_code = result.status.code
    if delay is not None:
        later.last_bounce = envelope.ctime + delay.interval
    return later


def bounce_of(
    envelope: Envelope,
    result: Outcome,
    now: int,
    delay: Optional[Delay] = None,
    peer_reports: bool = False,
) -> Optional[Envelope]:
    """Give the bounce envelope that an attempt calls for, to be stored beside the message.

    None when nobody is to be told: also after a temporary failure without a delay to warn about,
    and when the next host took the duty to report success upon itself.
    """
    if result.result is Result.DELIVERED:
        kind = "" if peer_reports else "delivered"
    elif result.result is Result.TEMPORARY:
        kind = "delayed" if delay is not None else ""
    else:
        kind = "failed"
    if not kind or not _wanted(envelope, kind):
        return None
    bounce = Envelope(**vars(envelope))
    bounce.type = "bounce"
    bounce.bounce_type = kind
    bounce.bounce_delay = delay.interval if delay is not None and kind == "delayed" else 0
    bounce.bounce_ttl = delay.lifetime if delay is not None and kind == "delayed" else 0
    bounce.ctime = now
    bounce.last_try = bounce.last_bounce = bounce.retry = 0
    bounce.ttl = BOUNCE_TTL_SECONDS
    bounce.errorline = result.text
    bounce.esc_class = _CLASS_OF[kind]  # what the releases tell the kind of report by
    bounce.esc_code = result.status.code
    return bounce


def _wanted(envelope: Envelope, kind: str) -> bool:
    if envelope.type == "bounce" or envelope.sender in ("", NULL_SENDER):
        return False
    notify = envelope.dsn_notify or _NOTIFY_DEFAULT
    return not notify & NOTIFY_NEVER and bool(notify & _NOTIFY_OF[kind])


class Group:
    """Bounce envelopes that become one mail."""

    __slots__ = ("envelopes", "evpids", "since")

    def __init__(self, since: int) -> None:
        """Start without envelopes."""
        self.since = since
        self.evpids: list[int] = []
        self.envelopes: list[Envelope] = []

    @property
    def msgid(self) -> int:
        """Name the message that is reported about."""
        return ids.msgid_of(self.evpids[0])

    @property
    def full(self) -> bool:
        """Tell whether all of the message is returned, and not its header section alone."""
        first = self.envelopes[0]
        return first.bounce_type == "failed" and first.dsn_ret == "FULL"

    def report(
        self, boundary: str, date: str, relayed: bool = False, eightbit: bool = False
    ) -> Report:
        """Describe the mail for dsn.compose.

        `relayed` when the dispatcher of the envelopes relays: what is reported as delivered was
        then handed on. See dsn.Report for the other parameters.
        """
        first = self.envelopes[0]
        kind = Kind(first.bounce_type)
        if kind is Kind.DELIVERED and relayed:
            kind = Kind.RELAYED
        return Report(
            kind=kind,
            host=first.smtpname,
            sender=first.sender,
            recipients=tuple(map(_recipient, self.envelopes)),
            boundary=boundary,
            date=date,
            envid=first.dsn_envid,
            delay_seconds=first.bounce_delay,
            lifetime_seconds=first.bounce_ttl,
            eightbit=eightbit,
        )


def _recipient(envelope: Envelope) -> Recipient:
    """Describe one recipient; the class of the status is that of the report (RFC 3464, 2.3.4)."""
    orcpt = envelope.dsn_orcpt
    if orcpt and ";" not in orcpt:  # releases 6.7 to 7.4 store it without its type
        orcpt = f"rfc822;{orcpt}"
    subject, detail = divmod(envelope.esc_code, 10)
    return Recipient(
        address=envelope.dest,
        status=f"{_CLASS_OF[envelope.bounce_type]}.{subject}.{detail}",
        text=envelope.errorline,
        orcpt=orcpt,
    )


class Gathering:
    """Bounce envelopes that are due, waiting a moment for others of their message.

    Holds as many envelopes as the scheduler has in flight.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._groups: dict[tuple[object, ...], Group] = {}
        self._full: list[Group] = []

    def add(self, evpid: int, envelope: Envelope, now: int) -> None:
        """Take in a bounce envelope."""
        key = (
            ids.msgid_of(evpid),
            envelope.sender,
            envelope.smtpname,
            envelope.dispatcher,
            envelope.bounce_type,
            envelope.bounce_delay,
            envelope.dsn_ret,
            envelope.dsn_envid,
        )
        group = self._groups.setdefault(key, Group(now))
        group.evpids.append(evpid)
        group.envelopes.append(envelope)
        if len(group.evpids) >= GROUP_MAX:
            self._full.append(self._groups.pop(key))

    def take(self, now: int) -> list[Group]:
        """Give the groups that have waited long enough, or are full."""
        due, self._full = self._full, []
        for key, group in list(self._groups.items()):
            # A clock that was set back must not keep a report for as long.
            if not group.since <= now < group.since + GATHER_SECONDS:
                due.append(self._groups.pop(key))
        return due

    def wake_time(self) -> Optional[int]:
        """Say when take has something to give; None when nothing waits."""
        if self._full:
            return self._full[0].since
        if not self._groups:
            return None
        return min(group.since for group in self._groups.values()) + GATHER_SECONDS
