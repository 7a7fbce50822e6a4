"""The grammars of values in an envelope file: numbers, addresses, flags, relay URLs.

Each kind of value has a parser that raises FieldError, and is spelled back by the formatter of
the same name. Text is what text.decode gives: every octet is kept.
"""

from __future__ import annotations

from smtpd_core.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

FLAG_AUTHENTICATED = 0x01
FLAG_BOUNCE = 0x02
FLAG_INTERNAL = 0x04
# In the order in which releases write them.
FLAGS = (
    ("authenticated", FLAG_AUTHENTICATED),
    ("bounce", FLAG_BOUNCE),
    ("internal", FLAG_INTERNAL),
)
_FLAG_BITS = {**dict(FLAGS), "enqueued": 0}  # the last is accepted, and means nothing

RELAY_VERIFY = 0x01
RELAY_TLS = 0x02
RELAY_FLAGS = (("verify", RELAY_VERIFY), ("tls", RELAY_TLS))
# 5.2.1 keeps the scheme of the relay here.
RELAY_FLAGS_521 = (("smtps", 0x10), ("tls", RELAY_TLS), ("auth", 0x20), ("backup", 0x40))

TIME_MAX = (1 << 63) - 1
MAILADDR_PART_MAX = 255  # octets of a local part, and of a domain
RELAY_URL_MAX = 1023

_DIGITS = frozenset("0123456789")
_NUMBER_DIGITS_MAX = 20  # behind leading zeros, which are fine; no number has more
_HOST_OCTETS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")

# Scheme -> whether it needs a credentials label. The spelling with ssl is that of 5.3 and 5.4.
_RELAY_SCHEMES = {
    "smtp": False,
    "lmtp": False,
    "smtp+tls": False,
    "smtps": False,
    "tls": False,
    "smtps+auth": True,
    "tls+auth": True,
    "secure": False,
    "secure+auth": True,
    "backup": False,
    "tls+backup": False,
    "ssl": False,
    "ssl+auth": True,
}


class FieldError(FormatError):
    """A value that breaks the grammar of its field."""


def octet_length(value: str) -> int:
    """Count octets, which is what the limits of the format are in."""
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogateescape"))


def parse_number(value: str, maximum: int) -> int:
    """Read a decimal number with an optional sign, as C's strtonum does for 0..maximum."""
    digits = value[1:] if value[:1] in ("+", "-") else value
    if not digits or not _DIGITS.issuperset(digits):
        raise FieldError(f"{_shown(value)} is not a number")
    digits = digits.lstrip("0")[: _NUMBER_DIGITS_MAX + 1]  # no more, or int() takes for ever
    number = int(digits or "0")
    if number > maximum or (number and value[0] == "-"):
        raise FieldError(f"{_shown(value)} is not between 0 and {maximum}")
    return number


def parse_mailaddr(value: str) -> str:
    """Read an address into the form that is written: `local@domain`, split at the last @.

    The null address is `@`, an address without domain is `local@`.
    """
    local, at, domain = value.rpartition("@")
    if not at:
        local, domain = domain, ""
    if octet_length(local) > MAILADDR_PART_MAX or octet_length(domain) > MAILADDR_PART_MAX:
        raise FieldError(f"a part of the address is longer than {MAILADDR_PART_MAX} octets")
    return f"{local}@{domain}"


def parse_flags(value: str, bits: Optional[dict[str, int]] = None) -> int:
    """Read a list of flags, separated by exactly one blank, comma or bar each, into bits."""
    bits = _FLAG_BITS if bits is None else bits
    flags = 0
    for token in value.replace(",", " ").replace("|", " ").split(" "):
        bit = bits.get(token.lower())
        if bit is None:
            raise FieldError(f"unknown flag {_shown(token)}" if token else "an empty flag")
        flags |= bit
    return flags


def format_flags(flags: int, names: tuple[tuple[str, int], ...] = FLAGS) -> str:
    """Spell flags in the order in which releases write them."""
    return " ".join([name for name, bit in names if flags & bit])


def parse_sockaddr(value: str) -> tuple[str, str]:
    """Read a client address into (family, address): `local`, `inet4` or `inet6`.

    An IPv6 address may be spelled `IPv6:addr` (up to 6.8), `[addr]` (6.6 and later) or
    `[addr%scope]` (7.3 and later); it is given back bare, in its canonical form.
    """
    if value == "local":
        return "local", ""
    if value[:1] == "[" and value[-1:] == "]":
        address, percent, scope = value[1:-1].partition("%")
        if percent and not (scope and scope.isprintable() and " " not in scope):
            raise FieldError(f"{_shown(value)} has no valid scope")
        return "inet6", _canonical(address, value) + percent + scope
    if value[:5].lower() == "ipv6:":
        return "inet6", _canonical(value[5:], value)
    import _socket

    try:
        packed = _socket.inet_pton(_socket.AF_INET, value)
    except (OSError, ValueError, UnicodeError):
        raise FieldError(f"{_shown(value)} is not a client address") from None
    return "inet4", _socket.inet_ntop(_socket.AF_INET, packed)


def _canonical(address: str, value: str) -> str:
    import _socket

    try:
        packed = _socket.inet_pton(_socket.AF_INET6, address)
    except (OSError, ValueError, UnicodeError):
        raise FieldError(f"{_shown(value)} is not a client address") from None
    return _socket.inet_ntop(_socket.AF_INET6, packed)


def parse_relay_url(value: str) -> str:
    """Check a relay URL of format 1 or 2 and give it as 5.7 would write it.

    The scheme becomes lower case, `ssl` becomes `secure`, no scheme becomes `smtp+tls`, and what
    follows host and port is dropped, as the original does. Source: smtpd.conf(5) of 5.7.
    """
    if octet_length(value) > RELAY_URL_MAX:
        raise FieldError(f"the relay is longer than {RELAY_URL_MAX} octets")
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "smtp+tls", value
    scheme = scheme.lower()
    needs_label = _RELAY_SCHEMES.get(scheme)
    if needs_label is None:
        raise FieldError(f"{_shown(scheme)} is not a scheme of a relay")
    if scheme.startswith("ssl"):
        scheme = "secure" + scheme[3:]
    label, at, host = rest.partition("@")
    if not at:
        label, host = "", rest
    if needs_label != bool(label) or (at and not label):
        raise FieldError(
            f"a relay with {scheme}:// needs a label" if needs_label else "a label without +auth"
        )
    host, port = _parse_relay_host(host)
    if scheme == "lmtp" and not port:
        raise FieldError("an LMTP relay needs a port")
    return f"{scheme}://{label}{at}{host}{port and ':'}{port}"


def _parse_relay_host(text: str) -> tuple[str, str]:
    """Take the host and the port from the front of a text; the port may be empty."""
    if text[:1] == "[":
        end = text.find("]") + 1
        if not end:
            raise FieldError("the bracket of the relay's address is not closed")
    else:
        end = 0
        while end < len(text) and text[end] in _HOST_OCTETS:
            end += 1
    host, rest = text[:end], text[end:]
    if not host:
        raise FieldError("the relay has no host")
    if rest[:1] != ":":
        return host, ""
    digits = 1
    while digits < len(rest) and rest[digits] in _DIGITS:
        digits += 1
    if digits == 1:
        return host, ""
    port = parse_number(rest[1:digits], 65535)
    if port == 0:
        raise FieldError("0 is not a port")
    return host, str(port)


def _shown(value: str) -> str:
    """Quote the beginning of a refused value; whoever prints it escapes it."""
    return f"'{value[:40]}...'" if len(value) > 40 else f"'{value}'"
