"""TLS contexts: what `ciphers` and `protocols` mean to OpenSSL, and the contexts of clients.

Make them while files can still be read: a context opens nothing later.
"""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass
from typing import Optional

from smtpd_core.config.protocols import DEFAULT, parse_protocols
from smtpd_core.errors import SmtpdError

_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
# The names libtls gives to choices of ciphers. Source: tls_config_set_ciphers(3).
_AEAD = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
_CIPHERS = {
    "secure": _AEAD,
    "default": _AEAD,
    "compat": "HIGH:!aNULL",
    "legacy": "HIGH:MEDIUM:!aNULL",
    "insecure": "ALL:!aNULL:!eNULL",
    "all": "ALL:!aNULL:!eNULL",
}


class ContextError(SmtpdError):
    """A certificate, a key or an option that cannot be used."""


@dataclass(frozen=True)
class ClientTls:
    """What a client's TLS is made from; files by name, ca None is the system's authorities."""

    cert: Optional[str] = None
    key: Optional[str] = None
    ca: Optional[str] = None
    ciphers: Optional[str] = None
    protocols: Optional[str] = None


def restrict(
    context: ssl.SSLContext, ciphers: Optional[str] = None, protocols: Optional[str] = None
) -> None:
    """Allow the versions from the oldest named to the newest, and the ciphers named.

    OpenSSL has no gaps between versions. Raises ssl.SSLError and ProtocolsError.
    """
    wanted = sorted(parse_protocols(protocols or "default") or DEFAULT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # who asks for TLSv1 knows
        context.minimum_version = _VERSIONS[wanted[0]]
        context.maximum_version = _VERSIONS[wanted[-1]]
    if ciphers:
        context.set_ciphers(_CIPHERS.get(ciphers.lower(), ciphers))


def client_context(options: ClientTls, *, verify: bool) -> ssl.SSLContext:
    """Make the context of a client; verify is about the server's certificate and its name.

    Raises ContextError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file = ""
    try:
        restrict(context, options.ciphers, options.protocols)
        if options.cert is not None:
            file = options.cert
            # Without a password to give, OpenSSL would ask the terminal for one and wait.
            context.load_cert_chain(options.cert, options.key, password=lambda: "")
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif options.ca is not None:
            file = options.ca
            context.load_verify_locations(options.ca)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except ssl.SSLError as error:
        # What Python itself refuses has no reason, only a text.
        why = str(getattr(error, "reason", None) or error.args[-1]).replace("_", " ").lower()
        raise ContextError(f"{file}: {why}" if file else why) from error
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ContextError(f"{file}: {why}" if file else why) from error
    return context
