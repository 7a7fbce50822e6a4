"""The name of a client: the one its address has, and whether that name leads back to it."""

from __future__ import annotations

import enum
from ipaddress import ip_address
from typing import NamedTuple

from smtpd_core.dns import wire
from smtpd_core.dns.resolve import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from smtpd_core.dns.resolve import Reply, Resolver, Send

UNKNOWN = "<unknown>"  # stands for a missing name in logs, headers and filter lines


class Confirmation(enum.Enum):
    """Whether the name leads back to the address, in the words filters are told."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    ERROR = "error"


class ClientName(NamedTuple):
    """The reverse name of a client, or UNKNOWN."""

    name: str
    confirmed: Confirmation


def reverse_name(address: str) -> str:
    """Give the name that holds the PTR record of an address. Source: RFC 1035 3.5, RFC 3596.

    Raises ValueError when that is no IP address.
    """
    return ip_address(address).reverse_pointer


def find_client_name(
    resolver: Resolver, address: str, now: int
) -> Generator[Send, Reply, ClientName]:
    """Find the name of a client, and look it up again in the same family.

    No name at all is a failure; an error is only what may go away. Raises ValueError when the
    address is none.
    """
    address = str(ip_address(address.partition("%")[0]))  # a scope has no place in a name
    name = resolver.hosts.name(address)
    if name is None:
        answer = yield from resolver.lookup(reverse_name(address), wire.PTR, now)
        if answer.status is Status.FAILED:
            return ClientName(UNKNOWN, Confirmation.ERROR)
        usable = [text for text in answer.texts if _is_host(text)]
        if not usable:
            return ClientName(UNKNOWN, Confirmation.FAIL)
        name = usable[0]
    rtype = wire.AAAA if ":" in address else wire.A
    forward = yield from resolver.lookup(name, rtype, now)
    if forward.status is Status.FAILED:
        return ClientName(name, Confirmation.ERROR)
    confirmed = Confirmation.PASS if address in forward.texts else Confirmation.FAIL
    return ClientName(name, confirmed)


def _is_host(name: str) -> bool:
    """Tell whether a name has only the characters of hosts: it goes into headers and logs."""
    return name != wire.ROOT and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
