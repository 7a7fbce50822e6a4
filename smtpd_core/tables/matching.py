"""How a key is compared with the entries of a table, for each service.

Entries are prepared once; a key then costs a few dictionary lookups, and one comparison for each
entry with a wildcard or each regular expression. All comparisons ignore the case of ASCII
letters. When several entries match, the first one given counts.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Callable, NamedTuple, Optional

from smtpd_core.errors import FormatError
from smtpd_core.tables.posix import RegexError, compile_extended

MAX_KEY = 1023  # octets of a key, as in the original
IGNORE_CASE = "(?i)"  # before a regular expression
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


class MatchError(FormatError):
    """A key that cannot be compared: the lookup fails for now."""


class Network(NamedTuple):
    """An IP network, or one address; bits is the length of the prefix."""

    version: int
    number: int
    bits: int

    @property
    def prefix(self) -> int:
        """The leading bits, all others left out."""
        return self.number >> (self.width - self.bits)

    @property
    def width(self) -> int:
        """The bits of an address of this version."""
        return 32 if self.version == 4 else 128


def fold(text: str) -> str:
    """Make ASCII letters small; everything else stays, octet for octet."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def match_domain(domain: str, pattern: str) -> bool:
    """Compare a domain with a pattern in which `*` stands for some characters.

    `*` skips to the first occurrence of the character that follows it, and never tries a later
    one: `*.example` takes one label only. At the end it takes the rest, which must not be empty.
    Source: OpenSMTPD, all releases.
    """
    first, *others = fold(pattern).split("*")
    domain = fold(domain)
    if not others:
        return domain == first
    if not domain.startswith(first):
        return False
    position = len(first)
    while others:
        segment = others.pop(0)
        if not segment and others:
            continue  # several stars are one
        if position >= len(domain):
            return False
        if not segment:
            return True
        position = domain.find(segment[0], position)
        if position < 0 or not domain.startswith(segment, position):
            return False
        position += len(segment)
    return position == len(domain)


def parse_network(text: str) -> Optional[Network]:
    """Read an address or a network as tables and rules spell them; None when it is neither.

    `192.0.2.1`, `10/8`, `192.168/16`, `2001:db8::/32`, `[::1]`, `IPv6:::1`, `[IPv6:::1]`.
    Without `/bits` an IPv4 network that leaves octets out has those of its old class.
    """
    if text[:1] == "[":
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith("/")):
            return None
        text = inside + rest
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    address, slash, digits = text.partition("/")
    bits = None
    if slash:
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 3):
            return None
        bits = int(digits)
    return _network6(address, bits) if ":" in address else _network4(address, bits)


def _network6(address: str, bits: Optional[int]) -> Optional[Network]:
    try:
        number = int(IPv6Address(address.partition("%")[0]))
    except ValueError:
        return None
    bits = 128 if bits is None else bits
    return Network(6, number, bits) if bits <= 128 else None


def _network4(address: str, bits: Optional[int]) -> Optional[Network]:
    octets = address.split(".")
    try:
        number = int(IPv4Address(".".join(octets + ["0"] * (4 - len(octets)))))
    except ValueError:
        return None
    if bits is None:
        first = number >> 24
        natural = 8 if first < 128 else 16 if first < 192 else 24 if first < 224 else 4
        bits = max(natural, 8 * len(octets)) if len(octets) < 4 else 32
    return Network(4, number, bits) if bits <= 32 else None


def split_address(text: str) -> tuple[str, str]:
    """Split an address at its last `@`; without one it is all user."""
    user, at, domain = text.rpartition("@")
    return (user, domain) if at else (text, "")


class Patterns:
    """The entries of a table, prepared for one service."""

    __slots__ = ("_delimiter", "_exact", "_find", "_prefixes", "_slow")

    def __init__(self, service: str, entries: list[str], delimiter: str = "+") -> None:
        """Prepare entries; those that make no sense for the service match nothing.

        A service without a comparison of its own compares whole texts. delimiter is that of
        sub-addresses.
        """
        self._delimiter = delimiter
        self._exact: dict[object, int] = {}  # what an entry equals -> its place
        self._prefixes: list[tuple[int, int]] = []  # version and bits of the networks
        self._slow: list[tuple[int, Callable[[str], bool]]] = []
        prepare, self._find = {
            "domain": (self._add_domain, self._find_domain),
            "netaddr": (self._add_network, self._find_network),
            "mailaddr": (self._add_address, self._find_address),
            "regex": (self._add_regex, self._find_regex),
        }.get(service, (self._add_text, self._find_text))
        for place, entry in enumerate(entries):
            prepare(place, fold(entry))

    def find(self, key: str) -> Optional[int]:
        """Give the place of the first entry that a key matches; None when there is none.

        Raises MatchError for a key that is too long.
        """
        if len(key) > MAX_KEY:
            raise MatchError(f"a key of {len(key)} characters")
        found = self._find(fold(key))
        return min(found) if found else None

    def _equal(self, *wanted: object) -> list[int]:
        return [self._exact[one] for one in wanted if one in self._exact]

    def _find_slow(self, key: str) -> list[int]:
        for place, matches in self._slow:
            if matches(key):
                return [place]
        return []

    def _add_text(self, place: int, entry: str) -> None:
        self._exact.setdefault(entry, place)

    def _find_text(self, key: str) -> list[int]:
        return self._equal(key)

    def _add_domain(self, place: int, entry: str) -> None:
        if "*" in entry:
            self._slow.append((place, lambda key: match_domain(key, entry)))
        else:
            self._exact.setdefault(entry, place)

    def _find_domain(self, key: str) -> list[int]:
        return self._equal(key) + self._find_slow(key)

    def _add_network(self, place: int, entry: str) -> None:
        self._exact.setdefault(entry, place)
        network = parse_network(entry)
        if network is not None:
            self._exact.setdefault((network.version, network.bits, network.prefix), place)
            if (network.version, network.bits) not in self._prefixes:
                self._prefixes.append((network.version, network.bits))

    def _find_network(self, key: str) -> list[int]:
        address = parse_network(key)
        if address is None:
            return self._equal(key)
        wanted = [
            (version, bits, address.number >> (address.width - bits))
            for version, bits in self._prefixes
            if version == address.version
        ]
        return self._equal(key, *wanted)

    def _add_address(self, place: int, entry: str) -> None:
        user, domain = split_address(entry)
        if "*" in domain:
            self._slow.append((place, lambda key: self._match_address(key, user, domain)))
        else:
            self._exact.setdefault((user, domain), place)

    def _match_address(self, key: str, user: str, pattern: str) -> bool:
        key_user, key_domain = split_address(key)
        if user and self._delimiter not in user:
            key_user = key_user.partition(self._delimiter)[0]
        return match_domain(key_domain, pattern) and (not user or user == key_user)

    def _find_address(self, key: str) -> list[int]:
        """Look for `@`, `@domain`, `user` and `user@domain`, the user with and without its tag."""
        user, domain = split_address(key)
        bare = user.partition(self._delimiter)[0]
        users = dict.fromkeys(("", user, bare))
        wanted = [(one, where) for one in users for where in dict.fromkeys(("", domain))]
        return self._equal(*wanted) + self._find_slow(key)

    def _add_regex(self, place: int, entry: str) -> None:
        ignore_case = entry.startswith(IGNORE_CASE)
        pattern = entry[len(IGNORE_CASE) :] if ignore_case else entry
        try:
            compiled = compile_extended(pattern, ignore_case=ignore_case)
        except RegexError:
            return  # as in the original, it matches nothing
        self._slow.append((place, lambda key: compiled.search(key) is not None))

    def _find_regex(self, key: str) -> list[int]:
        return self._find_slow(key)
