"""From a configuration to routing's values, and the answers to what an expansion asks."""

from __future__ import annotations

from typing import Any, Optional, Union

import pytest

from smtpd_core.errors import LocalError
from smtpd_core.listener.policy import Router, routing_policy
from smtpd_core.mail import srs
from smtpd_core.routing import policy as routing
from smtpd_core.routing import rules
from smtpd_core.routing.expand import Delivery, Expansion, Method
from smtpd_core.routing.policy import Forwarding, User
from smtpd_core.routing.rules import Criterion, Failure, For, From, Rule
from tests.fakes.loop import run
from tests.fakes.reception import RULES, Reception, read_config
from tests.fakes.services import NOW, FakeSupervisor


def policy(text: str) -> routing.Policy:
    return routing_policy(read_config(text), "_smtpd", lambda: NOW)


def rule(text: str) -> Rule:
    return policy(f'action "a" maildir\n{text}').rules[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'match for local action "a"',
            Rule("a", From.LOCAL, Criterion("<localhost>"), For.LOCAL, Criterion("<localnames>")),
        ),
        (
            "match from any for any reject",
            Rule(None, From.ANY, Criterion("<anyhost>"), For.ANY, Criterion("<anydestination>")),
        ),
        (
            'match !from socket for any action "a"',
            Rule("a", From.SOCKET, Criterion("", True), For.ANY, Criterion("<anydestination>")),
        ),
    ],
)
def test_rules_keep_their_meaning(text: str, expected: Rule) -> None:
    found = rule(text)
    assert (found.action, found.origin, found.destination) == (
        *(expected.action, expected.origin, expected.destination),
    )
    assert found.from_test.negated is expected.from_test.negated


def test_criteria_keep_table_negation_and_kind() -> None:
    found = rule(
        'match !tag "x" from src regex "^10" for domain "d.example" !helo "h" auth tls'
        ' mail-from regex "a" rcpt-to "r" action "a"'
    )
    assert found.origin is From.SOURCE
    assert found.from_test.regex
    assert found.destination is For.DOMAIN
    assert found.tag is not None
    assert found.tag.negated
    assert found.helo is not None
    assert found.helo.negated
    assert found.auth == Criterion()
    assert found.tls == Criterion()
    assert found.mail_from is not None
    assert found.mail_from.regex
    assert found.rcpt_to is not None
    assert found.rcpt_to.table.startswith("<dynamic")


def test_actions() -> None:
    found = policy(
        'table al { "x" = "y" }\ntable us { "x" = "1:1:/x" }\n'
        'action "r" relay\naction "l" maildir alias <al> user "vmail" userbase <us>\n'
        'action "v" lmtp "/s" virtual <al>\naction "f" forward-only\naction "e" expand-only\n'
        'match from any for any action "r"\n'
    ).actions
    assert found["r"] == routing.Action("r", relay=True)
    assert found["l"] == routing.Action("l", alias="al", userbase="us", user="vmail")
    assert found["v"] == routing.Action("v", virtual="al")
    assert found["f"].forwarding is Forwarding.FORWARD_ONLY
    assert found["e"].forwarding is Forwarding.EXPAND_ONLY


def test_rewritten_senders_come_home() -> None:
    text = 'srs key "secret"\nsrs ttl 5d\nmatch from any for any reject\n'
    decode = policy(text).decode_srs
    assert decode is not None
    rewritten = srs.rewrite("bob@b.example", "mx.example", srs.Keys("secret"), NOW)
    assert decode(rewritten) == "bob@b.example"
    assert decode("SRS0=XXXX=AA=b.example=bob@mx.example") is None
    old = srs.rewrite("bob@b.example", "mx.example", srs.Keys("secret"), NOW - 6 * 86400)
    assert decode(old) is None
    assert policy("match from any for any reject\n").decode_srs is None


def test_the_delimiter_is_the_configured_one() -> None:
    assert policy('smtp sub-addr-delim "-"\nmatch from any for any reject\n').delimiter == "-"


def route(text: str, recipient: str, supervisor: FakeSupervisor, **tables: Any) -> Expansion:
    reception = Reception(text, **tables)
    router = Router(reception.config, policy(text), reception.lookups())
    envelope = rules.Envelope(rules.Session("192.0.2.1"), "a@b.example", recipient)
    found = run(router.expand(envelope, supervisor))
    assert isinstance(found, Expansion)
    return found


ALIASES = (
    'table al { "team" = "joe, ann", "list" = ":include:/etc/list", "off" = "error:550 Gone" }\n'
    + RULES.replace("maildir", "maildir alias <al>")
)


def users(expansion: Expansion) -> list[str]:
    return [delivery.user for delivery in expansion.deliveries]


def test_aliases_users_and_forwards_are_asked_for_where_they_are() -> None:
    supervisor = FakeSupervisor("joe", "ann")
    supervisor.forwards = {"ann": "joe, |/bin/cat, ann@b.example"}
    supervisor.includes = {"/etc/list": "ann\njoe\n"}
    assert users(route(ALIASES, "joe+x@mx.example", supervisor)) == ["joe"]
    refused = route(ALIASES, "off@mx.example", supervisor)
    assert refused.reply("off@mx.example") == "550 Gone: <off@mx.example>"
    supervisor.forwards = {}
    assert users(route(ALIASES, "team@mx.example", supervisor)) == ["joe", "ann"]
    assert users(route(ALIASES, "list@mx.example", supervisor)) == ["ann", "joe"]
    nobody = route(ALIASES, "nobody@mx.example", supervisor)
    assert nobody.reply("nobody@mx.example") == "550 Invalid recipient: <nobody@mx.example>"


def test_forwarding_to_a_command() -> None:
    supervisor = FakeSupervisor("ann")
    supervisor.forwards = {"ann": "|/bin/cat"}
    (found,) = route(RULES, "ann@mx.example", supervisor).deliveries
    assert found == Delivery(Method.PIPE, "local", "ann@mx.example", user="ann", target="/bin/cat")


@pytest.mark.parametrize(
    ("where", "reply"),
    [
        ("user", "451 Temporary failure"),
        ("forward", "424 4.2.4 Mailing list expansion problem"),
        ("forward for good", "524 5.2.4 Mailing list expansion problem"),
        ("alias", "424 4.2.4 Mailing list expansion problem"),
        ("rule", "451 Temporary failure"),
    ],
)
def test_failures(where: str, reply: str) -> None:
    supervisor = FakeSupervisor("joe")
    tables: dict[str, Any] = {}
    if where == "user":
        supervisor.users["joe"] = Failure("busy")
    elif where == "forward":
        supervisor.forwards["joe"] = Failure("busy")
    elif where == "forward for good":
        supervisor.forwards["joe"] = Failure("insecure", permanent=True)
    elif where == "alias":
        tables["al"] = Failure("busy")
    else:
        tables["<dynamic:0>"] = Failure("busy")
    found = route(ALIASES, "joe@mx.example", supervisor, **tables)
    assert found.reply("joe@mx.example") == f"{reply}: <joe@mx.example>"


@pytest.mark.parametrize(
    ("value", "user"),
    [("1001:1002:/home/vjoe", User("joe", 1001, 1002, "/home/vjoe")), ("nonsense", None)],
)
def test_a_user_base_of_ones_own(value: str, user: Optional[User]) -> None:
    text = f'table us {{ "joe" = "{value}" }}\n' + RULES.replace("maildir", "maildir userbase <us>")
    asked: list[User] = []

    class Watcher(FakeSupervisor):
        async def read_forward(self, user: User) -> Union[str, Failure, None]:
            asked.append(user)
            return None

        async def find_user(self, name: str) -> Union[User, Failure, None]:
            raise AssertionError(f"the system was asked for {name}")

    found = route(text, "joe@mx.example", Watcher())
    if user is None:
        assert found.refusal == "451 Temporary failure"
    else:
        assert users(found) == ["joe"]
        assert asked == [user]


def test_a_rule_without_its_action_is_our_mistake() -> None:
    reception = Reception(RULES)
    broken = routing.Policy(policy(RULES).rules, {})
    router = Router(reception.config, broken, reception.lookups())
    envelope = rules.Envelope(rules.Session("192.0.2.1"), "", "joe@mx.example")
    with pytest.raises(LocalError):
        run(router.expand(envelope, FakeSupervisor()))
