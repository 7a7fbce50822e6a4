"""The `match` statement.

Source: smtpd.conf(5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Dict, FrozenSet, NamedTuple, Optional

from smtpd_core.config.draft import ANY_KIND, LISTS, Draft
from smtpd_core.config.model import (
    ANY_DESTINATION,
    ANY_HOST,
    LOCAL_HOST,
    LOCAL_NAMES,
    Criterion,
    Origin,
    Rule,
    Service,
    TableKind,
    Target,
)
from smtpd_core.config.operands import check_use, optional_table, table_operand

if TYPE_CHECKING:
    from smtpd_core.config.tokens import TokenStream

_ANYWHERE = Criterion(table=ANY_HOST)
_TO_ANYONE = Criterion(table=ANY_DESTINATION)


def match(tokens: TokenStream, draft: Draft) -> None:
    """Read a `match` statement and add its rule."""
    reader = _Reader(tokens, draft)
    while True:
        reader.negated = tokens.accept("!")
        if tokens.peek() not in _CRITERIA:
            break
        _CRITERIA[tokens.take().kind](reader)
    if not reader.negated and tokens.accept("reject"):
        draft.rules.append(reader.rule)
        return
    if reader.negated or not tokens.accept("action"):
        raise tokens.syntax_error()
    name = tokens.string()
    if name not in draft.actions:
        raise tokens.refuse(f"no such dispatcher: {name}")
    draft.rules.append(replace(reader.rule, action=name))


class _Lookup(NamedTuple):
    """What a criterion's table must suit, and what it is called when it does not."""

    purpose: str
    service: Service
    kinds: FrozenSet[TableKind] = LISTS
    option: str = ""


class _Reader:
    """The criteria of one rule, as far as they were read."""

    def __init__(self, tokens: TokenStream, draft: Draft) -> None:
        self.tokens = tokens
        self.draft = draft
        self.rule = Rule(tokens.statement)
        self.negated = False
        self._from_seen = False
        self._for_seen = False

    def tag(self) -> None:
        tag = self._table(_Lookup("tag", Service.STRING), twice=self.rule.tag is not None)
        self.rule = replace(self.rule, tag=tag)

    def helo(self) -> None:
        helo = self._table(_Lookup("helo", Service.DOMAIN), twice=self.rule.helo is not None)
        self.rule = replace(self.rule, helo=helo)

    def tls(self) -> None:
        self._once("tls", twice=self.rule.tls is not None)
        self.rule = replace(self.rule, tls=Criterion(self.negated))

    def auth(self) -> None:
        lookup = _Lookup("auth", Service.STRING, ANY_KIND)
        auth = self._optional_table(lookup, twice=self.rule.auth is not None)
        self.rule = replace(self.rule, auth=auth)

    def mail_from(self) -> None:
        lookup = _Lookup("mail-from", Service.MAILADDR, ANY_KIND)
        mail_from = self._table(lookup, twice=self.rule.mail_from is not None)
        self.rule = replace(self.rule, mail_from=mail_from)

    def rcpt_to(self) -> None:
        lookup = _Lookup("rcpt-to", Service.MAILADDR, ANY_KIND)
        rcpt_to = self._table(lookup, twice=self.rule.rcpt_to is not None)
        self.rule = replace(self.rule, rcpt_to=rcpt_to)

    def from_(self) -> None:
        if self.tokens.peek() not in _ORIGINS:
            raise self.tokens.syntax_error()
        _ORIGINS[self.tokens.take().kind](self)
        self._from_seen = True

    def from_named(self, origin: Origin, table: Optional[str]) -> None:
        self._once("from", twice=self._from_seen)
        self.rule = replace(self.rule, origin=origin, from_=Criterion(self.negated, table))

    def from_src(self) -> None:
        source = self._table(_Lookup("from", Service.NETADDR), twice=self._from_seen)
        self.rule = replace(self.rule, origin=Origin.SRC, from_=source)

    def from_rdns(self) -> None:
        lookup = _Lookup("rdns", Service.DOMAIN, option="from")
        name = self._optional_table(lookup, twice=self._from_seen)
        self.rule = replace(self.rule, origin=Origin.RDNS, from_=name)

    def from_auth(self) -> None:
        auth = self._optional_table(_Lookup("from", Service.STRING), twice=self._from_seen)
        self.rule = replace(self.rule, origin=Origin.ANY, from_=_ANYWHERE, auth=auth)

    def from_mail_from(self) -> None:
        lookup = _Lookup("from", Service.MAILADDR, ANY_KIND)
        sender = self._table(lookup, twice=self._from_seen)
        self.rule = replace(self.rule, origin=Origin.ANY, from_=_ANYWHERE, mail_from=sender)

    def for_(self) -> None:
        if self.tokens.peek() not in _TARGETS:
            raise self.tokens.syntax_error()
        _TARGETS[self.tokens.take().kind](self)
        self._for_seen = True

    def for_named(self, target: Target, table: str) -> None:
        self._once("for", twice=self._for_seen)
        self.rule = replace(self.rule, target=target, for_=Criterion(self.negated, table))

    def for_domain(self) -> None:
        lookup = _Lookup("'for'", Service.DOMAIN, option="for")
        domain = self._table(lookup, twice=self._for_seen)
        self.rule = replace(self.rule, target=Target.DOMAIN, for_=domain)

    def for_rcpt_to(self) -> None:
        lookup = _Lookup("for", Service.MAILADDR, ANY_KIND)
        recipient = self._table(lookup, twice=self._for_seen)
        self.rule = replace(self.rule, target=Target.ANY, for_=_TO_ANYONE, rcpt_to=recipient)

    def _table(self, lookup: _Lookup, *, twice: bool) -> Criterion:
        """Read `[regex] table` and check that it suits."""
        regex = self.tokens.accept("regex")
        table = table_operand(self.tokens, self.draft)
        self._once(lookup.option or lookup.purpose, twice=twice)
        kinds = LISTS if regex else lookup.kinds
        service = Service.REGEX if regex else lookup.service
        name = check_use(self.tokens, table, kinds, service, lookup.purpose)
        return Criterion(self.negated, name, regex)

    def _optional_table(self, lookup: _Lookup, *, twice: bool) -> Criterion:
        """Read `[regex] table` if there is one."""
        if self.tokens.peek() == "regex":
            return self._table(lookup, twice=twice)
        table = optional_table(self.tokens, self.draft)
        self._once(lookup.option or lookup.purpose, twice=twice)
        if table is None:
            return Criterion(self.negated)
        check_use(self.tokens, table, lookup.kinds, lookup.service, lookup.purpose)
        return Criterion(self.negated, table.name)

    def _once(self, option: str, *, twice: bool) -> None:
        if twice:
            raise self.tokens.refuse(f"{option} already specified for this rule")


_CRITERIA: Dict[str, Callable[[_Reader], None]] = {
    "tag": _Reader.tag,
    "helo": _Reader.helo,
    "tls": _Reader.tls,
    "auth": _Reader.auth,
    "mail-from": _Reader.mail_from,
    "rcpt-to": _Reader.rcpt_to,
    "from": _Reader.from_,
    "for": _Reader.for_,
}

_ORIGINS: Dict[str, Callable[[_Reader], None]] = {
    "any": lambda reader: reader.from_named(Origin.ANY, ANY_HOST),
    "local": lambda reader: reader.from_named(Origin.LOCAL, LOCAL_HOST),
    "socket": lambda reader: reader.from_named(Origin.SOCKET, None),
    "src": _Reader.from_src,
    "rdns": _Reader.from_rdns,
    "auth": _Reader.from_auth,
    "mail-from": _Reader.from_mail_from,
}

_TARGETS: Dict[str, Callable[[_Reader], None]] = {
    "any": lambda reader: reader.for_named(Target.ANY, ANY_DESTINATION),
    "local": lambda reader: reader.for_named(Target.LOCAL, LOCAL_NAMES),
    "domain": _Reader.for_domain,
    "rcpt-to": _Reader.for_rcpt_to,
}
