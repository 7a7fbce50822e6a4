"""Match an envelope against the rules of the configuration, in order; the first one decides.

Source: smtpd.conf(5), `match`. One thing differs on purpose: `tls` asks for a session under TLS,
where the original fails for now whenever it reaches such a rule.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

LOCAL = "local"  # the source of what comes over the local socket, or out of an expansion
UNKNOWN_NAME = "<unknown>"  # the reverse name of a client that has none
NULL_SENDER = "@"  # how a null sender is looked up
LOCAL_SOURCES = "<localhost>"  # built-in tables
LOCAL_DOMAINS = "<localnames>"


class Match(NamedTuple):
    """Does a key match an entry of a table, as the service compares them?"""

    table: str
    service: str
    key: str


class Failure(NamedTuple):
    """The answer to a question that cannot be answered: for now, or for good."""

    why: str = ""
    permanent: bool = False


Matched = Union[bool, Failure]


class From(enum.Enum):
    """Where a rule wants mail to come from."""

    ANY = "any"
    LOCAL = "local"
    SOCKET = "socket"
    SOURCE = "src"
    NAME = "rdns"


class For(enum.Enum):
    """Where a rule wants mail to go."""

    ANY = "any"
    LOCAL = "local"
    DOMAIN = "domain"


@dataclass(frozen=True)
class Criterion:
    """One criterion. Without a table it asks whether there is anything at all."""

    table: str = ""
    negated: bool = False
    regex: bool = False


@dataclass(frozen=True)
class Rule:
    """One `match`; without an action it rejects. A test that is None holds for all mail.

    from_test and for_test carry the negation of every kind, and the table of SOURCE, NAME and
    DOMAIN.
    """

    action: Optional[str]
    origin: From = From.LOCAL
    from_test: Criterion = Criterion()
    destination: For = For.LOCAL
    for_test: Criterion = Criterion()
    tag: Optional[Criterion] = None
    helo: Optional[Criterion] = None
    auth: Optional[Criterion] = None
    tls: Optional[Criterion] = None
    mail_from: Optional[Criterion] = None
    rcpt_to: Optional[Criterion] = None


@dataclass(frozen=True)
class Session:
    """What is known of a client. source: `192.0.2.1`, `[2001:db8::1]` or `local`.

    user is None when the client did not log in; over the local socket it is empty.
    """

    source: str
    name: str = UNKNOWN_NAME
    helo: str = ""
    tag: str = ""
    user: Optional[str] = None
    tls: bool = False


@dataclass(frozen=True)
class Envelope:
    """One recipient on its way: addresses without brackets, a null sender is empty.

    internal: the recipient came out of an expansion, so it counts as local mail.
    """

    session: Session
    sender: str
    recipient: str
    internal: bool = False


class Verdict(enum.Enum):
    """What the rules say."""

    ACTION = "action"
    REJECT = "reject"
    NO_RULE = "no rule"
    FAILURE = "temporary failure"


class Decision(NamedTuple):
    """The verdict; action only with ACTION, place is that of the rule, -1 without one."""

    verdict: Verdict
    action: str = ""
    place: int = -1


def decide(rules: Sequence[Rule], envelope: Envelope) -> Generator[Match, Matched, Decision]:
    """Find the first rule whose criteria all hold; a lookup that fails ends the search."""
    for place, rule in enumerate(rules):
        matched = yield from _matches(rule, envelope)
        if isinstance(matched, Failure):
            return Decision(Verdict.FAILURE, place=place)
        if matched:
            if rule.action is None:
                return Decision(Verdict.REJECT, place=place)
            return Decision(Verdict.ACTION, rule.action, place)
    return Decision(Verdict.NO_RULE)


def _matches(rule: Rule, envelope: Envelope) -> Generator[Match, Matched, Matched]:
    """Check all criteria of a rule, in the order of the original whatever order they have."""
    session = envelope.session
    domain = envelope.recipient.rpartition("@")[2]
    checks = (
        _look_up(rule.tag, "string", session.tag),
        _from(rule, envelope),
        _for(rule, domain),
        _look_up(rule.helo, "domain", session.helo),
        _auth(rule.auth, session.user),
        _fact(rule.tls, session.tls),
        _look_up(rule.mail_from, "mailaddr", envelope.sender or NULL_SENDER),
        _look_up(rule.rcpt_to, "mailaddr", envelope.recipient),
    )
    for check in checks:
        matched = yield from check
        if isinstance(matched, Failure) or not matched:
            return matched
    return True


def _fact(test: Optional[Criterion], fact: bool) -> Generator[Match, Matched, Matched]:
    """Check something already known."""
    yield from ()
    return test is None or fact is not test.negated


def _look_up(
    test: Optional[Criterion], service: str, key: str
) -> Generator[Match, Matched, Matched]:
    if test is None:
        return True
    matched = yield Match(test.table, "regex" if test.regex else service, key)
    return matched if isinstance(matched, Failure) else matched is not test.negated


def _from(rule: Rule, envelope: Envelope) -> Generator[Match, Matched, Matched]:
    test = rule.from_test
    source = LOCAL if envelope.internal else envelope.session.source
    if rule.origin is From.ANY:
        return not test.negated
    if rule.origin is From.LOCAL:
        local = Criterion(LOCAL_SOURCES, test.negated)
        return (yield from _look_up(local, "netaddr", source))
    if rule.origin is From.SOURCE:
        return (yield from _look_up(test, "netaddr", source))
    if rule.origin is From.SOCKET:
        # Never for internal mail, not even negated.
        return not envelope.internal and (source == LOCAL) is not test.negated
    return (yield from _from_name(test, envelope))


def _from_name(test: Criterion, envelope: Envelope) -> Generator[Match, Matched, Matched]:
    """Check the reverse name: compared whole, as an address would be, not as a domain."""
    if envelope.internal:
        if not test.table:
            return False
        return (yield from _look_up(test, "netaddr", LOCAL))
    known = envelope.session.name != UNKNOWN_NAME
    if not test.table:
        return known is not test.negated
    if not known:
        return False  # negated or not
    return (yield from _look_up(test, "netaddr", envelope.session.name))


def _for(rule: Rule, domain: str) -> Generator[Match, Matched, Matched]:
    if rule.destination is For.ANY:
        return not rule.for_test.negated
    if rule.destination is For.LOCAL:
        local = Criterion(LOCAL_DOMAINS, rule.for_test.negated)
        return (yield from _look_up(local, "domain", domain))
    return (yield from _look_up(rule.for_test, "domain", domain))


def _auth(test: Optional[Criterion], user: Optional[str]) -> Generator[Match, Matched, Matched]:
    if test is None:
        return True
    if user is None or not test.table:
        return (user is not None) is not test.negated
    return (yield from _look_up(test, "mailaddr" if "@" in user else "string", user))
