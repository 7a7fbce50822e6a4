"""The relay that an envelope of format 1 or 2 names itself.

Its URL has schemes of its own; what they mean is what they meant to the release that wrote them,
but for `secure`, which tried SMTPS and then STARTTLS: here the port decides which of the two.
Client certificates that it names are not offered. Source: smtpd.conf(5) of OpenSMTPD 5.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from smtpd_core.mta.targets import SMTP_PORT, Relay, temporary
from smtpd_core.queue import fields
from smtpd_core.queue.fields import FieldError
from smtpd_core.tables.lines import Tls

if TYPE_CHECKING:
    from smtpd_core.config.model import RelayAction
    from smtpd_core.mail.status import Outcome
    from smtpd_core.queue.envelope import Envelope

SMTPS_PORT = 465
_TLS = {
    "smtp": Tls.NONE,
    "smtp+tls": Tls.OPPORTUNISTIC,
    "lmtp": Tls.NONE,
    "smtps": Tls.SMTPS,
    "tls": Tls.STARTTLS,
    "secure": Tls.STARTTLS,
    "backup": Tls.OPPORTUNISTIC,
    "tls+backup": Tls.STARTTLS,
}
# Release 5.2.1 has flags in place of a scheme: smtps, tls.
_SMTPS_521 = fields.RELAY_FLAGS_521[0][1]
_AUTH_521 = fields.RELAY_FLAGS_521[2][1]
_BACKUP_521 = fields.RELAY_FLAGS_521[3][1]


def stored_relay(envelope: Envelope, action: RelayAction) -> Union[Relay, Outcome]:
    """Give the relay of an envelope whose action routing.stored made."""
    domain = envelope.dest.rpartition("@")[2].lower()
    try:
        url = fields.parse_relay_url(_url(envelope)) if _url(envelope) else ""
    except FieldError:
        return temporary("Cannot parse smarthost", "4.3.5")
    flags = envelope.mta_relay_flags
    verify = bool(flags & fields.RELAY_VERIFY)
    scheme, _, rest = url.partition("://")
    scheme, _, auth = scheme.partition("+") if scheme.endswith("+auth") else (scheme, "", "")
    label, _, place = rest.rpartition("@")
    if auth and action.auth is None:
        return temporary("No auth table for relaying", "4.3.5")
    tls = _TLS[scheme or "smtp+tls"]
    if flags & fields.RELAY_TLS and tls in (Tls.NONE, Tls.OPPORTUNISTIC) and scheme != "lmtp":
        tls = Tls.STARTTLS
    if not url:
        return Relay(action, domain, tls=tls, verify=verify)
    host, port = _host_and_port(place)
    if scheme.endswith("backup"):
        return Relay(action, domain, tls=tls, verify=verify, backup=host)
    if scheme == "secure" and port in (0, SMTPS_PORT):
        tls = Tls.SMTPS
    usual = SMTPS_PORT if tls is Tls.SMTPS else SMTP_PORT
    return Relay(
        action,
        host,
        is_host=True,
        port=port or usual,
        tls=tls,
        verify=verify,
        lmtp=scheme == "lmtp",
        label=label,
    )


def _url(envelope: Envelope) -> str:
    """Give the URL; made from its parts where release 5.2.1 stored these."""
    if not envelope.mta_relay_host:
        return envelope.mta_relay
    flags = envelope.mta_relay_flags
    if flags & _BACKUP_521:
        scheme = "backup"
    elif flags & _SMTPS_521:
        scheme = "secure" if flags & fields.RELAY_TLS else "smtps"
    else:
        scheme = "tls" if flags & fields.RELAY_TLS else "smtp+tls"
    host, port = envelope.mta_relay_host, envelope.mta_relay_port
    if flags & _AUTH_521 and scheme in ("smtps", "secure", "tls"):
        scheme, host = f"{scheme}+auth", f"{host}@{host}"
    return f"{scheme}://{host}:{port}" if port else f"{scheme}://{host}"


def _host_and_port(place: str) -> tuple[str, int]:
    """Part what fields.parse_relay_url has checked."""
    end = place.rfind(":")
    if end < 0 or "]" in place[end:]:
        return place.lower(), 0
    return place[:end].lower(), int(place[end + 1 :])
