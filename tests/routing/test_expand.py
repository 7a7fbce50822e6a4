"""From a recipient to deliveries, over dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.ask import answer
from smtpd_core.routing import expand as expansion
from smtpd_core.routing.expand import Delivery, Expansion, Method, alias_keys, expand, virtual_keys
from smtpd_core.routing.policy import (
    Action,
    Answer,
    FindAlias,
    FindUser,
    Forwarding,
    Policy,
    Question,
    ReadForward,
    User,
)
from smtpd_core.routing.rules import (
    Criterion,
    Envelope,
    Failure,
    For,
    From,
    Match,
    Rule,
    Session,
)

RULES = (
    Rule("virtual", From.ANY, destination=For.DOMAIN, for_test=Criterion("virtual.example")),
    Rule("local", From.ANY, destination=For.DOMAIN, for_test=Criterion("example.org")),
    Rule(None, From.ANY, destination=For.DOMAIN, for_test=Criterion("refused.example")),
    Rule("local", From.ANY, destination=For.DOMAIN, for_test=Criterion("broken")),
    Rule("relay", From.LOCAL, destination=For.ANY),
)
LOCAL = Action("local", alias="aliases")
VIRTUAL = Action("virtual", virtual="virtuals")
POLICY = Policy(RULES, {"local": LOCAL, "virtual": VIRTUAL, "relay": Action("relay", relay=True)})
ENVELOPE = Envelope(Session("192.0.2.1"), "alice@example.com", "")
DOWN = Failure("down")


@dataclass
class World:
    """Answer questions from dictionaries."""

    aliases: dict[str, Union[str, Failure]] = field(default_factory=dict)
    forwards: dict[str, Union[str, Failure]] = field(default_factory=dict)
    includes: dict[str, str] = field(default_factory=dict)
    users: tuple[str, ...] = ("bob", "carol", "dave", "root")

    def __call__(self, question: Question) -> Answer:
        if isinstance(question, Match):
            return self.match(question)
        if isinstance(question, FindAlias):
            return self.aliases.get(question.key)
        if isinstance(question, FindUser):
            if question.name == "down":
                return DOWN
            uid = 0 if question.name == "root" else 1000
            name = question.name
            return User(name, uid, uid, f"/home/{name}") if name in self.users else None
        if isinstance(question, ReadForward):
            return self.forwards.get(question.user.name)
        return self.includes.get(question.path)

    def match(self, question: Match) -> Answer:
        if question.table == "<localhost>":
            return question.key == "local"
        return DOWN if question.key == "broken" else question.table == question.key

    def expand(self, recipient: str, policy: Policy = POLICY) -> Expansion:
        return answer(expand(recipient, ENVELOPE, policy), self)


def to_user(
    user: str, recipient: str = "bob@example.org", tag: str = "", action: str = "local"
) -> Delivery:
    return Delivery(Method.USER, action, recipient, user, tag)


def relayed(recipient: str) -> Delivery:
    return Delivery(Method.RELAY, "relay", recipient)


def piped(command: str, user: str = "_smtpd", recipient: str = "bob@example.org") -> Delivery:
    return Delivery(Method.PIPE, "local", recipient, user, target=command)


@pytest.mark.parametrize(
    ("recipient", "world", "deliveries"),
    [
        ("bob@example.org", World(), [to_user("bob")]),
        ("Bob+Tag@example.org", World(), [to_user("bob", "Bob+Tag@example.org", "tag")]),
        ("bob@example.org", World({"bob": "carol"}), [to_user("carol")]),
        ("bob@example.org", World({"bob": "bob"}), [to_user("bob")]),
        ("bob@example.org", World({"bob": "bob, carol"}), [to_user("bob"), to_user("carol")]),
        ("bob@example.org", World({"bob": "carol,carol"}), [to_user("carol")]),
        ("bob@example.org", World({"bob": ""}), [to_user("bob")]),
        ("bob+x@example.org", World({"bob": "carol"}), [to_user("carol", "bob+x@example.org")]),
        (
            "bob+x@example.org",
            World({"bob+x": "dave", "bob": "carol"}),
            [to_user("dave", "bob+x@example.org")],
        ),
        ("bob@example.org", World({"bob": "x@far.example"}), [relayed("x@far.example")]),
        (
            "bob@example.org",
            World({"bob": "carol@example.org"}),
            [to_user("carol", "carol@example.org")],
        ),
        ("bob@example.org", World({"bob": "|cmd"}), [piped("cmd")]),
        (
            "bob@example.org",
            World({"bob": "/dev/x"}),
            [Delivery(Method.FILE, "local", "bob@example.org", "_smtpd", target="/dev/x")],
        ),
        (
            "bob@example.org",
            World({"bob": ":include:/l"}, includes={"/l": "carol\n:include:/m\nno good\ndave"}),
            [to_user("carol"), to_user("dave")],
        ),
        ("bob@example.org", World({"bob": ":include:/none"}), [to_user("bob")]),
        ("bob@example.org", World(forwards={"bob": "carol"}), [to_user("carol")]),
        (
            "bob@example.org",
            World(forwards={"bob": "bob, carol"}),
            [to_user("bob"), to_user("carol")],
        ),
        ("bob@example.org", World(forwards={"bob": ""}), [to_user("bob")]),
        ("bob@example.org", World(forwards={"bob": "# none\n\n"}), [to_user("bob")]),
        ("bob@example.org", World(forwards={"bob": "|cmd"}), [piped("cmd", "bob")]),
        ("bob@example.org", World(forwards={"bob": "include:/l"}), [to_user("bob")]),
        (
            "any@virtual.example",
            World({"any@virtual.example": "carol"}),
            [to_user("carol", "any@virtual.example", action="virtual")],
        ),
        (
            "any@virtual.example",
            World({"@virtual.example": "carol", "carol": "x@far.example"}),
            [relayed("x@far.example")],
        ),
        (
            "any@virtual.example",
            World({"@": "carol"}),
            [to_user("carol", "any@virtual.example", action="virtual")],
        ),
    ],
)
def test_deliveries(recipient: str, world: World, deliveries: list[Delivery]) -> None:
    expanded = world.expand(recipient)
    assert expanded.refusal == ""
    assert list(expanded.deliveries) == deliveries


@pytest.mark.parametrize(
    ("recipient", "world", "refusal"),
    [
        ("bob@far.example", World(), expansion.UNKNOWN_RECIPIENT),
        ("bob@refused.example", World(), expansion.UNKNOWN_RECIPIENT),
        ("bob@broken", World(), expansion.LOOKUP_FAILED),
        ("nobody@example.org", World(), expansion.UNKNOWN_RECIPIENT),
        ("down@example.org", World(), expansion.LOOKUP_FAILED),
        ("bob@example.org", World({"bob": DOWN}), expansion.LIST_FAILED),
        ("bob@example.org", World({"bob": "no good"}), expansion.LIST_FAILED),
        ("bob@example.org", World({"bob": "carol, nobody"}), expansion.UNKNOWN_RECIPIENT),
        ("bob@example.org", World({"bob": "error:551 gone"}), "551 gone"),
        ("bob@example.org", World({"bob": "a", "a": "b", "b": "a"}), expansion.LIST_REFUSED),
        ("any@virtual.example", World({"any": ""}), expansion.LIST_REFUSED),
        ("any@virtual.example", World(), expansion.LIST_REFUSED),
        ("any@virtual.example", World({"any@virtual.example": DOWN}), expansion.LIST_FAILED),
        ("bob@example.org", World(forwards={"bob": DOWN}), expansion.LIST_FAILED),
        (
            "bob@example.org",
            World(forwards={"bob": Failure("insecure", permanent=True)}),
            expansion.LIST_REFUSED,
        ),
        ("bob@example.org", World(forwards={"bob": "no good"}), expansion.LIST_FAILED),
        ("bob@example.org", World(forwards={"bob": "#" * 4096}), expansion.LIST_FAILED),
        (
            "bob@example.org",
            World(forwards={"bob": ",".join(f"u{n}" for n in range(100))}),
            expansion.LIST_FAILED,
        ),
        ("root@example.org", World(forwards={"root": "|cmd"}), expansion.LOOKUP_FAILED),
        ("root@example.org", World(forwards={"root": "/file"}), expansion.LOOKUP_FAILED),
        ("bob@example.org", World(forwards={"bob": "bob@example.org"}), expansion.LIST_REFUSED),
    ],
)
def test_refusals(recipient: str, world: World, refusal: str) -> None:
    expanded = world.expand(recipient)
    assert (expanded.refusal, expanded.deliveries) == (refusal, ())
    assert expanded.reply(recipient) == f"{refusal}: <{recipient}>"


def with_action(**changes: object) -> Policy:
    changed = replace(LOCAL, **changes)  # type: ignore[arg-type]
    return replace(POLICY, actions={"local": changed, "relay": Action("relay", relay=True)})


@pytest.mark.parametrize(
    ("forwarding", "world", "refusal"),
    [
        (Forwarding.FORWARD_ONLY, World(), expansion.LIST_FAILED),
        (Forwarding.FORWARD_ONLY, World(forwards={"bob": ""}), expansion.LIST_FAILED),
        (Forwarding.FORWARD_ONLY, World(forwards={"bob": "bob"}), expansion.LIST_FAILED),
        (Forwarding.FORWARD_ONLY, World({"bob": "|cmd"}), expansion.LOOKUP_FAILED),
        (Forwarding.FORWARD_ONLY, World({"bob": "error:550 x"}), expansion.LOOKUP_FAILED),
        (Forwarding.FORWARD_ONLY, World(forwards={"bob": "x@far.example"}), ""),
        (Forwarding.EXPAND_ONLY, World(), expansion.LIST_REFUSED),
        (Forwarding.EXPAND_ONLY, World(forwards={"bob": "bob"}), expansion.LIST_REFUSED),
        (Forwarding.EXPAND_ONLY, World({"bob": "x@far.example"}), ""),
        (Forwarding.EXPAND_ONLY, World({"bob": "|cmd"}), ""),
    ],
)
def test_actions_that_only_forward(forwarding: Forwarding, world: World, refusal: str) -> None:
    assert world.expand("bob@example.org", with_action(forwarding=forwarding)).refusal == refusal


def test_a_delivery_user_reads_no_forward_but_its_own() -> None:
    world = World(forwards={"bob": "carol"})
    for user, expected in (("vmail", "bob"), ("bob", "carol")):
        expanded = world.expand("bob@example.org", with_action(user=user))
        assert [one.user for one in expanded.deliveries] == [expected]


def test_a_rewritten_sender_comes_home() -> None:
    decoded = {"SRS0=ok@example.org": "alice@far.example"}
    policy = replace(POLICY, decode_srs=decoded.get)
    bounce = replace(ENVELOPE, sender="")
    expanded = answer(expand("SRS0=ok@example.org", bounce, policy), World())
    assert expanded.deliveries == (relayed("alice@far.example"),)
    expanded = answer(expand("srs0=bad@example.org", bounce, policy), World())
    assert expanded.refusal == expansion.UNKNOWN_RECIPIENT
    assert expanded.notes == ("SRS failed to decode: srs0=bad@example.org",)
    expanded = World().expand("SRS0=ok@example.org", policy)
    assert expanded.notes == ()


def test_notes_say_what_went_wrong() -> None:
    assert World(forwards={"bob": ""}).expand("bob@example.org").notes == (
        "info: forward file is empty",
    )
    assert World({"bob": ":include:/x"}).expand("bob@example.org").notes == (
        'warn: failed to open include file "/x".',
    )
    assert World({"bob": "|cmd"}).expand("bob@example.org").notes == (
        "commands executed from aliases run with _smtpd privileges",
    )


def test_a_bomb_is_bounded() -> None:
    asked = 0

    class Bomb(World):
        def __call__(self, question: Question) -> Answer:
            nonlocal asked
            asked += 1
            if isinstance(question, FindAlias):
                return ",".join(f"{question.key}{n}" for n in range(100))
            return super().__call__(question)

    assert Bomb().expand("b@example.org").refusal == expansion.LIST_REFUSED
    assert asked < expansion.MAX_NODES


def test_keys() -> None:
    assert alias_keys("Bob+X", "+") == ["bob+x", "bob"]
    assert alias_keys("bob", "+") == ["bob"]
    assert virtual_keys("Bob+X", "D.example", "+") == [
        "bob+x@d.example",
        "bob@d.example",
        "bob+x",
        "bob",
        "@d.example",
        "@",
    ]
    assert virtual_keys("bob", "", "+") == ["bob@", "bob"]


names = st.sampled_from(
    ["bob", "carol", "dave", "x", "|c", "/f", "y@far.example", "bob@example.org"]
)
values = st.dictionaries(
    st.sampled_from(["bob", "carol", "dave", "x"]), st.lists(names, max_size=4).map(",".join)
)


@given(values, values)
def test_any_aliases_end_in_an_answer(aliases: dict[str, str], forwards: dict[str, str]) -> None:
    world = World(dict(aliases), dict(forwards))
    expanded = world.expand("bob@example.org")
    assert bool(expanded.refusal) is not bool(expanded.deliveries)
