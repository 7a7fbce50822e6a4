"""The TLS of listeners: contexts from certificates, and which certificate a client gets.

Contexts are made while files can still be read; afterwards nothing here opens one. A listener
with several certificates has a context for each: the first serves whoever asks for no name or a
strange one, the others those who ask for a name in them.

`dhe` has no effect: Python cannot make OpenSSL choose Diffie-Hellman groups, and every client of
this century agrees on elliptic curves.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Dict, Iterator, List, Optional

from smtpd_core.cursor import Cursor, CursorError
from smtpd_core.net.contexts import ContextError, restrict

if TYPE_CHECKING:
    from smtpd_core.config.model import Config, Listener, Pki
    from smtpd_core.net.stream import TlsFacts

MAX_NAMES = 1000  # in one certificate
_ALT_NAME = b"\x06\x03\x55\x1d\x11"  # the object identifier 2.5.29.17, encoded
_OCTET_STRING, _SEQUENCE, _BOOLEAN, _DNS_NAME = 0x04, 0x30, 0x01, 0x82


def server_context(listener: Listener, config: Config) -> ssl.SSLContext:
    """Make the context of a listener that has certificates. Raises ContextError."""
    contexts = [_context(listener, config, config.pkis[name]) for name in listener.pki]
    if not contexts:
        raise ContextError("a listener with TLS has no certificate")
    first = contexts[0]
    if len(contexts) > 1:
        by_name: Dict[str, ssl.SSLContext] = {}
        for name, context in zip(listener.pki, contexts):
            for each in (name, *_names(config.pkis[name])):
                by_name.setdefault(each.lower(), context)

        def choose(handshake: ssl.SSLObject, name: Optional[str], _: ssl.SSLContext) -> None:
            chosen = find_by_name(by_name, name or "")
            if chosen is not None:
                handshake.context = chosen

        first.sni_callback = choose
    return first


def find_by_name(by_name: Dict[str, ssl.SSLContext], name: str) -> Optional[ssl.SSLContext]:
    """Find what a host name is served by: itself, else a `*` in place of its first label."""
    name = name.lower()
    return by_name.get(name) or by_name.get("*." + name.partition(".")[2])


def description(facts: TlsFacts, *, required: bool) -> str:
    """Describe a session for its trace fields; required is whether a certificate was asked for."""
    return f"{facts.description}:{'YES' if required else 'NO'}"


def _context(listener: Listener, config: Config, pki: Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        restrict(context, listener.ciphers or config.smtp.ciphers, listener.protocols)
        _load(context, pki)
        if listener.verify:
            context.verify_mode = ssl.CERT_REQUIRED
            _trust(context, listener, config)
    except ssl.SSLError as error:
        why = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
        raise ContextError(f"pki {pki.name}: {why}") from error
    except (OSError, ValueError) as error:
        raise ContextError(f"pki {pki.name}: {error}") from error
    return context


def _load(context: ssl.SSLContext, pki: Pki) -> None:
    if pki.cert is None or pki.key is None:
        raise ContextError(f"pki {pki.name}: a certificate or its key is missing")
    # Without a password to give, OpenSSL would ask the terminal for one and wait.
    context.load_cert_chain(pki.cert, pki.key, password=lambda: "")


def _trust(context: ssl.SSLContext, listener: Listener, config: Config) -> None:
    if listener.ca is not None:
        context.load_verify_locations(config.cas[listener.ca].cert)
    else:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)


# The names in a certificate. The standard library tells those of peers only.


def _names(pki: Pki) -> List[str]:
    assert pki.cert is not None  # it was loaded
    with open(pki.cert, encoding="latin-1") as file:
        pem = file.read()
    start = pem.find(ssl.PEM_HEADER)
    end = pem.find(ssl.PEM_FOOTER, start) + len(ssl.PEM_FOOTER)
    return certificate_names(ssl.PEM_cert_to_DER_cert(pem[start:end]))


def certificate_names(certificate: bytes) -> List[str]:
    """Give the DNS names of a certificate's subjectAltName; none when there is no such thing.

    Source: RFC 5280 section 4.2.1.6.
    """
    place = certificate.find(_ALT_NAME)
    if place < 0:
        return []
    try:
        return list(_dns_names(Cursor(certificate[place + len(_ALT_NAME) :])))
    except CursorError:
        return []


def _dns_names(cursor: Cursor) -> Iterator[str]:
    tag, value = _element(cursor)
    if tag == _BOOLEAN:  # critical
        tag, value = _element(cursor)
    if tag != _OCTET_STRING:
        return
    tag, value = _element(Cursor(value))
    if tag != _SEQUENCE:
        return
    names = Cursor(value)
    for _ in range(MAX_NAMES):
        if not names.remaining:
            return
        tag, value = _element(names)
        if tag == _DNS_NAME:
            yield value.decode("latin-1")


def _element(cursor: Cursor) -> tuple[int, bytes]:
    """Read one element of DER: its tag and its content. Raises CursorError."""
    tag, length = cursor.u8(), cursor.u8()
    if length & 0x80:
        length = int.from_bytes(cursor.take(length & 0x7F), "big")
    return tag, cursor.take(length)
