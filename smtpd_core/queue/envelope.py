"""The envelope: one recipient's part of a message, and how it is read from its text form.

Three formats exist, all of them lines of `name: value`. One table, FIELDS, says what every name
of every format means and where its value lives in an Envelope; parsing, writing (releases.py),
the fast pattern (shape.py) and the listings all go by it.

parse_envelope is made for rescue: what a release would refuse is read as far as it can be, and
each thing that was wrong is told. A text without anything wrong is understood exactly as the
original's loader understands it: the last of two equal names wins, names are processed in the
order of their octets, an absent field is zero or empty.
Source: OpenSMTPD 5.2.1 to 7.8, envelope.c.
"""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.errors import FormatError
from smtpd_core.queue import fields
from smtpd_core.queue.fields import FieldError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPES = ("mda", "mta", "bounce")
MDA_METHODS = ("mbox", "maildir", "filename", "mda", "lmtp")
# Spellings up to 6.4, and of 6.6 and later.
BOUNCE_TYPES = {
    "error": "failed",
    "warn": "delayed",
    "dsn": "delivered",
    "failed": "failed",
    "delayed": "delayed",
    "delivered": "delivered",
}
HOST_NAME_MAX_LINUX = 64
HOST_NAME_MAX = 255  # OpenBSD, and wherever the system does not say
LINE_LENGTH_MAX = 2047
PATH_LENGTH_MAX = 4095
_NAME_OCTETS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_C_SPACE = " \t\v\f\r"
_TOLD_MAX = 3  # of a kind of damage; a file of rubbish is not worth a line for each of its lines

# Kind of value, and what limits it: the largest number, or the most octets of a text.
#   number limit | time | text limit | host | mailaddr | flags | choice | sockaddr | url | bounce
Field = tuple[str, str, int]
FIELDS: dict[str, Field] = {
    # name: (kind, attribute of Envelope, limit)
    "version": ("number", "version", 64),
    "msgid": ("ignored", "", 0),  # very old format 1 only
    "dispatcher": ("host", "dispatcher", HOST_NAME_MAX),
    "tag": ("text", "tag", 32),
    "type": ("type", "type", 0),
    "smtpname": ("host", "smtpname", HOST_NAME_MAX),
    "helo": ("host", "helo", HOST_NAME_MAX),
    "hostname": ("host", "hostname", HOST_NAME_MAX),
    "username": ("text", "username", 255),
    "errorline": ("text", "errorline", LINE_LENGTH_MAX),
    "sockaddr": ("sockaddr", "sockaddr", 0),
    "sender": ("mailaddr", "sender", 0),
    "rcpt": ("mailaddr", "rcpt", 0),
    "dest": ("mailaddr", "dest", 0),
    "ctime": ("number", "ctime", fields.TIME_MAX),
    "last-try": ("number", "last_try", fields.TIME_MAX),
    "last-bounce": ("number", "last_bounce", fields.TIME_MAX),
    "expire": ("number", "ttl", fields.TIME_MAX),  # formats 1 and 2
    "ttl": ("number", "ttl", fields.TIME_MAX),  # format 3
    "retry": ("number", "retry", 0xFFFF),
    "flags": ("flags", "flags", 0),
    "dsn-notify": ("number", "dsn_notify", 0xFF),
    "dsn-ret": ("ret", "dsn_ret", 0),
    "dsn-envid": ("text", "dsn_envid", 100),
    "dsn-orcpt": ("orcpt", "dsn_orcpt", 511),
    "esc-class": ("number", "esc_class", 0xFF),
    "esc-code": ("number", "esc_code", 0xFF),
    "mda-exec": ("text", "mda_exec", LINE_LENGTH_MAX),
    "mda-subaddress": ("text", "mda_subaddress", 255),
    "mda-user": ("text", "mda_user", 255),
    "mda-buffer": ("text", "mda_buffer", 1023),
    "mda-method": ("method", "mda_method", 0),
    "mda-usertable": ("text", "mda_usertable", 64),
    "mda-delivery-user": ("text", "mda_delivery_user", 255),
    "mta-relay": ("url", "mta_relay", 0),
    "mta-relay-auth": ("text", "mta_relay_auth", 64),
    "mta-relay-cert": ("host", "mta_relay_cert", HOST_NAME_MAX),
    "mta-relay-ca": ("host", "mta_relay_ca", HOST_NAME_MAX),
    "mta-relay-flags": ("relayflags", "mta_relay_flags", 0),
    "mta-relay-heloname": ("host", "mta_relay_heloname", HOST_NAME_MAX),
    "mta-relay-helo": ("text", "mta_relay_helotable", PATH_LENGTH_MAX),  # format 1
    "mta-relay-helotable": ("text", "mta_relay_helotable", PATH_LENGTH_MAX),
    "mta-relay-source": ("text", "mta_relay_source", PATH_LENGTH_MAX),
    "mta-relay-host": ("text", "mta_relay_host", HOST_NAME_MAX),  # 5.2.1
    "mta-relay-port": ("number", "mta_relay_port", 0xFFFF),  # 5.2.1
    "mta-relay-authmap": ("text", "mta_relay_authmap", 64),  # 5.2.1
    "bounce-ttl": ("number", "bounce_ttl", fields.TIME_MAX),  # format 3
    "bounce-expire": ("number", "bounce_ttl", fields.TIME_MAX),  # formats 1 and 2
    "bounce-delay": ("number", "bounce_delay", fields.TIME_MAX),
    "bounce-type": ("bounce", "bounce_type", 0),
}

_RELAY_FLAG_BITS = dict(fields.RELAY_FLAGS + fields.RELAY_FLAGS_521)


class EnvelopeError(FormatError):
    """A text in which nothing of an envelope can be recognised, or a value nobody may write."""


class Envelope:
    """What is stored about one recipient; the union of all formats.

    Text keeps its octets (text.encode gives them back). Times are seconds since the epoch,
    durations seconds. `ttl` is what the file says under `ttl` or `expire`; format 3 says 0 for
    all but bounces, and that does not mean a lifetime of 0. `sender`, `rcpt` and `dest` are
    `local@domain`, the null address `@`, and empty when the file does not say. The run state
    (pending, held, ...) is never stored.
    """

    version: int = 0
    dispatcher: str = ""
    tag: str = ""
    type: str = "mda"
    smtpname: str = ""
    helo: str = ""
    hostname: str = ""
    username: str = ""
    errorline: str = ""
    family: str = ""  # of the client: local, inet4, inet6 or unknown
    address: str = ""
    sender: str = ""
    rcpt: str = ""
    dest: str = ""
    ctime: int = 0
    last_try: int = 0
    last_bounce: int = 0
    ttl: int = 0
    retry: int = 0
    flags: int = 0
    dsn_notify: int = 0
    dsn_ret: str = ""
    dsn_envid: str = ""
    dsn_orcpt: str = ""
    esc_class: int = 0
    esc_code: int = 0
    mda_exec: str = ""
    mda_subaddress: str = ""
    mda_user: str = ""
    mda_buffer: str = ""
    mda_method: str = ""
    mda_usertable: str = ""
    mda_delivery_user: str = ""
    mta_relay: str = ""
    mta_relay_auth: str = ""
    mta_relay_cert: str = ""
    mta_relay_ca: str = ""
    mta_relay_flags: int = 0
    mta_relay_heloname: str = ""
    mta_relay_helotable: str = ""
    mta_relay_source: str = ""
    mta_relay_host: str = ""
    mta_relay_port: int = 0
    mta_relay_authmap: str = ""
    bounce_ttl: int = 0
    bounce_delay: int = 0
    bounce_type: str = "failed"

    # Defaults live in the class: a spool is read an envelope at a time, most fields are absent,
    # and setting 47 slots would cost more than all the rest of parsing.

    def __init__(self, **values: Any) -> None:
        """Take values by attribute; what is not given is as an absent field is."""
        self.__dict__.update(values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Envelope):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in ATTRIBUTES)

    def __hash__(self) -> int:
        return hash((self.ctime, self.sender, self.rcpt, self.dest))

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in sorted(self.__dict__.items())]
        return f"Envelope({', '.join(said)})"

    @property
    def expiry(self) -> int:
        """What the original's listing shows as expiry; in format 3 it is not the truth."""
        return self.ctime + self.ttl


_NUMBERS = ("number", "flags", "relayflags")
ATTRIBUTES = tuple(Envelope.__annotations__)


class Parsed:
    """An envelope, what was wrong with its text, and which names and spellings it uses."""

    __slots__ = ("damage", "envelope", "missing", "names", "octets", "unknown")

    def __init__(self, envelope: Envelope, octets: int) -> None:
        """Start with nothing found wrong in a text of so many octets."""
        self.envelope = envelope
        self.octets = octets
        self.damage: list[str] = []  # what makes every release refuse it
        self.missing: list[str] = []  # names that every release writes, and none asks for
        self.names: dict[str, str] = {}  # name in lower case: value as it stands
        self.unknown: list[tuple[str, str]] = []  # name and value of no release


def parse_envelope(octets: bytes) -> Parsed:
    """Read the text form of an envelope, of any release.

    Raises EnvelopeError when no field of an envelope is found in it at all.
    """
    if not octets:
        raise EnvelopeError("the file is empty")
    parsed = Parsed(Envelope(), len(octets))
    lines = _split(text.decode(octets), parsed.damage)
    values: dict[str, str] = {}
    bad: list[int] = []
    for number, line in lines:
        name, colon, value = line.partition(":")
        name = name.rstrip(_C_SPACE)
        if not colon or not name or not _NAME_OCTETS.issuperset(name):
            bad.append(number)
            continue
        values[name] = value.lstrip(_C_SPACE)
    parsed.damage += [f"line {number} is not `name: value`" for number in bad[:_TOLD_MAX]]
    if len(bad) > _TOLD_MAX:
        parsed.damage.append(f"{len(bad) - _TOLD_MAX} more lines are not `name: value`")
    for name in sorted(values):
        _take(parsed, name, values[name])
    if not parsed.names:
        raise EnvelopeError("nothing in it is a field of an envelope")
    if "version" not in values and "version" in parsed.names:
        parsed.damage.append("the name of the version line is not in lower case")
    _derive(parsed)
    return parsed


def _split(content: str, damage: list[str]) -> list[tuple[int, str]]:
    """Split into numbered lines; tell what breaks the rules of lines."""
    if "\0" in content:
        damage.append("it contains NUL octets")
        content = content.replace("\0", "")
    if content[-1:] != "\n":
        damage.append("the last line has no line end: the file may be cut")
        content += "\n"
    lines = content[:-1].split("\n")
    if all(line.endswith("\r") for line in lines):
        damage.append("its lines end in CR LF")
        lines = [line[:-1] for line in lines]
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line]
    if len(numbered) < len(lines):
        damage.append("it contains an empty line")
    return numbered


def _take(parsed: Parsed, name: str, value: str) -> None:
    """Put one value where FIELDS says; tell what cannot be read."""
    lowered = name.lower()
    field = FIELDS.get(lowered)
    if field is None:
        parsed.unknown.append((name, value))
        return
    kind, attribute, limit = field
    parsed.names[lowered] = value
    try:
        if kind == "sockaddr":
            parsed.envelope.family, parsed.envelope.address = fields.parse_sockaddr(value)
        elif kind == "flags":  # two spellings of the name add up
            parsed.envelope.flags |= fields.parse_flags(value)
        elif attribute:
            setattr(parsed.envelope, attribute, _value(kind, value, limit))
    except FieldError as error:
        parsed.damage.append(f"field {lowered}: {error}")
        if kind not in _NUMBERS and kind not in _CHOICES and kind != "sockaddr":
            setattr(parsed.envelope, attribute, value)  # show it as it stands


# By their spelling in lower case: the original compares without regard to it.
_CHOICES: dict[str, dict[str, str]] = {
    "type": {name: name for name in TYPES},
    "ret": {"full": "FULL", "hdrs": "HDRS"},
    "method": {name: name for name in MDA_METHODS},
    "bounce": BOUNCE_TYPES,
}


def _value(kind: str, value: str, limit: int) -> Any:
    """Read one value of a kind that stands for itself; raises FieldError."""
    if kind == "number":
        return fields.parse_number(value, limit)
    if kind == "mailaddr":
        return fields.parse_mailaddr(value)
    if kind in _CHOICES:
        chosen = _CHOICES[kind].get(value.lower())
        if chosen is None:
            raise FieldError(f"'{value[:40]}' is not one of {', '.join(_CHOICES[kind])}")
        return chosen
    if kind == "relayflags":
        return fields.parse_flags(value, _RELAY_FLAG_BITS)
    if kind == "url":
        return fields.parse_relay_url(value)
    if fields.octet_length(value) > limit:
        raise FieldError(f"longer than {limit} octets")
    return value


def _derive(parsed: Parsed) -> None:
    """Complain about what every release writes and this text lacks, and what none writes."""
    if "version" not in parsed.names:
        parsed.damage.append("it has no version")
    parsed.missing = [
        name for name in ("type", "sender", "rcpt", "dest", "ctime") if name not in parsed.names
    ]
    for name, _ in parsed.unknown[:_TOLD_MAX]:
        parsed.damage.append(f"field {name[:40]} is of no known release")
    if len(parsed.unknown) > _TOLD_MAX:
        more = len(parsed.unknown) - _TOLD_MAX
        parsed.damage.append(f"{more} more fields are of no known release")
