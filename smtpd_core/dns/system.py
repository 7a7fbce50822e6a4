"""What the host says about names: its resolv.conf and its hosts file, given as text.

Both files belong to the administrator: a line that makes no sense is passed over, as every
resolver does, and never an error. Search lists and ndots are not read: a name in mail is
complete as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, Union

from smtpd_core.dns.wire import fold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Optional

PORT = 53
MAX_SERVERS = 3  # as many as other resolvers ask
MAX_TIMEOUT_SECONDS = 30
MAX_ATTEMPTS = 5
MAX_HOSTS = 100_000  # names kept from a hosts file: some hold whole block lists


class Server(NamedTuple):
    """Where queries go; the address may carry an IPv6 scope."""

    address: str
    port: int = PORT


LOCAL_SERVER = Server("127.0.0.1")


@dataclass(frozen=True)
class Settings:
    """How to ask: which servers, how long and how often; tcp_only is the option use-vc."""

    servers: tuple[Server, ...] = (LOCAL_SERVER,)
    timeout_seconds: int = 5
    attempts: int = 2
    rotate: bool = False
    edns: bool = True
    tcp_only: bool = False


def address_text(text: str) -> Optional[str]:
    """Give the one spelling of an IP address, or None when it is none; a scope stays."""
    address, percent, scope = text.partition("%")
    try:
        parsed: Union[IPv4Address, IPv6Address] = ip_address(address)
    except ValueError:
        return None
    if percent and (parsed.version == 4 or not scope):
        return None
    return f"{parsed}{percent}{scope}"


def _server(text: str) -> Optional[Server]:
    """Read a server: an address, or [address]:port."""
    port = PORT
    if text.startswith("["):
        text, _, end = text[1:].partition("]")
        digits = end[1:]
        if end:
            if end[0] != ":" or not (digits.isascii() and digits.isdigit() and len(digits) < 6):
                return None
            port = int(digits)
    address = address_text(text)
    return Server(address, port) if address is not None and 0 < port < 65536 else None


def _number(text: str, low: int, high: int, default: int) -> int:
    """Read an option's number, brought into its range."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return default
    return min(max(int(text), low), high)


def parse_settings(text: str) -> Settings:
    """Read a resolv.conf; what it leaves open has the usual default.

    Source: resolv.conf(5); `[address]:port` as OpenBSD writes it; edns is what we use anyway,
    no-edns0 is ours for servers that choke on it.
    """
    servers: list[Server] = []
    words: list[str] = []
    for line in text.splitlines():
        if line[:1] in "#;":
            continue
        fields = line.split()
        if fields[:1] == ["nameserver"] and len(fields) > 1:
            server = _server(fields[1])
            if server is not None and server not in servers:
                servers.append(server)
        elif fields[:1] == ["options"]:
            words += fields[1:]
    defaults = Settings()
    timeout, attempts = defaults.timeout_seconds, defaults.attempts
    for word in words:
        name, _, value = word.partition(":")
        if name == "timeout":
            timeout = _number(value, 1, MAX_TIMEOUT_SECONDS, timeout)
        elif name == "attempts":
            attempts = _number(value, 1, MAX_ATTEMPTS, attempts)
    return Settings(
        servers=tuple(servers[:MAX_SERVERS]) or defaults.servers,
        timeout_seconds=timeout,
        attempts=attempts,
        rotate="rotate" in words,
        edns="no-edns0" not in words,
        tcp_only="use-vc" in words or "tcp" in words,
    )


class Hosts:
    """The names and addresses of a hosts file."""

    __slots__ = ("_addresses", "_names")

    def __init__(self, entries: Iterable[tuple[str, list[str]]] = ()) -> None:
        """Take pairs of an address and its names; the first name of an address is its own."""
        self._addresses: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        for address, names in entries:
            for name in names:
                if len(self._addresses) >= MAX_HOSTS:
                    return
                known = self._addresses.setdefault(fold(name.rstrip(".")), [])
                if address not in known:
                    known.append(address)
            if names:
                self._names.setdefault(address, names[0].rstrip("."))

    def addresses(self, name: str) -> Optional[list[str]]:
        """Give the addresses of a name, both families; None when the file does not know it."""
        return self._addresses.get(fold(name))

    def name(self, address: str) -> Optional[str]:
        """Give the first name of an address, or None."""
        return self._names.get(address)


def parse_hosts(text: str) -> Hosts:
    """Read a hosts file: an address and its names on each line, comments after `#`.

    Source: hosts(5).
    """
    entries = []
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        address = address_text(fields[0]) if fields else None
        if address is not None:
            entries.append((address, fields[1:]))
    return Hosts(entries)
