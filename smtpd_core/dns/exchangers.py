"""Where mail for a domain goes: its MX records, and the addresses behind them.

Source: RFC 5321 section 5.1; RFC 7505 for a domain without mail; the texts are those of the
original.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from smtpd_core.dns import wire
from smtpd_core.dns.resolve import Answer, Status
from smtpd_core.dns.system import address_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Callable, Optional

    from smtpd_core.dns.resolve import Reply, Resolver, Send

LITERAL_PREFERENCE = -1  # an address literal comes before any record
IMPLICIT_PREFERENCE = 0
MAX_EXCHANGERS = 30  # hosts whose addresses are looked up; the least preferred are left out
ADDRESS_TYPES = (wire.AAAA, wire.A)  # in the order they are tried

NO_SUCH_DOMAIN = "Domain does not exist"
NO_MAIL = "Domain does not accept mail"
INVALID_DOMAIN = "Invalid domain name"
LOOKUP_FAILED = "Temporary failure in MX lookup"
NO_EXCHANGER = "No MX found for domain"
NO_HOST = "Host not found"


class Verdict(enum.Enum):
    """Whether there is anywhere to go, and whether to ask again when there is not."""

    FOUND = "found"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


class Exchanger(NamedTuple):
    """One host that takes mail, with its addresses in the order they are tried."""

    preference: int
    host: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Exchangers:
    """The hosts for a domain, most preferred first; text says why there are none."""

    verdict: Verdict
    hosts: tuple[Exchanger, ...] = ()
    text: str = ""

    def before(self, name: str) -> Optional[Exchangers]:
        """Give only the hosts preferred to one of them: a backup must not send mail to itself.

        None when that one is not listed.
        """
        own = [host.preference for host in self.hosts if wire.fold(host.host) == wire.fold(name)]
        if not own:
            return None
        better = tuple(host for host in self.hosts if host.preference < min(own))
        if not better:
            return Exchangers(Verdict.TEMPORARY, text=NO_EXCHANGER)
        return Exchangers(self.verdict, better)


def parse_literal(domain: str) -> Optional[str]:
    """Give the address in `[192.0.2.1]` or `[IPv6:2001:db8::1]`; None when it is neither.

    Source: RFC 5321 section 4.1.3; the prefix may be missing, as in the original.
    """
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    text = domain[1:-1]
    try:
        if text[:5].lower() == "ipv6:":
            return str(IPv6Address(text[5:]))
        return str(IPv6Address(text) if ":" in text else IPv4Address(text))
    except ValueError:
        return None


def find_exchangers(
    resolver: Resolver, domain: str, now: int, types: tuple[int, ...] = ADDRESS_TYPES
) -> Generator[Send, Reply, Exchangers]:
    """Find the hosts that take mail for a domain, shuffled within one preference.

    types are the address families this machine can use. A host that fails is left out while
    another one works.
    """
    if domain.startswith("["):
        return _literal(domain)
    answer = yield from resolver.lookup(domain, wire.MX, now)
    if answer.status is Status.NO_NAME:
        return Exchangers(Verdict.PERMANENT, text=NO_SUCH_DOMAIN)
    if answer.status is Status.INVALID:
        return Exchangers(Verdict.PERMANENT, text=INVALID_DOMAIN)
    if answer.status is Status.FAILED:
        return Exchangers(Verdict.TEMPORARY, text=LOOKUP_FAILED)
    if answer.status is Status.NO_DATA:
        named = [wire.Exchange(IMPLICIT_PREFERENCE, domain)]
    else:
        named = order(answer, resolver.draw)
        if not named:
            return Exchangers(Verdict.PERMANENT, text=NO_MAIL)
    hosts = []
    for preference, host in named[:MAX_EXCHANGERS]:
        addresses = yield from find_addresses(resolver, host, now, types)
        if addresses:
            hosts.append(Exchanger(preference, host, tuple(addresses)))
    if not hosts:
        return Exchangers(Verdict.TEMPORARY, text=NO_EXCHANGER)
    return Exchangers(Verdict.FOUND, tuple(hosts))


def _literal(domain: str) -> Exchangers:
    address = parse_literal(domain)
    if address is None:
        return Exchangers(Verdict.PERMANENT, text=INVALID_DOMAIN)
    host = Exchanger(LITERAL_PREFERENCE, domain, (address,))
    return Exchangers(Verdict.FOUND, (host,))


def order(answer: Answer, draw: Callable[[int], int]) -> list[wire.Exchange]:
    """Sort MX records by preference, in random order where that is equal.

    The root and localhost are no hosts for mail: nothing left means that none is accepted.
    """
    exchanges: dict[str, wire.Exchange] = {}
    for record in answer.records:
        if isinstance(record.data, wire.Exchange):
            host = wire.fold(record.data.host)
            known = exchanges.get(host)
            if host in (wire.ROOT, "localhost"):
                continue
            if known is None or record.data.preference < known.preference:
                exchanges[host] = record.data
    ordered = list(exchanges.values())
    for last in range(len(ordered) - 1, 0, -1):  # Fisher and Yates
        chosen = draw(last + 1)
        ordered[last], ordered[chosen] = ordered[chosen], ordered[last]
    ordered.sort(key=lambda exchange: exchange.preference)
    return ordered


def find_addresses(
    resolver: Resolver, host: str, now: int, types: tuple[int, ...] = ADDRESS_TYPES
) -> Generator[Send, Reply, list[str]]:
    """Find the addresses of one host, none when all fails; an address, bare or not, is itself."""
    literal = parse_literal(host) or address_text(host)
    if literal is not None:
        return [literal]
    addresses: list[str] = []
    for rtype in types:
        answer = yield from resolver.lookup(host, rtype, now)
        addresses += answer.texts
        if answer.status in (Status.NO_NAME, Status.INVALID):
            break
    return list(dict.fromkeys(addresses))


def find_host(
    resolver: Resolver, host: str, now: int, types: tuple[int, ...] = ADDRESS_TYPES
) -> Generator[Send, Reply, Exchangers]:
    """Find the one host a relay URL names; its MX records are not asked for."""
    addresses = yield from find_addresses(resolver, host, now, types)
    if not addresses:
        return Exchangers(Verdict.TEMPORARY, text=NO_HOST)
    found = Exchanger(IMPLICIT_PREFERENCE, host, tuple(addresses))
    return Exchangers(Verdict.FOUND, (found,))
