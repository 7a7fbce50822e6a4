"""The `action` statement.

`wrapper` with mbox is accepted with a warning and has no effect; the original crashes on it.

Source: smtpd.conf(5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Dict, Optional, Union

from smtpd_core.config.draft import ANY_KIND, LISTS, MAPPINGS, Draft
from smtpd_core.config.model import LocalAction, Method, RelayAction, RelayTls, Service
from smtpd_core.config.operands import check_use, filter_operand, table_operand
from smtpd_core.config.quantities import QuantityError, parse_delay

if TYPE_CHECKING:
    from smtpd_core.config.tokens import TokenStream

_TWICE = "already specified for this dispatcher"


def action(tokens: TokenStream, draft: Draft) -> None:
    """Read an `action` statement and add what it declares."""
    name = tokens.string()
    if name in draft.actions:
        raise tokens.refuse(f"dispatcher already declared with that name: {name}")
    read: Union[LocalAction, RelayAction]
    if tokens.accept("relay"):
        relay = _RelayReader(tokens, draft, RelayAction(name, tokens.statement))
        while tokens.peek() in _RELAY_OPTIONS:
            _RELAY_OPTIONS[tokens.take().kind](relay)
        read = replace(relay.action, ttl_seconds=_ttl(tokens))
    else:
        local = _LocalReader(tokens, draft, _method(tokens, name))
        while tokens.peek() in _LOCAL_OPTIONS:
            _LOCAL_OPTIONS[tokens.take().kind](local)
        read = replace(local.action, ttl_seconds=_ttl(tokens))
        if read.wrapper is not None and read.method is Method.MBOX:
            tokens.warn(f'action "{name}": a wrapper has no effect on mbox')
    draft.actions[name] = read


def _ttl(tokens: TokenStream) -> Optional[int]:
    """Read what may come after all other options."""
    ttl_seconds: Optional[int] = None
    while tokens.accept("ttl"):
        text = tokens.string()
        if ttl_seconds is not None:
            raise tokens.refuse(f"ttl {_TWICE}")
        try:
            ttl_seconds = parse_delay(text)
        except QuantityError:
            raise tokens.refuse(f'ttl delay "{text}" is invalid') from None
    return ttl_seconds


def _method(tokens: TokenStream, name: str) -> LocalAction:
    """Read how a local action delivers, up to its options."""
    kind = tokens.peek()
    if kind not in _METHODS:
        raise tokens.syntax_error()
    read = LocalAction(name, tokens.statement, _METHODS[tokens.take().kind])
    if read.method is Method.MAILDIR:
        path = tokens.optional_string() or ""
        return replace(read, argument=path, junk=tokens.accept("junk"))
    if read.method is Method.LMTP:
        destination = tokens.string()
        return replace(read, argument=destination, rcpt_to=tokens.accept("rcpt-to"))
    if read.method is Method.MDA:
        return replace(read, argument=tokens.string())
    return read


class _LocalReader:
    """The options of a local action, as far as they were read."""

    def __init__(self, tokens: TokenStream, draft: Draft, read: LocalAction) -> None:
        self.tokens = tokens
        self.draft = draft
        self.action = read

    def user(self) -> None:
        user = self.tokens.string()
        if self.action.method is Method.MBOX:
            raise self.tokens.refuse("user may not be specified for this dispatcher")
        if self.action.method in (Method.FORWARD_ONLY, Method.EXPAND_ONLY):
            method = self.action.method.value
            raise self.tokens.refuse(f"user may not be specified for {method}")
        self._once("user", self.action.user)
        self.action = replace(self.action, user=user)

    def alias(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self._once("alias mapping", self.action.alias)
        self._once("virtual mapping", self.action.virtual)
        name = check_use(self.tokens, table, MAPPINGS, Service.ALIAS, "alias")
        self.action = replace(self.action, alias=name)

    def virtual(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self._once("virtual mapping", self.action.virtual)
        self._once("alias mapping", self.action.alias)
        name = check_use(self.tokens, table, MAPPINGS, Service.ALIAS, "virtual")
        self.action = replace(self.action, virtual=name)

    def userbase(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self._once("userbase mapping", self.action.userbase)
        name = check_use(self.tokens, table, MAPPINGS, Service.USERINFO, "userbase")
        self.action = replace(self.action, userbase=name)

    def wrapper(self) -> None:
        name = self.tokens.string()
        if name not in self.draft.wrappers:
            raise self.tokens.refuse(f"no mda wrapper with that name: {name}")
        if self.action.wrapper is not None:
            self.tokens.warn(f'action "{self.action.name}": only the last wrapper is used')
        self.action = replace(self.action, wrapper=name)

    def _once(self, option: str, given: Optional[str]) -> None:
        if given is not None:
            raise self.tokens.refuse(f"{option} {_TWICE}")


class _RelayReader:
    """The options of a relay, as far as they were read."""

    def __init__(self, tokens: TokenStream, draft: Draft, read: RelayAction) -> None:
        self.tokens = tokens
        self.draft = draft
        self.action = read

    def helo(self) -> None:
        self.action = replace(self.action, helo=self._word("helo", self.action.helo))

    def helo_src(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self._once("helo-source mapping", self.action.helo_src)
        name = check_use(self.tokens, table, MAPPINGS, Service.ADDRNAME, "helo-source")
        self.action = replace(self.action, helo_src=name)

    def pki(self) -> None:
        self.action = replace(self.action, pki=self._word("pki", self.action.pki).lower())

    def ca(self) -> None:
        self.action = replace(self.action, ca=self._word("ca", self.action.ca).lower())

    def ciphers(self) -> None:
        self.action = replace(self.action, ciphers=self._word("ciphers", self.action.ciphers))

    def protocols(self) -> None:
        protocols = self._word("protocols", self.action.protocols)
        self.action = replace(self.action, protocols=protocols)

    def src(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self._once("source mapping", self.action.src)
        name = check_use(self.tokens, table, ANY_KIND, Service.SOURCE, "source")
        self.action = replace(self.action, src=name)

    def mail_from(self) -> None:
        mail_from = self._word("mail-from", self.action.mail_from)
        self.action = replace(self.action, mail_from=mail_from)

    def backup(self) -> None:
        mx = self.tokens.string() if self.tokens.accept("mx") else None
        if self.action.backup:
            raise self.tokens.refuse(f"backup {_TWICE}")
        if self._smarthost is not None:
            raise self.tokens.refuse("backup and host are mutually exclusive")
        self.action = replace(self.action, backup=True, backup_mx=mx)

    def host(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self._exclusive("host")
        name = check_use(self.tokens, table, LISTS, Service.RELAYHOST, "host")
        self.action = replace(self.action, host=name)

    def domain(self) -> None:
        table = table_operand(self.tokens, self.draft)
        self._exclusive("domain")
        name = check_use(self.tokens, table, MAPPINGS, Service.RELAYHOST, "host")
        self.action = replace(self.action, domain=name)

    def tls(self) -> None:
        mode = RelayTls.NO_VERIFY if self.tokens.accept("no-verify") else RelayTls.VERIFY
        if self.action.tls is not RelayTls.OPPORTUNISTIC:
            raise self.tokens.refuse(f"tls {_TWICE}")
        self.action = replace(self.action, tls=mode)

    def auth(self) -> None:
        table = table_operand(self.tokens, self.draft)
        if self._smarthost is None:
            raise self.tokens.refuse("auth may not be specified without host on a dispatcher")
        self._once("auth mapping", self.action.auth)
        name = check_use(self.tokens, table, MAPPINGS, Service.CREDENTIALS, "auth")
        self.action = replace(self.action, auth=name)

    def filter(self) -> None:
        twice = None if self.action.filter is None else f"filter {_TWICE}"
        name = filter_operand(self.tokens, self.draft, twice)
        self.action = replace(self.action, filter=name)

    def srs(self) -> None:
        if self.draft.srs.key is None:
            raise self.tokens.refuse("an srs key is required for srs to be specified in an action")
        if self.action.srs:
            raise self.tokens.refuse(f"srs {_TWICE}")
        self.action = replace(self.action, srs=True)

    @property
    def _smarthost(self) -> Optional[str]:
        return self.action.host or self.action.domain

    def _exclusive(self, option: str) -> None:
        self._once("host mapping", self._smarthost)
        if self.action.backup:
            raise self.tokens.refuse(f"backup and {option} are mutually exclusive")

    def _word(self, option: str, given: Optional[str]) -> str:
        word = self.tokens.string()
        self._once(option, given)
        return word

    def _once(self, option: str, given: Optional[str]) -> None:
        if given is not None:
            raise self.tokens.refuse(f"{option} {_TWICE}")


_METHODS = {method.value: method for method in Method}

_LOCAL_OPTIONS: Dict[str, Callable[[_LocalReader], None]] = {
    "user": _LocalReader.user,
    "alias": _LocalReader.alias,
    "virtual": _LocalReader.virtual,
    "userbase": _LocalReader.userbase,
    "wrapper": _LocalReader.wrapper,
}

_RELAY_OPTIONS: Dict[str, Callable[[_RelayReader], None]] = {
    "helo": _RelayReader.helo,
    "helo-src": _RelayReader.helo_src,
    "pki": _RelayReader.pki,
    "ca": _RelayReader.ca,
    "ciphers": _RelayReader.ciphers,
    "protocols": _RelayReader.protocols,
    "src": _RelayReader.src,
    "mail-from": _RelayReader.mail_from,
    "backup": _RelayReader.backup,
    "host": _RelayReader.host,
    "domain": _RelayReader.domain,
    "tls": _RelayReader.tls,
    "auth": _RelayReader.auth,
    "filter": _RelayReader.filter,
    "srs": _RelayReader.srs,
}
