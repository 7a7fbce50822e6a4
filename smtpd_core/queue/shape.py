"""Recognise, in one step, an envelope in exactly the form that a release writes.

Reading a large queue spends most of its time on envelopes in which nothing is unusual. For them
one regular expression, made from the same tables that parse and write envelopes, does what the
parser does, and gives the few values that a listing shows. Whatever does not match in full, be
it damaged, unusual or merely not ASCII, is left to the parser: the pattern may refuse what is
fine, it never accepts what the parser would complain about.
"""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.queue import fields
from smtpd_core.queue.envelope import BOUNCE_TYPES, FIELDS, HOST_NAME_MAX_LINUX, MDA_METHODS
from smtpd_core.queue.fields import MAILADDR_PART_MAX
from smtpd_core.queue.releases import RELEASES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Optional

# What a listing shows, in the order in which the files have it.
LISTED = (
    "type",
    "errorline",
    "sockaddr",
    "sender",
    "rcpt",
    "dest",
    "ctime",
    "last-try",
    "ttl",
    "retry",
    "flags",
)
# Always there; all other fields may be absent.
_REQUIRED = frozenset(
    (
        *("version", "dispatcher", "type", "helo", "hostname", "sender", "rcpt", "dest"),
        *("ctime", "last-try", "last-bounce", "ttl", "expire", "retry"),
    )
)
_PRINTABLE = r"[ -\[\]-~]"  # ASCII without the backslash, which is spelled in another way
_WORD = r"[!-~][ -~]"  # a value does not begin with a blank: the parser would drop it
_ADDRESS = rf"(?:[!-?A-~][ -?A-~]{{0,{MAILADDR_PART_MAX - 1}}})?"
_DOMAIN = rf"[ -?A-~]{{0,{MAILADDR_PART_MAX}}}"
_HOST = rf"(?:[A-Za-z0-9_.-]{{1,{HOST_NAME_MAX_LINUX}}}|\[[0-9A-Fa-f.:]{{1,60}}\])"
_PORT = "(?::[1-9][0-9]{0,3})?"
_OCTETS_MAX = 7500  # short enough for every release
_FAMILIES_MAX = 4096  # client addresses remembered

_VALUES = {
    "type": "mta|mda|bounce",
    "errorline": rf"(?=[!-~]){_PRINTABLE}{{1,2047}}",
    "sockaddr": r"[!-~]{1,64}",  # what it says is read apart
    "dsn-orcpt": rf"{_WORD}{{0,{MAILADDR_PART_MAX - 1}}}",
    "flags": "authenticated(?: bounce)?(?: internal)?|bounce(?: internal)?|internal",
    "retry": "0|[1-9][0-9]{0,3}",
    "dsn-ret": "FULL|HDRS",
    "mda-method": "|".join(MDA_METHODS),
    "bounce-type": "|".join(BOUNCE_TYPES),
    "mta-relay-flags": "verify(?: tls)?|tls",
    "mta-relay": rf"(?:smtp(?:\+tls|s)?|secure|(?:tls\+)?backup|tls)://{_HOST}{_PORT}"
    rf"|(?:smtps|tls|secure)\+auth://[!-?A-~]{{1,64}}@{_HOST}{_PORT}",
}
# What a release that writes format 2 refuses, though it is fine in format 3.
_VALUES_2 = {
    "sockaddr": r"(?!\[)[!-~]{1,64}",
    "bounce-type": "|".join(old for old, new in BOUNCE_TYPES.items() if old != new),
}


def _value(name: str, version: int) -> str:
    kind, _, limit = FIELDS[name]
    if version < 3 and name in _VALUES_2:
        return _VALUES_2[name]
    if name in _VALUES:
        return _VALUES[name]
    if kind == "number":
        return "[0-9]{1,2}" if limit <= 0xFF else "0|[1-9][0-9]{0,9}"
    if kind == "mailaddr":
        return f"{_ADDRESS}@{_DOMAIN}"
    if kind == "host":
        limit = HOST_NAME_MAX_LINUX
    return f"{_WORD}{{0,{limit - 1}}}"


def compile_shape(version: int) -> re.Pattern[bytes]:
    """Make the pattern for one format, of the newest releases that write it.

    Its groups are LISTED; `ttl` stands for `expire` too.
    """
    import re

    release = [release for release in RELEASES if release.writes == version][-1]
    names = release.order["mta"]
    common = [name for name in names if name in release.order["mda"]]
    common = [name for name in common if name in release.order["bounce"]]
    parts = []
    for name in common:
        value = str(version) if name == "version" else _value(name, version)
        listed = (name == "expire" and "ttl") or name
        value = f"({value})" if listed in LISTED else f"(?:{value})"
        line = f"{name}: {value}\n"
        parts.append(line if name in _REQUIRED else f"(?:{line})?")
    for kind in ("mda", "mta", "bounce"):
        for name in release.order[kind]:
            if name not in common:
                parts.append(f"(?:{name}: (?:{_value(name, version)})\n)?")
    return re.compile("".join(parts).encode())


class Shapes:
    """The patterns of all formats, and the client addresses that were seen to be valid."""

    __slots__ = ("_families", "_patterns")

    def __init__(self) -> None:
        """Compile the patterns of formats 2 and 3; this takes some 10 ms."""
        self._patterns = {b"3": compile_shape(3), b"2": compile_shape(2)}
        self._families: dict[bytes, bytes] = {b"": b"?"}

    def match(self, octets: bytes) -> Optional[tuple[bytes, ...]]:
        """Give the values of LISTED, each spelled as it is written, and empty where absent.

        None when there is anything unusual about the envelope.
        """
        pattern = self._patterns.get(octets[9:10])
        if pattern is None or len(octets) > _OCTETS_MAX:
            return None
        match = pattern.fullmatch(octets)
        return None if match is None else match.groups(b"")

    def family(self, sockaddr: bytes) -> bytes:
        """Tell the family of a client, `?` of none; empty for what is no address."""
        return self._families.get(sockaddr) or self._family(sockaddr)

    def _family(self, sockaddr: bytes) -> bytes:
        """Read a client address, and remember it: most clients come again and again."""
        try:
            family = fields.parse_sockaddr(text.decode(sockaddr))[0].encode()
        except fields.FieldError:
            return b""
        if len(self._families) >= _FAMILIES_MAX:
            self._families = {b"": b"?"}
        self._families[sockaddr] = family
        return family
