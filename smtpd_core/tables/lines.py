"""What the value of a table entry means, for each service that has values.

The entries of services that only compare are in matching; the values of aliases belong to
routing. Source: table(5) and smtpd.conf(5); the limits are those of the original.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from smtpd_core.dns.system import address_text
from smtpd_core.errors import FormatError

MIN_CREDENTIALS = 3  # octets: `u:s`
MAX_CREDENTIALS = 2047  # it has to fit a line of a session
MAX_HOME = 1023
MAX_ID = 0x7FFFFFFF
MAX_RELAY = 1023
MAX_LABEL = 63
MAX_HOST = 255
MAX_SENDERS = 1000  # addresses one user may send as

_ID = re.compile(r"[0-9]{1,10}")
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")
_SCHEME = re.compile(r"([^:/]*)://")
_RELAY_HOST = re.compile(r"\[[^\]]*\]|[A-Za-z0-9_.-]+")
_PORT = re.compile(r"[0-9]{1,5}")


class LineError(FormatError):
    """A value that does not mean what its service needs: the lookup fails for now."""


class Credentials(NamedTuple):
    """Who logs in, and the secret: a hash for listeners, the password itself for relays."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, secret=<secret>)"


class UserInfo(NamedTuple):
    """A user mail can be delivered to."""

    name: str
    uid: int
    gid: int
    home: str


class Tls(enum.Enum):
    """How a connection to a relay is protected."""

    OPPORTUNISTIC = "if offered, not verified"
    STARTTLS = "required, verified"
    SMTPS = "from the first octet, verified"
    NONE = "none"


class RelayHost(NamedTuple):
    """Where mail is relayed to; label names the credentials to log in with."""

    host: str
    port: int
    tls: Tls
    lmtp: bool = False
    label: str = ""


def parse_credentials(key: str, value: str) -> Credentials:
    """Read `user:secret`, or a secret alone, whose user is the key."""
    if not MIN_CREDENTIALS <= len(value) <= MAX_CREDENTIALS:
        raise LineError(f"credentials of {key!r}: {len(value)} characters")
    user, colon, secret = value.partition(":")
    if not colon:
        return Credentials(key, value)
    if not user or not secret:
        raise LineError(f"credentials of {key!r}: no user or no secret")
    return Credentials(user, secret)


def parse_userinfo(key: str, value: str) -> UserInfo:
    """Read `uid:gid:home`; the key is the name of the user."""
    uid, _, rest = value.partition(":")
    gid, _, home = rest.partition(":")
    if not key or not _ID.fullmatch(uid) or not _ID.fullmatch(gid):
        raise LineError(f"user {key!r}: {value[:80]!r} is not uid:gid:home")
    if int(uid) > MAX_ID or int(gid) > MAX_ID:
        raise LineError(f"user {key!r}: an id past {MAX_ID}")
    if not home.startswith("/") or len(home) > MAX_HOME or "\0" in home:
        raise LineError(f"user {key!r}: {home[:80]!r} is no home directory")
    return UserInfo(key, int(uid), int(gid), home)


def parse_source(value: str) -> str:
    """Read an IP address to connect from; brackets and `IPv6:` may be there, a scope too."""
    text = value[1:-1] if value[:1] == "[" and value[-1:] == "]" else value
    tagged = text[:5].lower() == "ipv6:"
    address = address_text(text[5:] if tagged else text)
    if address is None or (tagged and ":" not in address):
        raise LineError(f"{value[:80]!r} is not an IP address")
    return address


def parse_addrname(value: str) -> str:
    """Read the host name that goes with an address."""
    if not _HOST.fullmatch(value) or len(value) > MAX_HOST:
        raise LineError(f"{value[:80]!r} is not a host name")
    return value


def parse_senders(value: str) -> list[str]:
    """Read a comma list of mailaddr entries: `user@domain`, `@domain`, `user`, `@`."""
    entries = [entry for entry in (part.strip() for part in value.split(",")) if entry]
    if not entries:
        raise LineError("no address in a list of senders")
    if len(entries) > MAX_SENDERS:
        raise LineError(f"{len(entries)} addresses in a list of senders")
    for entry in entries:
        if any(letter.isspace() or not letter.isprintable() for letter in entry):
            raise LineError(f"{entry[:80]!r} is not an address")
    return entries


_SCHEMES = {
    "smtp": (Tls.OPPORTUNISTIC, 25),
    "smtp+tls": (Tls.STARTTLS, 25),
    "smtp+notls": (Tls.NONE, 25),
    "smtps": (Tls.SMTPS, 465),
    "lmtp": (Tls.NONE, 0),
}


def parse_relayhost(value: str) -> RelayHost:
    """Read a relay URL: `[scheme://][label@]host[:port]`.

    What follows the host and is no port is not looked at. A label needs protection by TLS.
    """
    if len(value) > MAX_RELAY:
        raise LineError(f"a relay URL of {len(value)} characters")
    match = _SCHEME.match(value)
    scheme = match[1].lower() if match else "smtp"
    rest = value[match.end() :] if match else value
    if scheme not in _SCHEMES or "://" in rest:
        raise LineError(f"{value!r}: unknown scheme")
    tls, port = _SCHEMES[scheme]
    label, at, rest = rest.partition("@") if "@" in rest else ("", "", rest)
    if at and (not label or len(label) > MAX_LABEL or tls not in (Tls.STARTTLS, Tls.SMTPS)):
        raise LineError(f"{value!r}: a label needs smtp+tls:// or smtps://")
    host = _RELAY_HOST.match(rest)
    if host is None or not _is_relay_host(host[0]):
        raise LineError(f"{value!r}: no host")
    rest = rest[host.end() :]
    if rest.startswith(":"):
        port = int(rest[1:]) if _PORT.fullmatch(rest, 1) else 0
        if not 0 < port < 65536:
            raise LineError(f"{value!r}: a bad port")
    if port == 0:
        raise LineError(f"{value!r}: lmtp:// needs a port")
    return RelayHost(host[0], port, tls, lmtp=scheme == "lmtp", label=label)


def _is_relay_host(host: str) -> bool:
    if len(host) > MAX_HOST:
        return False
    if not host.startswith("["):
        return _HOST.fullmatch(host) is not None
    address = host[1:-1]
    tagged = address[:5].lower() == "ipv6:"
    return address_text(address[5:] if tagged else address) is not None
