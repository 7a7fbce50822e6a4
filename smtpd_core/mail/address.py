"""Mailboxes, domains and the paths of MAIL and RCPT."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from smtpd_core.errors import FormatError

MAX_LOCAL_PART = 255  # octets; the size of both halves in the spool and on the wire
MAX_DOMAIN = 255  # octets

# What SMTPUTF8 adds to an atom: any character beyond Latin-1's controls, but none that can end a
# line, turn its direction, or (U+3002, U+FF0E, U+FF61) be read as a dot by IDNA.
_WIDE = (
    r"\u00a1-\u061b\u061d-\u200a\u2010-\u2027\u2030-\u2065\u206a-\u3001\u3003-\ud7ff"
    r"\ue000-\uff0d\uff0f-\uff60\uff62-\U0010ffff"
)
_ATOM = r"A-Za-z0-9!#$%&'*/?^`{|}~+=_\-"
_LOCAL_PART = re.compile(rf"[{_ATOM}]+(?:\.[{_ATOM}]+)*")
_WIDE_LOCAL_PART = re.compile(rf"[{_ATOM}{_WIDE}]+(?:\.[{_ATOM}{_WIDE}]+)*")
_HOSTNAME = re.compile(r"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*")
_WIDE_HOSTNAME = re.compile(rf"[A-Za-z0-9_\-{_WIDE}]+(?:\.[A-Za-z0-9_\-{_WIDE}]+)*")


class AddressError(FormatError):
    """A text that is not an address."""


class Address(NamedTuple):
    """A mailbox, or the null reverse-path when both halves are empty."""

    local_part: str
    domain: str

    @property
    def is_null(self) -> bool:
        """Tell whether this is the null reverse-path."""
        return not self.local_part and not self.domain

    def __str__(self) -> str:
        return "" if self.is_null else f"{self.local_part}@{self.domain}"


NULL_ADDRESS = Address("", "")


class Path(NamedTuple):
    """A path that was taken off the front of a command's argument, and what followed it."""

    address: str
    rest: str


def _octets(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def is_local_part(text: str, *, utf8: bool = False) -> bool:
    """Tell whether a text is dot-separated atoms of at most 255 octets; no quoted strings."""
    pattern = _WIDE_LOCAL_PART if utf8 else _LOCAL_PART
    return pattern.fullmatch(text) is not None and _octets(text) <= MAX_LOCAL_PART


def is_address_literal(text: str) -> bool:
    """Tell whether a text is `[v4]`, `[v6]` or `[IPv6:v6]`."""
    if not (text.startswith("[") and text.endswith("]")):
        return False
    literal = text[1:-1]
    if literal[:5].lower() == "ipv6:":
        literal = literal[5:]
        if ":" not in literal:
            return False
    if "%" in literal or not literal.isascii():  # no zones: they mean nothing to a peer
        return False
    try:
        ipaddress.ip_address(literal)
    except ValueError:
        return False
    return True


def is_domain(text: str, *, utf8: bool = False) -> bool:
    """Tell whether a text is a host name or an address literal of at most 255 octets."""
    if _octets(text) > MAX_DOMAIN:
        return False
    pattern = _WIDE_HOSTNAME if utf8 else _HOSTNAME
    return pattern.fullmatch(text) is not None or is_address_literal(text)


def parse_address(text: str, *, default_domain: str = "", utf8: bool = False) -> Address:
    """Read `user@domain`, split at the last `@`; default_domain completes a bare user.

    A source route (`@relay:user@domain`) is dropped, as RFC 5321 section 4.1.1.3 allows; like
    the original, whatever stands before the first colon is taken for one.
    Raises AddressError; never returns the null address.
    """
    local_part, at, domain = text.rpartition("@")
    if not at:
        local_part, domain = domain, ""
    local_part = local_part.partition(":")[2] if ":" in local_part else local_part
    domain = domain or default_domain
    if not is_local_part(local_part, utf8=utf8):
        raise AddressError(f"{text[:64]!r} has no valid local part")
    if not is_domain(domain, utf8=utf8):
        raise AddressError(f"{text[:64]!r} has no valid domain")
    return Address(local_part, domain)


def take_path(argument: str) -> Path:
    """Take the text between `<` and the first `>` off an argument; the rest keeps its blanks.

    Raises AddressError when the argument does not start with a path, or when something other
    than a space follows it.
    """
    argument = argument.lstrip(" \t")
    end = argument.find(">")
    if not argument.startswith("<") or end < 0:
        raise AddressError(f"{argument[:64]!r} does not start with an address in angle brackets")
    rest = argument[end + 1 :]
    if rest and not rest.startswith(" "):
        raise AddressError(f"{argument[:64]!r} goes on behind its address")
    return Path(argument[1:end], rest)
