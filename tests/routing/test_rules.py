"""Rules against envelopes, with tables in a dict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtpd_core.ask import answer
from smtpd_core.routing.rules import (
    Criterion,
    Decision,
    Envelope,
    Failure,
    For,
    From,
    Match,
    Matched,
    Rule,
    Session,
    Verdict,
    decide,
)

REMOTE = Session("192.0.2.1", "client.example", "helo.example", "tag")
SOCKET = Session("local", "here.example", "localhost", "", user="")
MAIL = Envelope(REMOTE, "alice@example.com", "bob@example.org")

TABLES = {
    Match("<localhost>", "netaddr", "local"),
    Match("<localnames>", "domain", "example.org"),
    Match("t", "string", "tag"),
    Match("t", "netaddr", "192.0.2.1"),
    Match("t", "netaddr", "client.example"),
    Match("t", "regex", "client.example"),
    Match("t", "domain", "example.org"),
    Match("t", "domain", "helo.example"),
    Match("t", "string", "bob"),
    Match("t", "mailaddr", "bob@login"),
    Match("t", "mailaddr", "alice@example.com"),
    Match("t", "mailaddr", "bob@example.org"),
    Match("null", "mailaddr", "@"),
}


def look_up(question: Match) -> Matched:
    return Failure("down") if question.table == "broken" else question in TABLES


def verdict(rule: Rule, envelope: Envelope = MAIL) -> bool:
    decision = answer(decide([rule], envelope), look_up)
    assert decision in (Decision(Verdict.NO_RULE), Decision(Verdict.ACTION, "act", 0))
    return decision.verdict is Verdict.ACTION


ANY = Rule("act", From.ANY, destination=For.ANY)
T, NOT_T, REGEX = Criterion("t"), Criterion("t", negated=True), Criterion("t", regex=True)
IS, IS_NOT = Criterion(), Criterion(negated=True)
OTHER = Criterion("other")


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (ANY, True),
        (Rule("act"), False),
        (Rule("act", From.LOCAL, IS_NOT), True),
        (Rule("act", From.ANY, IS_NOT), False),
        (Rule("act", From.ANY), True),
        (Rule("act", From.ANY, destination=For.LOCAL, for_test=IS_NOT), False),
        (Rule("act", From.ANY, destination=For.ANY, for_test=IS_NOT), False),
        (Rule("act", From.ANY, destination=For.DOMAIN, for_test=T), True),
        (Rule("act", From.ANY, destination=For.DOMAIN, for_test=NOT_T), False),
        (Rule("act", From.SOURCE, T), True),
        (Rule("act", From.SOURCE, NOT_T), False),
        (Rule("act", From.SOURCE, REGEX), False),
        (Rule("act", From.NAME), True),
        (Rule("act", From.NAME, IS_NOT), False),
        (Rule("act", From.NAME, T), True),
        (Rule("act", From.NAME, REGEX), True),
        (Rule("act", From.NAME, NOT_T), False),
        (Rule("act", From.SOCKET), False),
        (Rule("act", From.SOCKET, IS_NOT), True),
        (replace(ANY, tag=T), True),
        (replace(ANY, tag=NOT_T), False),
        (replace(ANY, tag=OTHER), False),
        (replace(ANY, helo=T), True),
        (replace(ANY, auth=IS), False),
        (replace(ANY, auth=IS_NOT), True),
        (replace(ANY, auth=T), False),
        (replace(ANY, auth=NOT_T), True),
        (replace(ANY, tls=IS), False),
        (replace(ANY, tls=IS_NOT), True),
        (replace(ANY, mail_from=T), True),
        (replace(ANY, mail_from=NOT_T), False),
        (replace(ANY, rcpt_to=T, mail_from=OTHER), False),
        (replace(ANY, rcpt_to=T, tag=T, helo=T, mail_from=T), True),
    ],
)
def test_remote_mail(rule: Rule, matches: bool) -> None:
    assert verdict(rule) is matches


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule("act"), True),
        (Rule("act", From.SOURCE, T), False),
        (Rule("act", From.NAME), False),
        (Rule("act", From.NAME, IS_NOT), False),
        (Rule("act", From.NAME, T), False),
        (Rule("act", From.NAME, NOT_T), True),
        (Rule("act", From.SOCKET), False),
        (Rule("act", From.SOCKET, IS_NOT), False),
        (replace(ANY, tag=T), True),
    ],
)
def test_mail_out_of_an_expansion_is_local(rule: Rule, matches: bool) -> None:
    assert verdict(rule, replace(MAIL, internal=True)) is matches


def test_the_local_socket() -> None:
    envelope = replace(MAIL, session=SOCKET)
    assert verdict(Rule("act"), envelope)
    assert verdict(Rule("act", From.SOCKET), envelope)
    assert verdict(replace(ANY, auth=IS), envelope)


def test_logins() -> None:
    for user, matches in (("bob", True), ("bob@login", True), ("eve", False)):
        envelope = replace(MAIL, session=replace(REMOTE, user=user, tls=True))
        assert verdict(replace(ANY, auth=T), envelope) is matches
        assert verdict(replace(ANY, auth=NOT_T), envelope) is not matches
        assert verdict(replace(ANY, tls=IS), envelope)


def test_a_client_without_a_name() -> None:
    envelope = replace(MAIL, session=Session("192.0.2.1"))
    rules = [Rule("act", From.NAME, test) for test in (IS, T, NOT_T, IS_NOT)]
    assert [verdict(rule, envelope) for rule in rules] == [False, False, False, True]


def test_a_null_sender() -> None:
    envelope = replace(MAIL, sender="")
    assert not verdict(replace(ANY, mail_from=T), envelope)
    assert verdict(replace(ANY, mail_from=Criterion("null")), envelope)


def test_the_first_rule_decides() -> None:
    reject = replace(ANY, action=None)
    assert answer(decide([reject, ANY], MAIL), look_up) == Decision(Verdict.REJECT, place=0)
    rules = [replace(reject, tag=OTHER), ANY, reject]
    assert answer(decide(rules, MAIL), look_up) == Decision(Verdict.ACTION, "act", 1)
    assert answer(decide([], MAIL), look_up) == Decision(Verdict.NO_RULE)


@pytest.mark.parametrize("criterion", ["tag", "helo", "mail_from", "rcpt_to"])
def test_a_failed_lookup_ends_the_search(criterion: str) -> None:
    for negated in (False, True):
        broken = replace(ANY, **{criterion: Criterion("broken", negated)})  # type: ignore[arg-type]
        decision = answer(decide([replace(ANY, tag=OTHER), broken, ANY], MAIL), look_up)
        assert decision == Decision(Verdict.FAILURE, place=1)


def test_criteria_are_checked_in_one_order_and_no_further_than_needed() -> None:
    rule = Rule(
        "act", From.SOURCE, T, For.DOMAIN, T, tag=T, helo=T, mail_from=T, rcpt_to=Criterion("last")
    )
    asked: list[str] = []

    def remember(question: Match) -> Matched:
        asked.append(question.service)
        return len(asked) < 5

    answer(decide([rule], MAIL), remember)
    assert asked == ["string", "netaddr", "domain", "domain", "mailaddr"]
