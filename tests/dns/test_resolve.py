"""One resolution against servers that are functions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.ask import answer
from smtpd_core.dns import resolve, wire
from smtpd_core.dns.cache import Cache
from smtpd_core.dns.resolve import Answer, Reply, Resolver, Send, Status
from smtpd_core.dns.system import Hosts, Server, Settings, parse_hosts
from smtpd_core.dns.wire import Authority, Message, Question, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 1_700_000_000
ONE, TWO = Server("192.0.2.53"), Server("192.0.2.54")
SOA = Record("example.org", wire.SOA, 900, Authority("ns", "root", 1, 2, 3, 4, 300))
Step = Union[None, bytes, Callable[[Message], Message]]


class Servers:
    """Give the scripted replies one after the other; remember what was asked."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        self.sent: list[Send] = []

    def __call__(self, send: Send) -> Reply:
        assert wire.decode(send.octets) == send.query
        self.sent.append(send)
        step = self.steps.pop(0)
        if step is None or isinstance(step, bytes):
            return Reply(step, NOW)
        return Reply(wire.encode(step(send.query)), NOW)


def reply(
    *answers: Record, rcode: int = 0, soa: Optional[Record] = None, truncated: bool = False
) -> Callable[[Message], Message]:
    def respond(asked: Message) -> Message:
        return replace(
            asked,
            response=True,
            answers=answers,
            authority=(soa,) if soa else (),
            rcode=rcode,
            truncated=truncated,
        )

    return respond


def a(name: str, address: str, ttl: int = 60) -> Record:
    return Record(name, wire.A, ttl, address)


def alias(name: str, target: str, ttl: int = 60) -> Record:
    return Record(name, wire.CNAME, ttl, target)


def draw(limit: int) -> int:
    return 0x5A5A5A5A % limit


def resolver(cache: Optional[Cache] = None, hosts: str = "", **settings: object) -> Resolver:
    changed = replace(Settings(servers=(ONE, TWO)), **settings)  # type: ignore[arg-type]
    return Resolver(
        draw,
        changed,
        parse_hosts(hosts) if hosts else Hosts(),
        Cache(0) if cache is None else cache,
    )


def run(
    steps: Sequence[Step], name: str = "example.org", using: Optional[Resolver] = None
) -> tuple[Answer, Servers]:
    servers = Servers(steps)
    found = answer((using or resolver()).lookup(name, wire.A, NOW), servers)
    assert not servers.steps
    return found, servers


def test_the_first_server_answers() -> None:
    found, servers = run([reply(a("example.org", "192.0.2.1"))])
    assert (found.status, found.texts) == (Status.FOUND, ["192.0.2.1"])
    (sent,) = servers.sent
    assert (sent.server, sent.tcp, sent.timeout_seconds) == (ONE, False, 5)
    assert sent.query.udp_size == 1232
    assert sent.query.question is not None
    assert sent.query.question.name != "example.org"
    assert sent.query.question.name.lower() == "example.org"


@pytest.mark.parametrize(
    "bad",
    [
        None,
        b"nonsense",
        reply(rcode=wire.SERVFAIL),
        reply(rcode=wire.REFUSED),
        reply(rcode=9),
        lambda asked: replace(reply()(asked), ident=asked.ident ^ 1),
        lambda asked: replace(reply()(asked), question=Question("example.org", wire.A)),
    ],
)
def test_a_server_that_fails_is_passed_over(bad: Step) -> None:
    found, servers = run([bad, reply(a("example.org", "192.0.2.1"))])
    assert found.status is Status.FOUND
    assert [sent.server for sent in servers.sent] == [ONE, TWO]


def test_all_servers_are_asked_as_often_as_the_settings_say() -> None:
    found, servers = run([None] * 6, using=resolver(attempts=3))
    assert found.status is Status.FAILED
    assert found.why == "192.0.2.54: no answer"
    assert [sent.server for sent in servers.sent] == [ONE, TWO] * 3


def test_rotation_starts_elsewhere() -> None:
    using = replace(resolver(rotate=True), draw=lambda limit: limit - 1)
    _, servers = run([None, reply(a("example.org", "192.0.2.1"))], using=using)
    assert [sent.server for sent in servers.sent] == [TWO, ONE]


def test_a_truncated_answer_is_asked_again_over_tcp() -> None:
    found, servers = run([reply(truncated=True), reply(a("example.org", "192.0.2.1"))])
    assert found.status is Status.FOUND
    assert [(sent.server, sent.tcp) for sent in servers.sent] == [(ONE, False), (ONE, True)]
    found, servers = run([reply(truncated=True), None, reply()])
    assert [sent.tcp for sent in servers.sent] == [False, True, False]


def test_truncation_over_tcp_is_a_failure() -> None:
    found, _ = run([reply(truncated=True)] * 2, using=resolver(servers=(ONE,), attempts=1))
    assert found.why == "192.0.2.53: a truncated answer over TCP"


@pytest.mark.parametrize("rcode", [wire.FORMERR, wire.NOTIMP])
def test_a_server_without_edns_is_asked_without(rcode: int) -> None:
    found, servers = run([reply(rcode=rcode), reply(a("example.org", "192.0.2.1"))])
    assert found.status is Status.FOUND
    assert [sent.query.udp_size for sent in servers.sent] == [1232, None]
    assert servers.sent[1].server == ONE


def test_an_alias_in_the_answer_is_followed() -> None:
    found, _ = run([reply(alias("example.org", "b.example"), a("B.example", "192.0.2.2"))])
    assert (found.name, found.texts) == ("b.example", ["192.0.2.2"])


def test_an_alias_without_its_target_is_asked_for() -> None:
    found, servers = run(
        [reply(alias("example.org", "b.example")), reply(a("b.example", "192.0.2.2"))]
    )
    assert found.texts == ["192.0.2.2"]
    assert servers.sent[1].query.question is not None
    assert servers.sent[1].query.question.name.lower() == "b.example"


def test_aliases_in_a_circle_end() -> None:
    found, _ = run([reply(alias("example.org", "b.example"), alias("b.example", "example.org"))])
    assert (found.status, found.why) == (Status.FAILED, "too many aliases")
    steps = [reply(alias("example.org", "b.example")), reply(alias("b.example", "example.org"))]
    found, _ = run(steps * (resolve.MAX_ALIASES // 2))
    assert (found.status, found.why) == (Status.FAILED, "too many aliases")


def test_records_of_other_names_are_not_believed() -> None:
    found, _ = run([reply(a("victim.example", "192.0.2.66"), soa=SOA)])
    assert (found.status, found.records) == (Status.NO_DATA, ())


def test_what_does_not_exist() -> None:
    assert run([reply(rcode=wire.NXDOMAIN)])[0].status is Status.NO_NAME
    assert run([reply(soa=SOA)])[0].status is Status.NO_DATA
    assert run([], name="a..b")[0].status is Status.INVALID


def test_answers_are_kept_while_they_hold() -> None:
    using = resolver(Cache())
    chain = reply(alias("example.org", "b.example", 30), a("b.example", "192.0.2.2", 600))
    first, _ = run([chain], using=using)
    second, _ = run([], name="EXAMPLE.org.", using=using)
    assert second == first
    servers = Servers([None] * 4)
    late = answer(using.lookup("example.org", wire.A, NOW + 30), servers)
    assert late.status is Status.FAILED


@pytest.mark.parametrize("rcode", [wire.NOERROR, wire.NXDOMAIN])
def test_absence_is_kept_as_long_as_the_zone_says(rcode: int) -> None:
    using = resolver(Cache())
    run([reply(rcode=rcode, soa=SOA)], using=using)
    assert answer(using.lookup("example.org", wire.A, NOW + 299), Servers([])).records == ()
    servers = Servers([reply(rcode=rcode)])
    answer(using.lookup("example.org", wire.A, NOW + 300), servers)
    answer(using.lookup("example.org", wire.A, NOW + 300), Servers([reply(rcode=rcode)]))


def test_a_failure_is_not_kept() -> None:
    using = resolver(Cache())
    run([None] * 4, using=using)
    assert run([reply(a("example.org", "192.0.2.1"))], using=using)[0].status is Status.FOUND


def test_the_hosts_file_comes_first() -> None:
    using = resolver(hosts="192.0.2.9 Example.org mail\n::1 localhost\n")
    assert run([], using=using)[0].texts == ["192.0.2.9"]
    assert run([], name="localhost", using=using)[0].status is Status.NO_DATA
    servers = Servers([reply()])
    answer(using.lookup("example.org", wire.MX, NOW), servers)
    assert len(servers.sent) == 1


@given(st.lists(st.none() | st.binary(max_size=60), min_size=1, max_size=12))
def test_any_replies_end_in_an_answer(replies: list[Optional[bytes]]) -> None:
    def respond(send: Send) -> Reply:
        octets = replies.pop() if replies else None
        return Reply(send.octets[:2] + octets if octets else None, NOW)

    found = answer(resolver().lookup("example.org", wire.A, NOW), respond)
    assert isinstance(found, Answer)
