"""The `match` statement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, List

import pytest

from smtpd_core.config.model import Config, Criterion, Origin, Rule, Target
from smtpd_core.config.problems import Place

DECLARED = """table list { a }
table map { a = b }
table system getpwnam
action x relay
"""
LINE = DECLARED.count("\n") + 1
PLAIN = Rule(Place("smtpd.conf", LINE), "x")

ANY_HOST = Criterion(table="<anyhost>")
TO_ANYONE = Criterion(table="<anydestination>")
LIST = Criterion(table="list")
MAP = Criterion(table="map")
REGEX = Criterion(table="list", regex=True)


@pytest.mark.parametrize(
    ("criteria", "changes"),
    [
        ("", {}),
        ("tag <list>", {"tag": LIST}),
        ("tag regex <list>", {"tag": REGEX}),
        ("helo <list>", {"helo": LIST}),
        ("helo regex <list>", {"helo": REGEX}),
        ("tls", {"tls": Criterion()}),
        ("auth", {"auth": Criterion()}),
        ("auth <map>", {"auth": MAP}),
        ("auth regex <list>", {"auth": REGEX}),
        ("mail-from <map>", {"mail_from": MAP}),
        ("mail-from regex <list>", {"mail_from": REGEX}),
        ("rcpt-to <map>", {"rcpt_to": MAP}),
        ("rcpt-to regex <list>", {"rcpt_to": REGEX}),
        ("from any", {"origin": Origin.ANY, "from_": ANY_HOST}),
        ("from local", {}),
        ("from socket", {"origin": Origin.SOCKET, "from_": Criterion()}),
        ("from src <list>", {"origin": Origin.SRC, "from_": LIST}),
        ("from src regex <list>", {"origin": Origin.SRC, "from_": REGEX}),
        ("from rdns", {"origin": Origin.RDNS, "from_": Criterion()}),
        ("from rdns <list>", {"origin": Origin.RDNS, "from_": LIST}),
        ("from rdns regex <list>", {"origin": Origin.RDNS, "from_": REGEX}),
        ("from auth", {"origin": Origin.ANY, "from_": ANY_HOST, "auth": Criterion()}),
        ("from auth <list>", {"origin": Origin.ANY, "from_": ANY_HOST, "auth": LIST}),
        ("from auth regex <list>", {"origin": Origin.ANY, "from_": ANY_HOST, "auth": REGEX}),
        ("from mail-from <map>", {"origin": Origin.ANY, "from_": ANY_HOST, "mail_from": MAP}),
        ("for any", {"target": Target.ANY, "for_": TO_ANYONE}),
        ("for local", {}),
        ("for domain <list>", {"target": Target.DOMAIN, "for_": LIST}),
        ("for domain regex <list>", {"target": Target.DOMAIN, "for_": REGEX}),
        ("for rcpt-to <map>", {"target": Target.ANY, "for_": TO_ANYONE, "rcpt_to": MAP}),
    ],
)
def test_criteria(criteria: str, changes: Dict[str, Any], parse: Callable[..., Config]) -> None:
    config = parse(f"{DECLARED}match {criteria} action x")
    assert config.rules[0] == replace(PLAIN, **changes)


@pytest.mark.parametrize(
    ("criterion", "field"),
    [
        ("tag a", "tag"),
        ("helo a", "helo"),
        ("tls", "tls"),
        ("auth", "auth"),
        ("mail-from a", "mail_from"),
        ("rcpt-to a", "rcpt_to"),
        ("from any", "from_"),
        ("from local", "from_"),
        ("from socket", "from_"),
        ("from src a", "from_"),
        ("from rdns", "from_"),
        ("from auth", "auth"),
        ("from mail-from a", "mail_from"),
        ("for any", "for_"),
        ("for local", "for_"),
        ("for domain a", "for_"),
        ("for rcpt-to a", "rcpt_to"),
    ],
)
def test_negation_is_of_one_criterion(
    criterion: str, field: str, parse: Callable[..., Config]
) -> None:
    rule = parse(f"match !{criterion} reject").rules[0]
    negated = {
        name
        for name in ("tag", "helo", "tls", "auth", "mail_from", "rcpt_to", "from_", "for_")
        if getattr(rule, name) is not None and getattr(rule, name).negated
    }
    assert negated == {field}


def test_reject_has_no_action(parse: Callable[..., Config]) -> None:
    assert parse("match reject").rules[0].action is None


def test_rules_keep_their_order(parse: Callable[..., Config]) -> None:
    config = parse(f"{DECLARED}match tag a action x\nmatch reject\nmatch tag b action x")
    assert [rule.where.line for rule in config.rules[:3]] == [LINE, LINE + 1, LINE + 2]


@pytest.mark.parametrize(
    ("criteria", "option"),
    [
        ("tag a !tag b", "tag"),
        ("helo a helo b", "helo"),
        ("tls tls", "tls"),
        ("auth auth a", "auth"),
        ("from auth auth", "auth"),
        ("mail-from a mail-from b", "mail-from"),
        ("from mail-from a mail-from b", "mail-from"),
        ("rcpt-to a rcpt-to b", "rcpt-to"),
        ("for rcpt-to a rcpt-to b", "rcpt-to"),
        ("from any from local", "from"),
        ("from any from auth", "from"),
        ("from auth a from rdns", "from"),
        ("from rdns from rdns regex a", "from"),
        ("from src a from socket", "from"),
        ("from any from mail-from a", "from"),
        ("for any for local", "for"),
        ("for local for domain a", "for"),
        ("for any for rcpt-to a", "for"),
    ],
)
def test_criteria_stand_once(criteria: str, option: str, refused: Callable[..., List[str]]) -> None:
    expected = f"{LINE}: {option} already specified for this rule"
    assert refused(f"{DECLARED}match {criteria} action x") == [expected]


@pytest.mark.parametrize(
    ("criteria", "purpose"),
    [
        ("tag", "tag"),
        ("tag regex", "tag"),
        ("helo", "helo"),
        ("auth regex", "auth"),
        ("mail-from regex", "mail-from"),
        ("rcpt-to regex", "rcpt-to"),
        ("from src", "from"),
        ("from rdns", "rdns"),
        ("from rdns regex", "rdns"),
        ("from auth", "from"),
        ("from mail-from regex", "from"),
        ("for domain", "'for'"),
        ("for rcpt-to regex", "for"),
    ],
)
def test_tables_must_suit(criteria: str, purpose: str, refused: Callable[..., List[str]]) -> None:
    for table in ("map", "system"):
        expected = f'{LINE}: table "{table}" may not be used for {purpose} lookups'
        assert refused(f"{DECLARED}match {criteria} <{table}> action x") == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("match", "syntax error"),
        ("match from any", "syntax error"),
        ("match ! reject", "syntax error"),
        ("match ! action x", "syntax error"),
        ("match !! tls reject", "syntax error"),
        ("match from reject", "syntax error"),
        ("match for src a reject", "syntax error"),
        ("match tls a reject", "syntax error"),
        ("match reject action x", "syntax error"),
        ("match action", "syntax error"),
        ("match action y", "no such dispatcher: y"),
        ("match reject tls", "syntax error"),
    ],
)
def test_refused(text: str, expected: str, refused: Callable[..., List[str]]) -> None:
    assert refused(DECLARED + text) == [f"{LINE}: {expected}"]
