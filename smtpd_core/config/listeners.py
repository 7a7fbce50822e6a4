"""The `listen` statement.

Differs from the original in two points. The name of a certificate is compared without regard to
case, as in 6.8; 7.8 lowers it where it is declared and not where it is used. An address of the
other family than `inet4` or `inet6` asks for is refused; the original warns and listens nowhere.

Source: smtpd.conf(5).
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Dict, Optional, Sequence, Set, Tuple

from smtpd_core.config.draft import MAPPINGS, Draft, may_be_used
from smtpd_core.config.lexer import NUMBER
from smtpd_core.config.model import (
    ListenAuth,
    Listener,
    ListenTls,
    Service,
    SocketListener,
    Table,
)
from smtpd_core.config.operands import filter_operand, optional_table, table_operand
from smtpd_core.text import encode

if TYPE_CHECKING:
    from smtpd_core.config.tokens import TokenStream

MAX_TAG = 32  # octets, what an envelope has room for in the original
MAX_PKIS = 32  # certificates of one listener
MAX_PORT = 65535

SMTP_PORT = 25
SMTPS_PORT = 465


def listen(tokens: TokenStream, draft: Draft) -> None:
    """Read a `listen` statement and add its listener."""
    tokens.expect("on")
    if tokens.accept("socket"):
        _listen_on_socket(tokens, draft)
    else:
        _listen_on_interface(tokens, draft)


class _Reader:
    """The options of one listener, as far as they were read."""

    def __init__(self, tokens: TokenStream, draft: Draft, interface: str) -> None:
        self.tokens = tokens
        self.draft = draft
        self.listener = Listener(tokens.statement, interface, port=0)
        self._seen: Set[str] = set()

    def once(self, option: str) -> None:
        """Refuse an option that was given before."""
        if option in self._seen:
            raise self.tokens.refuse(f"{option} already specified")
        self._seen.add(option)

    def read(self, options: Dict[str, Callable[[_Reader], None]]) -> None:
        """Read options as long as there are any."""
        while self.tokens.peek() in options:
            options[self.tokens.take().kind](self)

    def family(self, family: int) -> None:
        self.once("address family")
        self.listener = replace(self.listener, family=family)

    def port(self) -> None:
        kind = self.tokens.peek()
        if kind == NUMBER:
            port: Optional[int] = self.tokens.take().number
            name = str(port)
        elif kind in ("smtp", "smtps"):
            name = self.tokens.take().kind
            port = self.draft.machine.port(name)
        else:
            name = self.tokens.string()
            port = self.draft.machine.port(name)
        self.once("port")
        if port is None or not 0 < port <= MAX_PORT:
            raise self.tokens.refuse(f"invalid port: {name}")
        self.listener = replace(self.listener, port=port)

    def filter(self) -> None:
        twice = "filter already specified" if "filter" in self._seen else None
        self._seen.add("filter")
        name = filter_operand(self.tokens, self.draft, twice)
        self.listener = replace(self.listener, filter=name)

    def tls(self, mode: ListenTls) -> None:
        verify = mode is not ListenTls.OFFERED and self.tokens.accept("verify")
        self.once("TLS mode")
        self.listener = replace(self.listener, tls=mode, verify=verify)

    def ciphers(self) -> None:
        ciphers = self.tokens.string()
        self.once("ciphers")
        self.listener = replace(self.listener, ciphers=ciphers)

    def protocols(self) -> None:
        protocols = self.tokens.string()
        self.once("protocols")
        self.listener = replace(self.listener, protocols=protocols)

    def pki(self) -> None:
        name = self.tokens.string()
        if len(self.listener.pki) == MAX_PKIS:
            raise self.tokens.refuse("too many pki specified")
        self.listener = replace(self.listener, pki=(*self.listener.pki, name))

    def ca(self) -> None:
        name = self.tokens.string()
        self.once("ca")
        self.listener = replace(self.listener, ca=name)

    def auth(self, auth: ListenAuth) -> None:
        table = optional_table(self.tokens, self.draft)
        self.once("auth")
        if table is not None and not may_be_used(table, MAPPINGS, Service.CREDENTIALS):
            self.tokens.warn(f'table "{table.name}" holds no credentials: nobody can log in')
        name = None if table is None else table.name
        self.listener = replace(self.listener, auth=auth, auth_table=name)

    def tag(self) -> None:
        tag = self.tokens.string()
        self.once("tag")
        if len(encode(tag)) > MAX_TAG:
            raise self.tokens.refuse("tag name too long")
        self.listener = replace(self.listener, tag=tag)

    def hostname(self) -> None:
        hostname = self.tokens.string()
        self.once("hostname")
        self.listener = replace(self.listener, hostname=hostname)

    def hostnames(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self.once("hostnames")
        name = self._parameter(table, Service.ADDRNAME, "HOSTNAMES")
        self.listener = replace(self.listener, hostnames=name)

    def senders(self) -> None:
        table = table_operand(self.tokens, self.draft)
        masquerade = self.tokens.accept("masquerade")
        self.once("senders")
        name = self._parameter(table, Service.MAILADDRMAP, "SENDERS")
        self.listener = replace(self.listener, senders=name, masquerade=masquerade)

    def mask_src(self) -> None:
        self.once("mask-source")
        self.listener = replace(self.listener, mask_src=True)

    def received_auth(self) -> None:
        self.once("received-auth")
        self.listener = replace(self.listener, received_auth=True)

    def no_dsn(self) -> None:
        self.once("no-dsn")
        self.listener = replace(self.listener, dsn=False)

    def proxy_v2(self) -> None:
        self.once("proxy-v2")
        self.listener = replace(self.listener, proxy_v2=True)

    def _parameter(self, table: Table, service: Service, parameter: str) -> str:
        if not may_be_used(table, MAPPINGS, service):
            raise self.tokens.refuse(
                f'invalid use of table "{table.name}" as {parameter} parameter'
            )
        return table.name


_SOCKET_OPTIONS: Dict[str, Callable[[_Reader], None]] = {
    "filter": _Reader.filter,
    "mask-src": _Reader.mask_src,
    "no-dsn": _Reader.no_dsn,
    "tag": _Reader.tag,
}

_INTERFACE_OPTIONS: Dict[str, Callable[[_Reader], None]] = {
    **_SOCKET_OPTIONS,
    "inet4": lambda reader: reader.family(4),
    "inet6": lambda reader: reader.family(6),
    "port": _Reader.port,
    "smtps": lambda reader: reader.tls(ListenTls.IMMEDIATE),
    "tls": lambda reader: reader.tls(ListenTls.OFFERED),
    "tls-require": lambda reader: reader.tls(ListenTls.REQUIRED),
    "ciphers": _Reader.ciphers,
    "protocols": _Reader.protocols,
    "pki": _Reader.pki,
    "ca": _Reader.ca,
    "auth": lambda reader: reader.auth(ListenAuth.REQUIRED),
    "auth-optional": lambda reader: reader.auth(ListenAuth.OPTIONAL),
    "hostname": _Reader.hostname,
    "hostnames": _Reader.hostnames,
    "received-auth": _Reader.received_auth,
    "proxy-v2": _Reader.proxy_v2,
    "senders": _Reader.senders,
}


def _listen_on_socket(tokens: TokenStream, draft: Draft) -> None:
    reader = _Reader(tokens, draft, "socket")
    reader.read(_SOCKET_OPTIONS)
    if draft.socket is not None:
        raise tokens.refuse("socket listener already configured")
    read = reader.listener
    draft.socket = SocketListener(
        read.where, tag=read.tag, mask_src=read.mask_src, dsn=read.dsn, filter=read.filter
    )


def _listen_on_interface(tokens: TokenStream, draft: Draft) -> None:
    reader = _Reader(tokens, draft, tokens.string())
    reader.read(_INTERFACE_OPTIONS)
    listener = reader.listener
    secure = listener.tls is not ListenTls.NONE
    if listener.auth is not ListenAuth.NONE and not secure:
        raise tokens.fatal("invalid listen option: auth requires tls/smtps")
    if listener.pki and not secure:
        raise tokens.fatal("invalid listen option: pki requires tls/smtps")
    if secure and not listener.pki:
        raise tokens.fatal("invalid listen option: pki required for tls/smtps")
    immediate = listener.tls is ListenTls.IMMEDIATE
    port = listener.port or (SMTPS_PORT if immediate else SMTP_PORT)
    addresses = _addresses(tokens, draft, listener)
    for name in listener.pki:
        if name.lower() not in draft.pkis:
            raise tokens.fatal(f"pki name not found: {name}")
    if listener.ca is not None and listener.ca.lower() not in draft.cas:
        raise tokens.fatal(f"ca name not found: {listener.ca}")
    draft.listeners.append(
        replace(
            listener,
            port=port,
            addresses=addresses,
            pki=tuple(name.lower() for name in listener.pki),
            ca=listener.ca and listener.ca.lower(),
        )
    )


def _addresses(tokens: TokenStream, draft: Draft, listener: Listener) -> Tuple[str, ...]:
    """Give the addresses to listen on, of the family that was asked for."""
    ask = draft.machine.addresses
    found: Sequence[str] = ()
    if _family(listener.interface):
        found = (listener.interface,)
    elif ask is None:
        return ()
    else:
        found = ask(listener.interface)
    wanted = (listener.family,) if listener.family else (4, 6)
    addresses = tuple(address for address in found if _family(address) in wanted)
    if not addresses:
        raise tokens.fatal(f"invalid virtual ip or interface: {listener.interface}")
    return addresses


def _family(address: str) -> int:
    """Tell 4 or 6 for an address, 0 for anything else."""
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
