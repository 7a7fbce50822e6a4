"""What each OpenSMTPD release writes into an envelope file, and what it refuses to read.

A release here stands for all those that share its on-disk form; `Release.name` is the first.
Source: OpenSMTPD envelope.c, to.c and queue_backend.c of each release.
"""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.queue import fields
from smtpd_core.queue.envelope import (
    FIELDS,
    HOST_NAME_MAX_LINUX,
    Envelope,
    EnvelopeError,
    Parsed,
)
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

VALUE_OCTETS_MAX = 8191  # a longer value makes the original's writer fail
_OLD_BOUNCE_TYPES = {"failed": "error", "delayed": "warn", "delivered": "dsn"}
_ORCPT_MAX = 500  # from 7.5 on, where it is one text

# Fields in the order in which they are written: the same for all envelopes, then by type.
_HEAD = "version tag type smtpname helo hostname errorline sockaddr sender rcpt dest ctime"
_TIMES = "last-try last-bounce expire retry flags"
_DSN = "dsn-notify dsn-ret dsn-envid dsn-orcpt esc-class esc-code"
_BOUNCE_1 = "bounce-type bounce-delay bounce-expire"
_BOUNCE_2 = "bounce-expire bounce-delay bounce-type"
_BOUNCE_3 = "bounce-ttl bounce-delay bounce-type"
_RELAY_2 = "mta-relay-flags mta-relay-heloname mta-relay-helotable mta-relay-source"
_FORMAT_3 = (
    "version dispatcher tag type smtpname helo hostname {}errorline sockaddr sender rcpt dest"
    " ctime last-try last-bounce ttl retry flags " + _DSN
)


class Release:
    """The on-disk form of one release, and of those that share it."""

    __slots__ = ("bracketed", "fields", "loads", "name", "octets", "order", "prefixed", "writes")

    def __init__(
        self,
        name: str,
        order: dict[str, str],
        loads: tuple[int, ...],
        sockaddr: str,
        octets: int,
    ) -> None:
        """Take the field order by type, under `all` what comes first.

        `loads` are the formats it reads, the first of them the one it writes. `sockaddr` says
        how it reads IPv6 addresses: `prefixed` (IPv6:addr), `both`, `bracketed`. `octets` is
        the longest file it reads on Linux, 0 where that is not known.
        """
        self.name = name
        self.order = {
            kind: tuple((order["all"] + " " + order[kind]).split()) for kind in ("mda", "mta")
        }
        self.order["bounce"] = tuple((order["all"] + " " + order["bounce"]).split())
        self.fields = frozenset(name for names in self.order.values() for name in names)
        self.loads = loads
        self.writes = loads[0]
        self.prefixed = sockaddr in ("prefixed", "both")
        self.bracketed = sockaddr in ("bracketed", "both")
        self.octets = octets


def _format_2(common: str, mda: str, mta: str) -> dict[str, str]:
    return {"all": common, "mda": mda, "mta": mta, "bounce": _BOUNCE_2}


def _format_3(username: str, mda: str) -> dict[str, str]:
    return {"all": _FORMAT_3.format(username), "mda": mda, "mta": "", "bounce": _BOUNCE_3}


_MDA_2 = "mda-buffer mda-method mda-user mda-usertable"
_MTA_2 = "mta-relay mta-relay-auth mta-relay-cert "
_FORMAT_2_57 = _format_2(
    f"{_HEAD} {_TIMES} {_DSN}", _MDA_2 + " mda-delivery-user", f"{_MTA_2}mta-relay-ca {_RELAY_2}"
)
_FORMAT_1_53 = {
    "all": f"{_HEAD} {_TIMES}".replace("smtpname ", ""),
    "mda": "mda-method mda-usertable mda-buffer mda-user",
    "mta": "mta-relay-source mta-relay-cert mta-relay-auth mta-relay-helo mta-relay",
    "bounce": _BOUNCE_1,
}
_FORMAT_1_521 = {
    "all": f"{_HEAD} {_TIMES}".replace("smtpname ", "")
    .replace("tag ", "", 1)
    .replace("last-bounce ", ""),
    "mda": "mda-method mda-buffer mda-user",
    "mta": "mta-relay-host mta-relay-port mta-relay-cert mta-relay-authmap mta-relay-flags",
    "bounce": "",
}
_MDA_66 = "mda-exec mda-subaddress mda-user"

RELEASES = (
    Release("5.2.1", _FORMAT_1_521, (1,), "prefixed", 0),
    Release("5.3", _FORMAT_1_53, (1,), "prefixed", 0),
    Release(
        "5.4.1",
        _format_2(f"{_HEAD} {_TIMES}", _MDA_2, _MTA_2 + _RELAY_2),
        (2, 1),
        "prefixed",
        0,
    ),
    Release(
        "5.4.2",
        _format_2(f"{_HEAD} {_TIMES} {_DSN}", _MDA_2, _MTA_2 + _RELAY_2),
        (2, 1),
        "prefixed",
        0,
    ),
    Release("5.7", _FORMAT_2_57, (2, 1), "prefixed", 17279),
    Release("6.0.3", _FORMAT_2_57, (2,), "prefixed", 17279),
    Release("6.4", _format_3("", "mda-exec mda-user"), (3,), "prefixed", 7567),
    Release("6.6", _format_3("", _MDA_66), (3,), "both", 7567),
    Release("6.7", _format_3("username ", _MDA_66), (3,), "both", 7567),
    Release("7.3", _format_3("username ", _MDA_66), (3,), "bracketed", 7567),
    Release("7.5", _format_3("username ", _MDA_66), (3,), "bracketed", 7559),
)
_BY_NAME = {release.name: release for release in RELEASES}
# Names people say, and the release in RELEASES that shares their form.
_ALIASES = {
    "5.3.3": "5.3",
    "5.4": "5.3",
    "5.4.6": "5.4.2",
    "5.7.1": "5.7",
    "5.7.3": "5.7",
    "5.9": "5.7",
    "5.9.1": "5.7",
    "6.0": "5.7",
    "6.0.2": "5.7",
    "6.4.2": "6.4",
    "6.8": "6.7",
    "7.4": "7.3",
    "7.6": "7.5",
    "7.7": "7.5",
    "7.8": "7.5",
}


def find_release(name: str) -> Release:
    """Give the release of a name such as `5.7.3` or `6.8`; raises EnvelopeError."""
    release = _BY_NAME.get(_ALIASES.get(name, name))
    if release is None:
        raise EnvelopeError(f"{name} is not a known release; known are {', '.join(_BY_NAME)}")
    return release


def format_envelope(envelope: Envelope, release: Release, server_name: str = "") -> bytes:
    """Write an envelope as a release writes it, octet for octet.

    `server_name` stands in for a missing smtpname, as on loading in the releases that read
    format 1 and write format 2. Raises EnvelopeError for a value with a line end or NUL in it,
    which would become lines of its own (CVE-2020-8794), for a value or a file that is too long,
    and for a format that the release does not read.
    """
    if envelope.version not in release.loads:
        raise EnvelopeError(
            f"{release.name} does not read format {envelope.version},"
            " and nothing converts it to the format that it writes"
        )
    names_server = release.writes == 2 and 1 in release.loads
    lines = []
    for name in release.order[envelope.type]:
        value = _spell(name, envelope, release)
        if name == "version":
            value = str(release.writes)
        elif name == "smtpname" and names_server and not value:
            value = server_name
        if not value:
            continue
        if "\n" in value or "\0" in value or "\r" in value:
            raise EnvelopeError(f"field {name}: a line end or NUL must not be stored")
        limit = FIELDS[name][2] if FIELDS[name][0] in _TEXTS else VALUE_OCTETS_MAX
        if fields.octet_length(value) > limit:
            raise EnvelopeError(f"field {name}: longer than {limit} octets")
        lines.append(f"{name}: {value}\n")
    octets = text.encode("".join(lines))
    octets_max = release.octets or ENVELOPE_OCTETS_MAX  # 0: it is not known
    if len(octets) > octets_max:
        raise EnvelopeError(f"{release.name} reads no file of more than {octets_max} octets")
    return octets


_TEXTS = ("text", "host", "orcpt")  # kinds of value whose limit is in octets


# Numbers that are left out; all others are written when 0 too.
_OMITTED_WHEN = {
    "esc-class": lambda envelope: envelope.esc_class == 0,
    "esc-code": lambda envelope: envelope.esc_class == 0,
    "bounce-ttl": lambda envelope: envelope.bounce_type != "delayed",
    "bounce-expire": lambda envelope: envelope.bounce_type != "delayed",
    "bounce-delay": lambda envelope: envelope.bounce_type != "delayed",
}


def _spell(name: str, envelope: Envelope, release: Release) -> str:
    """Spell the value of one field; empty when the release leaves the field out."""
    kind, attribute, _ = FIELDS[name]
    if kind == "sockaddr":
        return _spell_sockaddr(envelope, release)
    value = getattr(envelope, attribute)
    if kind == "relayflags":
        return _spell_relay_flags(envelope, release)
    if kind == "url":
        return _spell_relay(envelope, release)
    if kind == "number":
        omitted = _OMITTED_WHEN.get(name)
        return "" if omitted is not None and omitted(envelope) else str(value)
    if kind == "flags":
        return fields.format_flags(value)
    return _spell_text(kind, str(value), release)


def _spell_text(kind: str, value: str, release: Release) -> str:
    if kind == "mailaddr":
        return value or "@"
    if kind == "bounce":
        return value if release.bracketed else _OLD_BOUNCE_TYPES[value]
    if kind == "orcpt" and release.name != "7.5":
        local, _, domain = value.rpartition("@")
        return value if local and domain else ""
    return value


# The flag `tls` and the scheme are one thing in a daemon's memory: each is written from both.
_TLS_SCHEMES = {
    "smtp": "tls",
    "smtps": "secure",
    "smtps+auth": "secure+auth",
    "backup": "tls+backup",
}
_TLS_SCHEMES.update({scheme: scheme for scheme in ("tls", "tls+auth", *_TLS_SCHEMES.values())})
_PLAIN_SCHEMES = ("smtp", "smtps", "smtps+auth", "backup")


def _spell_relay_flags(envelope: Envelope, release: Release) -> str:
    flags = envelope.mta_relay_flags
    if release.name == "5.2.1":
        return fields.format_flags(flags, fields.RELAY_FLAGS_521)
    scheme = envelope.mta_relay.partition("://")[0]
    tls = scheme in _TLS_SCHEMES and scheme not in _PLAIN_SCHEMES
    return fields.format_flags(flags | (fields.RELAY_TLS if tls else 0), fields.RELAY_FLAGS)


def _spell_relay(envelope: Envelope, release: Release) -> str:
    scheme, separator, rest = envelope.mta_relay.partition("://")
    if envelope.mta_relay_flags & fields.RELAY_TLS:
        scheme = _TLS_SCHEMES.get(scheme, scheme)
    if release.name == "5.3":
        scheme = scheme.replace("secure", "ssl")
    return f"{scheme}{separator}{rest}"


def _spell_sockaddr(envelope: Envelope, release: Release) -> str:
    if envelope.family == "inet6":
        return f"[{envelope.address}]" if release.bracketed else f"IPv6:{envelope.address}"
    return "local" if envelope.family == "local" else envelope.address


def refusal(parsed: Parsed, release: Release) -> Optional[str]:
    """Say why a release refuses to read what was parsed; None when it reads it.

    What needs the configuration (an unknown dispatcher) or the file's place cannot be known
    here. Damage is refused by every release. Limits are those of Linux.
    """
    envelope = parsed.envelope
    if envelope.version not in release.loads:
        formats = " and ".join(map(str, reversed(release.loads)))
        return f"{release.name} reads format {formats} only"
    if parsed.damage:
        return parsed.damage[0]
    known = release.fields
    if envelope.version == 1:
        known = known | {"msgid"}  # of very old files, and ignored
    if envelope.version < release.writes:
        known = known | _fields_of_format_1()
    for name in parsed.names:
        if name not in known:
            return f"{release.name} does not know the field {name}"
    for check in (_refuses_spelling, _refuses_length, _refuses_session):
        reason = check(parsed, release)
        if reason:
            return reason
    return None


def _fields_of_format_1() -> frozenset[str]:
    return _BY_NAME["5.3"].fields | {"smtpname"}


def _refuses_spelling(parsed: Parsed, release: Release) -> Optional[str]:
    sockaddr = parsed.names.get("sockaddr", "")
    if sockaddr[:1] == "[" and not release.bracketed:
        return f"{release.name} does not read an IPv6 address in brackets"
    if "%" in sockaddr and release.prefixed:
        return f"{release.name} does not read an IPv6 address with a scope"
    if sockaddr[:5].lower() == "ipv6:" and not release.prefixed:
        return f"{release.name} does not read an IPv6 address spelled IPv6:"
    spelled = parsed.names.get("bounce-type", "").lower()
    if spelled in _OLD_BOUNCE_TYPES and not release.bracketed:
        return f"{release.name} does not know the bounce type {spelled}"
    if spelled == "dsn" and release.name in _WITHOUT_DSN:
        return f"{release.name} does not know the bounce type dsn"
    return _refuses_relay(parsed, release)


_WITHOUT_DSN = ("5.2.1", "5.3", "5.4.1")
_WITH_TLS_BACKUP = ("5.7", "6.0.3")


def _refuses_relay(parsed: Parsed, release: Release) -> Optional[str]:
    """Look at the scheme of a relay: what format 1 calls ssl is secure in format 2."""
    scheme = parsed.names.get("mta-relay", "").partition("://")[0].lower()
    foreign = (
        (parsed.envelope.version == 2 and scheme[:3] == "ssl")
        or (release.writes == 1 and scheme[:6] == "secure")
        or (scheme == "tls+backup" and release.name not in _WITH_TLS_BACKUP)
    )
    return f"{release.name} does not know the relay scheme {scheme}" if foreign else None


def _refuses_length(parsed: Parsed, release: Release) -> Optional[str]:
    if release.octets and parsed.octets > release.octets:
        return f"{release.name} reads no file of more than {release.octets} octets"
    for name, value in parsed.names.items():
        if FIELDS[name][0] == "host" and fields.octet_length(value) > HOST_NAME_MAX_LINUX:
            return (
                f"{release.name} on Linux reads no {name} of more than {HOST_NAME_MAX_LINUX} octets"
            )
    orcpt = parsed.names.get("dsn-orcpt", "")
    if release.name == "7.5":
        too_long = fields.octet_length(orcpt) > _ORCPT_MAX
    else:
        local, _, domain = orcpt.rpartition("@")
        longest = max(fields.octet_length(local), fields.octet_length(domain))
        too_long = longest > fields.MAILADDR_PART_MAX
    return f"{release.name} reads no dsn-orcpt as long as this" if too_long else None


def _refuses_session(parsed: Parsed, release: Release) -> Optional[str]:
    if not parsed.envelope.helo:
        return "it has no helo"
    if not parsed.envelope.hostname:
        return "it has no hostname"
    if release.writes == 3 and not parsed.envelope.dispatcher:
        return "it has no dispatcher"
    return None


def readers(parsed: Parsed) -> list[str]:
    """Name the releases that read what was parsed, oldest first."""
    return [release.name for release in RELEASES if refusal(parsed, release) is None]


def common_refusal(parsed: Parsed) -> Optional[str]:
    """Say why no release at all reads what was parsed; None when some release does.

    The reason is the one of the newest release that reads the format.
    """
    reason = None
    for release in reversed(RELEASES):
        refused = refusal(parsed, release)
        if refused is None:
            return None
        if reason is None and parsed.envelope.version in release.loads:
            reason = refused
    return reason or f"there is no format {parsed.envelope.version}"
