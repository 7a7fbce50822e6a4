"""The lines relaying writes into the log.

They are those of OpenSMTPD 7.8. A failure has one thing more, at its end: the address it was met
at, so that a program can act on one line without having seen the others of the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Optional

from smtpd_core.ids import format_evpid
from smtpd_core.mail.status import Result
from smtpd_core.mta.limits import bracketed
from smtpd_core.text import escape

if TYPE_CHECKING:
    from smtpd_core.mail.status import Outcome
    from smtpd_core.net.stream import TlsFacts
    from smtpd_core.queue.envelope import Envelope

UNKNOWN = "<unknown>"
_RESULTS = {
    Result.DELIVERED: "Ok",
    Result.TEMPORARY: "TempFail",
    Result.PERMANENT: "PermFail",
    Result.LOOP: "PermFail",
}


class Here(NamedTuple):
    """Where a session is: its id, and both ends of its connection."""

    session: int
    source: str
    address: str
    port: int
    name: str = UNKNOWN

    @property
    def place(self) -> str:
        """Give the far end, address and port."""
        return f"{bracketed(self.address)}:{self.port}"


NOWHERE = Here(0, "", "", 0)


def _event(session: int, event: str) -> str:
    return f"{session:016x} mta {event}"


def _quoted(words: str) -> str:
    return '"' + escape(words).replace('"', '\\"') + '"'


def delay_text(seconds: int) -> str:
    """Spell an age as the original does: `1d2h3m4s`, what is zero left out."""
    rest = max(seconds, 0)
    spelled = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        spelled += f"{count}{unit}" if count else ""
    return spelled or "0s"


def connecting(here: Here, scheme: str) -> str:
    """Tell of a connection that is being made."""
    address = f"{scheme}://{here.place}"
    return _event(here.session, f"connecting address={address} host={escape(here.name)}")


def connected(here: Here) -> str:
    """Tell that it was made."""
    return _event(here.session, "connected")


def tls(here: Here, facts: TlsFacts) -> str:
    """Tell what TLS came to."""
    return _event(here.session, f"tls ciphers={facts.description}")


def certificate(here: Here, facts: TlsFacts) -> str:
    """Tell of the server's certificate."""
    result = "valid" if facts.verified else "unverified"
    fingerprint = facts.fingerprint or ""
    return _event(here.session, f'cert-check result="{result}" fingerprint="{fingerprint}"')


def failed(here: Here, reason: str, messages: int) -> str:
    """Tell why a session ended before its time."""
    if messages:
        said = f"smtp-out: Error on session {here.session:016x} after {messages} message(s) sent"
        return f"{said}: {escape(reason)} address={here.place}"
    return _event(here.session, f"error reason={escape(reason)} address={here.place}")


def downgrading(here: Here, reason: str) -> str:
    """Tell that a host offers TLS it cannot speak."""
    said = f"smtp-out: Error on session {here.session:016x}: opportunistic TLS failed"
    return f"{said}, downgrading to plain address={here.place} reason={_quoted(reason)}"


def rejects_all(here: Here) -> str:
    """Tell of a host that took none of many mails."""
    return _event(here.session, f"host-rejects-all-mails address={here.place}")


def disconnected(here: Here, messages: int) -> str:
    """Tell of the orderly end."""
    return _event(here.session, f"disconnected reason=quit messages={messages}")


def delivery(here: Here, evpid: int, envelope: Envelope, outcome: Outcome, now: int) -> str:
    """Tell what became of one recipient; without a session its relay is the domain."""
    rcpt = envelope.rcpt if envelope.rcpt != envelope.dest else ""
    relay = envelope.dest.rpartition("@")[2]
    if here.session:
        relay = f"{here.address} ({here.name})"
    source = here.source if here.session else "-"
    line = _event(
        here.session,
        f"delivery evpid={format_evpid(evpid)} from=<{_address(envelope.sender)}>"
        f" to=<{_address(envelope.dest)}> rcpt={f'<{_address(rcpt)}>' if rcpt else '-'}"
        f" source={_quoted(source)} relay={_quoted(relay)}"
        f" delay={delay_text(now - envelope.ctime)}"
        f' result="{_RESULTS[outcome.result]}" stat={_quoted(outcome.text)}',
    )
    if outcome.result is not Result.DELIVERED and here.session:
        line += f" address={here.place}"
    return line


def _address(text: str) -> str:
    return "" if text == "@" else escape(text)


def mx_failed(relay: str, text: str) -> str:
    """Tell that a relay has no hosts."""
    return f"smtp-out: Failed to resolve MX for {relay}: {escape(text)}"


def connector(source: str, relay: str, flags: int) -> str:
    """Spell a connector."""
    return f"[connector:{source or '[]'}->{relay},0x{flags:x}]"


def no_route(trouble: str, spelled: str, reason: Optional[str] = None) -> str:
    """Tell why a connector has no route."""
    return f"smtp-out: {trouble} {spelled}" + (f": {escape(reason)}" if reason else "")


def source_failed(route: str, text: str) -> str:
    """Tell that a local address cannot be used."""
    return f"smtp-out: Error on {escape(route)}: {escape(text)}"


def disabling(route: str, seconds: int) -> str:
    """Tell that a route is left alone for a while."""
    return f"smtp-out: Disabling route {escape(route)} for {seconds}s"


def enabling(route: str, *, asked: bool = False) -> str:
    """Tell that it is used again."""
    return f"smtp-out: Enabling route {escape(route)}" + (" per admin request" if asked else "")


def holding(relay: str) -> str:
    """Tell that a relay has enough for now."""
    return f"smtp-out: hiwat reached on {relay}: holding envelopes"


def releasing(relay: str) -> str:
    """Tell that it takes envelopes again."""
    return f"smtp-out: back to lowat on {relay}: releasing"
