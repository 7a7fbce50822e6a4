"""Where mail for a domain goes, asked of a small zone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Optional

import pytest

from smtpd_core.ask import answer
from smtpd_core.dns import exchangers, wire
from smtpd_core.dns.cache import Cache
from smtpd_core.dns.exchangers import Exchanger, Exchangers, Verdict, find_exchangers, find_host
from smtpd_core.dns.resolve import Reply, Resolver, Send
from smtpd_core.dns.system import Hosts, Settings
from smtpd_core.dns.wire import Data, Exchange, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

ZONE: dict[str, dict[int, Sequence[Data]]] = {
    "plain.example": {
        wire.MX: [Exchange(20, "two.example"), Exchange(10, "one.example")],
    },
    "one.example": {wire.A: ["192.0.2.1"], wire.AAAA: ["2001:db8::1"]},
    "two.example": {wire.A: ["192.0.2.2", "192.0.2.3"]},
    "implicit.example": {wire.A: ["192.0.2.4"]},
    "empty.example": {wire.TXT: [(b"x",)]},
    "null.example": {wire.MX: [Exchange(0, ".")]},
    "loop.example": {wire.MX: [Exchange(0, "LOCALHOST")]},
    "partly.example": {wire.MX: [Exchange(0, "."), Exchange(5, "one.example")]},
    "dead.example": {wire.MX: [Exchange(1, "gone.example"), Exchange(2, "two.example")]},
    "allgone.example": {wire.MX: [Exchange(1, "gone.example"), Exchange(2, "fail.example")]},
    "alias.example": {wire.CNAME: ["plain.example"]},
    "mxalias.example": {wire.MX: [Exchange(1, "hostalias.example")]},
    "hostalias.example": {wire.CNAME: ["two.example"]},
    "many.example": {
        wire.MX: [Exchange(5, f"h{n}.example") for n in range(5)] + [Exchange(1, "one.example")]
    },
    "double.example": {wire.MX: [Exchange(20, "one.example"), Exchange(10, "ONE.example")]},
    **{f"h{n}.example": {wire.A: [f"192.0.2.{100 + n}"]} for n in range(5)},
}


def serve(send: Send) -> Reply:
    question = send.query.question
    assert question is not None
    name = question.name.lower()
    if name.startswith("fail."):
        return Reply(None, 0)
    answers: list[Record] = []
    while name in ZONE:
        types = ZONE[name]
        answers += [
            Record(name, question.rtype, 60, data) for data in types.get(question.rtype, [])
        ]
        if wire.CNAME not in types:
            break
        (target,) = types[wire.CNAME]
        assert isinstance(target, str)
        answers.append(Record(name, wire.CNAME, 60, target))
        name = target
    rcode = wire.NOERROR if name in ZONE else wire.NXDOMAIN
    message = replace(send.query, response=True, answers=tuple(answers), rcode=rcode)
    return Reply(wire.encode(message), 0)


def resolver(draw: Callable[[int], int] = lambda limit: limit - 1) -> Resolver:
    return Resolver(draw, Settings(), Hosts(), Cache())


def find(domain: str, draw: Optional[Callable[[int], int]] = None) -> Exchangers:
    using = resolver(draw) if draw else resolver()
    return answer(find_exchangers(using, domain, 0), serve)


ONE = Exchanger(10, "one.example", ("2001:db8::1", "192.0.2.1"))
TWO = Exchanger(20, "two.example", ("192.0.2.2", "192.0.2.3"))


@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("plain.example", (ONE, TWO)),
        ("PLAIN.example.", (ONE, TWO)),
        ("alias.example", (ONE, TWO)),
        ("implicit.example", (Exchanger(0, "implicit.example", ("192.0.2.4",)),)),
        ("partly.example", (ONE._replace(preference=5),)),
        ("dead.example", (TWO._replace(preference=2),)),
        ("mxalias.example", (Exchanger(1, "hostalias.example", TWO.addresses),)),
        ("double.example", (ONE._replace(host="ONE.example"),)),
        ("[192.0.2.7]", (Exchanger(-1, "[192.0.2.7]", ("192.0.2.7",)),)),
        ("[IPv6:2001:DB8::7]", (Exchanger(-1, "[IPv6:2001:DB8::7]", ("2001:db8::7",)),)),
        ("[::1]", (Exchanger(-1, "[::1]", ("::1",)),)),
    ],
)
def test_hosts_in_order(domain: str, hosts: tuple[Exchanger, ...]) -> None:
    assert find(domain) == Exchangers(Verdict.FOUND, hosts)


@pytest.mark.parametrize(
    ("domain", "verdict", "text"),
    [
        ("none.example", Verdict.PERMANENT, "Domain does not exist"),
        ("a..b", Verdict.PERMANENT, "Invalid domain name"),
        ("[192.0.2.256]", Verdict.PERMANENT, "Invalid domain name"),
        ("[IPv6:192.0.2.1]", Verdict.PERMANENT, "Invalid domain name"),
        ("[", Verdict.PERMANENT, "Invalid domain name"),
        ("null.example", Verdict.PERMANENT, "Domain does not accept mail"),
        ("loop.example", Verdict.PERMANENT, "Domain does not accept mail"),
        ("fail.example", Verdict.TEMPORARY, "Temporary failure in MX lookup"),
        ("empty.example", Verdict.TEMPORARY, "No MX found for domain"),
        ("allgone.example", Verdict.TEMPORARY, "No MX found for domain"),
    ],
)
def test_nowhere_to_go(domain: str, verdict: Verdict, text: str) -> None:
    assert find(domain) == Exchangers(verdict, (), text)


def test_equal_preferences_are_shuffled_and_nothing_else() -> None:
    orders = set()
    for seed in range(20):
        found = find("many.example", lambda limit, seed=seed: (seed * 7919 + 13) % limit)  # type: ignore[misc]
        assert found.hosts[0].host == "one.example"
        orders.add(tuple(host.host for host in found.hosts[1:]))
        assert {host.host for host in found.hosts[1:]} == {f"h{n}.example" for n in range(5)}
    assert len(orders) > 5


def test_a_backup_sends_to_better_hosts_only() -> None:
    found = find("plain.example")
    assert found.before("TWO.example") == Exchangers(Verdict.FOUND, (ONE,))
    assert found.before("other.example") is None
    best = found.before("one.example")
    assert best is not None
    assert (best.verdict, best.hosts) == (Verdict.TEMPORARY, ())


def test_a_machine_without_ipv6_asks_for_none() -> None:
    found = answer(find_exchangers(resolver(), "plain.example", 0, (wire.A,)), serve)
    assert found.hosts[0].addresses == ("192.0.2.1",)


def test_a_relay_host_is_no_domain() -> None:
    found = answer(find_host(resolver(), "plain.example", 0), serve)
    assert (found.verdict, found.text) == (Verdict.TEMPORARY, exchangers.NO_HOST)
    found = answer(find_host(resolver(), "one.example", 0), serve)
    assert found.hosts == (ONE._replace(preference=0),)
    found = answer(find_host(resolver(), "[::1]", 0), serve)
    assert found.hosts[0].addresses == ("::1",)


def test_a_relay_host_that_is_an_address_is_not_asked_for() -> None:
    def never(send: Send) -> Reply:
        raise AssertionError(send)

    found = answer(find_host(resolver(), "127.0.0.1", 0), never)
    assert found.hosts[0].addresses == ("127.0.0.1",)
