"""Where mail goes: from an action and a recipient to a relay, and from a relay to its hosts.

Two askers. `choose_relay` asks tables; its answer, a Relay, is the key under which envelopes
share connections: everything that makes a difference on the wire is in it, the action included.
`find_hops` asks the DNS; its answer is the hosts in the order in which they are tried.
The texts of what goes wrong are those of the original.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Union

from smtpd_core.config.model import RelayAction, RelayTls
from smtpd_core.config.problems import Place
from smtpd_core.dns import exchangers
from smtpd_core.dns.exchangers import Exchangers, Verdict
from smtpd_core.mail.status import Outcome, Result, loop_detected, outcome
from smtpd_core.routing.rules import Failure
from smtpd_core.tables.lines import (
    Credentials,
    LineError,
    RelayHost,
    Tls,
    parse_credentials,
    parse_relayhost,
    parse_source,
)

if TYPE_CHECKING:
    from collections.abc import Generator

MAX_HOPS = 60  # addresses of one relay; who has more is tried at the first
MAX_SOURCES = 100  # addresses of one action that mail may leave from
SMTP_PORT = 25
_NOWHERE = Place("", 0)
_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - a record that leads there leads home

SCHEMES = {
    Tls.OPPORTUNISTIC: "smtp",
    Tls.STARTTLS: "smtp+tls",
    Tls.SMTPS: "smtps",
    Tls.NONE: "smtp+notls",
}


@dataclass(frozen=True)
class Relay:
    """A destination, and everything that decides how to talk to it.

    domain is that of recipients, or the host to connect to where is_host; verify is whether TLS
    has to come with a good certificate; backup is the name before whose MX to stop, or empty.
    """

    action: RelayAction
    domain: str
    is_host: bool = False
    port: int = SMTP_PORT
    tls: Tls = Tls.OPPORTUNISTIC
    verify: bool = False
    lmtp: bool = False
    label: str = ""
    backup: str = ""

    @property
    def scheme(self) -> str:
        """Give the scheme of its URL."""
        return "lmtp" if self.lmtp else SCHEMES[self.tls]

    def __str__(self) -> str:
        """Spell it as logs and `show relays` do."""
        action = self.action
        usual = 465 if self.tls is Tls.SMTPS else SMTP_PORT
        words = [f"relay:{self.domain}"]
        words += [f"port={self.port}"] if self.lmtp or self.port != usual else []
        words += [self.scheme]
        words += [f"auth={action.auth}:{self.label}"] if self.label else []
        words += [f"pki_name={action.pki}"] if action.pki else []
        words += ["mx"] if self.is_host else []
        words += [f"backup={self.backup}"] if self.backup else []
        words += [f"sourcetable={action.src}"] if action.src else []
        words += [f"helotable={action.helo_src}"] if action.helo_src else []
        words += [f"heloname={action.helo}"] if action.helo else []
        return f"[{','.join(words)}]"


class Hop(NamedTuple):
    """One address to connect to; host is the name TLS and people know it by."""

    preference: int
    host: str
    address: str
    port: int


class Ask(NamedTuple):
    """The value of a key in a table; the next entry of the table when key is None."""

    table: str
    service: str
    key: Optional[str] = None


class Find(NamedTuple):
    """The hosts that take mail for a domain, or the one host of that name."""

    name: str
    is_host: bool


TableAnswer = Union[str, Failure, None]


def temporary(text: str, status: str) -> Outcome:
    """Make the outcome of something that may go better later."""
    return outcome(Result.TEMPORARY, text, status)


# From an action to a relay.


def choose_relay(
    action: RelayAction, domain: str, server: str
) -> Generator[Ask, TableAnswer, Union[Relay, Outcome]]:
    """Find the relay of a recipient's domain; server is our name, as an MX record might have it."""
    key = replace(action, where=_NOWHERE, ttl_seconds=None)
    domain = domain.lower()
    table = action.host or action.domain
    if table is None:
        backup = (action.backup_mx or server) if action.backup else ""
        return _protect(Relay(key, domain, backup=backup))
    url = yield Ask(table, "relayhost", None if action.host else domain)
    if isinstance(url, Failure):
        return temporary("Cannot parse smarthost", "4.3.5")
    if url is None:
        return temporary("Cannot retrieve smarthost", "4.3.5")
    try:
        host = parse_relayhost(url)
    except LineError:
        return temporary("Cannot parse smarthost", "4.3.5")
    if host.label and not action.auth:
        return temporary("No auth table for relaying", "4.3.5")
    return _protect(_to_host(key, host))


def _to_host(action: RelayAction, host: RelayHost) -> Relay:
    return Relay(
        action,
        host.host.lower().rstrip("."),
        is_host=True,
        port=host.port,
        tls=host.tls,
        verify=host.tls in (Tls.STARTTLS, Tls.SMTPS),
        lmtp=host.lmtp,
        label=host.label,
    )


def _protect(relay: Relay) -> Union[Relay, Outcome]:
    """Apply what the action says about TLS."""
    wanted = relay.action.tls
    if wanted is RelayTls.OPPORTUNISTIC:
        return relay
    if relay.tls is Tls.NONE:
        return temporary("TLS required for relaying", "4.7.4")
    tls = Tls.STARTTLS if relay.tls is Tls.OPPORTUNISTIC else relay.tls
    return replace(relay, tls=tls, verify=wanted is RelayTls.VERIFY)


# What a relay needs of the tables before anything is sent.


def find_credentials(
    relay: Relay,
) -> Generator[Ask, TableAnswer, Union[Credentials, Outcome, None]]:
    """Find who to log in as; None when nobody has to."""
    if not relay.label:
        return None
    assert relay.action.auth is not None  # choose_relay refuses a label without
    value = yield Ask(relay.action.auth, "credentials", relay.label)
    if isinstance(value, str):
        try:
            return parse_credentials(relay.label, value)
        except LineError:
            pass
    return temporary("Could not retrieve credentials", "4.7.8")


def find_sources(
    action: RelayAction,
) -> Generator[Ask, TableAnswer, Union[tuple[str, ...], Outcome]]:
    """Find the addresses to connect from; an empty one leaves the choice to the system.

    The table gives its entries in turn; they are asked for until one comes again.
    """
    if action.src is None:
        return ("",)
    sources: list[str] = []
    for _ in range(MAX_SOURCES):
        value = yield Ask(action.src, "source")
        if not isinstance(value, str):
            return temporary("Could not retrieve source address", "4.3.5")
        try:
            source = parse_source(value)
        except LineError:
            return temporary("Could not retrieve source address", "4.3.5")
        if source in sources:
            break
        sources.append(source)
    return tuple(sources)


def find_helo(
    action: RelayAction, source: str, server: str
) -> Generator[Ask, TableAnswer, Optional[str]]:
    """Find the name to greet with; None when the table that should say has none."""
    if action.helo is not None:
        return action.helo
    if action.helo_src is None or not source:
        return server
    value = yield Ask(action.helo_src, "addrname", source)
    return value if isinstance(value, str) else None


# From a relay to hosts.


def find_hops(
    relay: Relay, is_own: Callable[[str, int], bool], warn: Callable[[str], None]
) -> Generator[Find, Exchangers, Union[tuple[Hop, ...], Outcome]]:
    """Find the addresses to try, best first.

    MX records that lead back to this machine end the list, as RFC 5321 section 5.1 asks: mail
    would go round. is_own tells whether we listen at an address and port.
    """
    found = yield Find(relay.domain, relay.is_host)
    if found.verdict is not Verdict.FOUND:
        return _nowhere(found)
    if relay.backup:
        better = found.before(relay.backup)
        if better is None:
            warn(f"warn: no MX of {relay.domain} is {relay.backup}: all are tried")
        elif better.verdict is not Verdict.FOUND:
            return _nowhere(better)
        else:
            found = better
    hops = [
        Hop(host.preference, host.host.rstrip("."), address, relay.port)
        for host in found.hosts
        for address in host.addresses
    ]
    if not relay.is_host:
        ours = [hop.preference for hop in hops if _leads_home(hop, is_own)]
        if ours:
            hops = [hop for hop in hops if hop.preference < min(ours)]
            if not hops:
                return loop_detected()
    return tuple(hops[:MAX_HOPS])


def _leads_home(hop: Hop, is_own: Callable[[str, int], bool]) -> bool:
    return hop.address in _UNSPECIFIED or is_own(hop.address, hop.port)


# RFC 7505 section 4.2 for 5.1.10; RFC 3463 for the others.
_STATUSES = {
    exchangers.NO_SUCH_DOMAIN: "5.1.2",
    exchangers.INVALID_DOMAIN: "5.1.2",
    exchangers.NO_MAIL: "5.1.10",
}


def _nowhere(found: Exchangers) -> Outcome:
    result = Result.PERMANENT if found.verdict is Verdict.PERMANENT else Result.TEMPORARY
    return outcome(result, found.text, _STATUSES.get(found.text, "4.4.3"))
