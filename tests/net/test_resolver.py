"""Resolver against a server on loopback that answers, delays, truncates and lies."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from smtpd_core.dns import exchangers, wire
from smtpd_core.dns.exchangers import Exchangers, Verdict
from smtpd_core.dns.resolve import Answer, Status
from smtpd_core.dns.reverse import Confirmation
from smtpd_core.net import resolver as resolver_module
from smtpd_core.net.resolver import Resolver, usable_types
from tests.fakes.dns_server import (
    DnsServer,
    lying,
    refusing,
    serving,
    silent,
    truncated,
)
from tests.fakes.loop import run, until

HOSTS = "127.0.0.1 localhost\n192.0.2.9 known.example alias.example\n"
IPV4 = (wire.A,)


def make(server: DnsServer, **options: Any) -> Resolver:
    options.setdefault("types", IPV4)
    conf = options.pop("conf", server.resolv_conf)
    draw = Random(7).randrange
    return Resolver(conf, HOSTS, clock=lambda: 1000, draw=draw, **options)


def zone() -> DnsServer:
    server = DnsServer()
    server.mx("example.org", (20, "mx2.example.org"), (10, "mx1.example.org"))
    server.add("mx1.example.org", wire.A, "192.0.2.1")
    server.add("mx2.example.org", wire.A, "192.0.2.2", "192.0.2.3")
    server.add("mx2.example.org", wire.AAAA, "2001:db8::2")
    server.add("1.2.0.192.in-addr.arpa", wire.PTR, "mx1.example.org")
    server.mx("null.example", (0, "."))
    return server


def test_the_hosts_of_a_domain() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            found = await make(server).mx("Example.ORG")
            assert [(host.host, host.addresses) for host in found.hosts] == [
                ("mx1.example.org", ("192.0.2.1",)),
                ("mx2.example.org", ("192.0.2.2", "192.0.2.3")),
            ]
            assert all(not tcp for _, _, tcp in server.asked)
            assert len(set(server.sources)) == len(server.sources) == 3  # a port per query

    run(scenario())


def test_both_kinds_of_address() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            resolver = make(server, types=exchangers.ADDRESS_TYPES)
            assert await resolver.addresses("mx2.example.org") == [
                "2001:db8::2",
                "192.0.2.2",
                "192.0.2.3",
            ]

    run(scenario())


def test_single_hosts_names_and_records() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            resolver = make(server)
            host = await resolver.host("mx1.example.org")
            assert host.hosts[0].addresses == ("192.0.2.1",)
            assert (await resolver.host("none.example")).text == exchangers.NO_HOST
            assert await resolver.ptr("192.0.2.1") == ("mx1.example.org", Confirmation.PASS)
            assert (await resolver.ptr("192.0.2.2")).confirmed is Confirmation.FAIL
            assert (await resolver.ptr("no address")).name == "<unknown>"
            assert await resolver.addresses("known.example") == ["192.0.2.9"]
            answer = await resolver.lookup("example.org", wire.TXT)
            assert answer.status is Status.NO_DATA

    run(scenario())


@pytest.mark.parametrize(
    ("domain", "verdict", "text"),
    [
        ("null.example", Verdict.PERMANENT, "Domain does not accept mail"),
        ("nowhere.example", Verdict.PERMANENT, "Domain does not exist"),
        ("bad..example", Verdict.PERMANENT, "Invalid domain name"),
    ],
)
def test_domains_without_mail(domain: str, verdict: Verdict, text: str) -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            assert await make(server).mx(domain) == Exchangers(verdict, text=text)

    run(scenario())


def test_truncation_leads_to_tcp() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.behaviours["example.org"] = truncated
            assert (await make(server).mx("example.org")).verdict is Verdict.FOUND
            assert ("example.org", wire.MX, True) in server.asked

    run(scenario())


def test_lies_are_dropped_and_the_truth_is_waited_for() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.behaviours["mx1.example.org"] = lying(10)
            assert await make(server).addresses("mx1.example.org") == ["192.0.2.1"]

    run(scenario())


def test_too_many_lies_end_the_wait() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.behaviours["mx1.example.org"] = lying(resolver_module.MAX_STRAYS + 1)
            answer = await make(server).lookup("mx1.example.org", wire.A)
            assert answer.status is Status.FAILED

    run(scenario())


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [(refusing(wire.SERVFAIL), "SERVFAIL"), (refusing(wire.REFUSED), "REFUSED")],
)
def test_a_server_that_cannot(behaviour: Any, why: str) -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.behaviours["example.org"] = behaviour
            resolver = make(server)
            found = await resolver.mx("example.org")
            assert found == Exchangers(Verdict.TEMPORARY, text="Temporary failure in MX lookup")
            answer = await resolver.lookup("example.org", wire.A)
            assert answer.why == f"127.0.0.1: {why}"

    run(scenario())


def test_time_is_bounded() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.behaviours["example.org"] = silent
            started = asyncio.get_running_loop().time()
            found = await make(server).mx("example.org")
            assert found.verdict is Verdict.TEMPORARY
            assert 0.9 < asyncio.get_running_loop().time() - started < 5

    run(scenario())


def test_a_port_where_nobody_listens_fails_at_once() -> None:
    async def scenario() -> None:
        async with serving() as server:
            conf = server.resolv_conf
        started = asyncio.get_running_loop().time()
        resolver = make(server, conf=conf)
        assert (await resolver.lookup("example.org", wire.A)).status is Status.FAILED
        conf += "options use-vc\n"
        assert (await make(server, conf=conf).lookup("a.example", wire.A)).status is Status.FAILED
        assert asyncio.get_running_loop().time() - started < 0.9

    run(scenario())


def test_aliases_that_lead_in_circles() -> None:
    async def scenario() -> None:
        async with serving() as server:
            server.add("a.example", wire.CNAME, "b.example")
            server.add("b.example", wire.CNAME, "a.example")
            answer = await make(server).lookup("a.example", wire.A)
            assert answer.status is Status.FAILED
            assert "aliases" in answer.why

    run(scenario())


def test_same_questions_share_one_lookup() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.delay_seconds = 0.05
            resolver = make(server)
            answers = await asyncio.gather(
                *(resolver.addresses("mx1.example.org") for _ in range(50)),
                *(resolver.addresses("MX1.example.org") for _ in range(50)),
            )
            assert answers == [["192.0.2.1"]] * 100
            assert len(server.asked) == 1
            assert await resolver.addresses("mx1.example.org") == ["192.0.2.1"]
            assert len(server.asked) == 1  # now from the cache

    run(scenario())


def test_who_gives_up_does_not_stop_the_others() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.delay_seconds = 0.05
            resolver = make(server)
            one = asyncio.ensure_future(resolver.addresses("mx1.example.org"))
            other = asyncio.ensure_future(resolver.addresses("mx1.example.org"))
            await until(lambda: server.asked)
            one.cancel()
            assert await other == ["192.0.2.1"]
            assert one.cancelled()

    run(scenario())


def test_queries_in_flight_are_limited() -> None:
    async def scenario() -> None:
        async with serving() as server:
            names = [f"h{number}.example" for number in range(resolver_module.MAX_IN_FLIGHT + 9)]
            for name in names:
                server.add(name, wire.A, "192.0.2.1")
            server.behaviours = dict.fromkeys(names, silent)
            resolver = make(server)
            waiting = [asyncio.ensure_future(resolver.addresses(name)) for name in names]
            await until(lambda: len(server.asked) == resolver_module.MAX_IN_FLIGHT)
            await asyncio.sleep(0.02)
            assert len(server.asked) == resolver_module.MAX_IN_FLIGHT
            server.behaviours = {}
            waiting[0].cancel()  # its query goes on: somebody else might have joined
            await until(lambda: len(server.asked) == len(names))  # after a second
            assert await waiting[-1] == ["192.0.2.1"]
            await resolver.close()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(scenario())


def test_lookups_are_limited() -> None:
    async def scenario() -> None:
        async with serving() as server:
            server.behaviours = {
                f"h{number}.example": silent for number in range(resolver_module.MAX_LOOKUPS)
            }
            resolver = make(server)
            waiting = [
                asyncio.ensure_future(resolver.addresses(name)) for name in server.behaviours
            ]
            await until(lambda: server.asked)
            assert await resolver.addresses("other.example") == []
            assert (await resolver.mx("example.org")).text == exchangers.LOOKUP_FAILED
            assert (await resolver.ptr("192.0.2.1")).confirmed is Confirmation.ERROR
            await resolver.close()
            assert await asyncio.gather(*waiting) == [[]] * resolver_module.MAX_LOOKUPS

    run(scenario())


def test_reload_forgets_and_goes_by_the_new_files() -> None:
    async def scenario() -> None:
        async with serving(zone()) as old, serving() as new:
            new.add("mx1.example.org", wire.A, "198.51.100.1")
            resolver = make(old)
            assert await resolver.addresses("mx1.example.org") == ["192.0.2.1"]
            resolver.reload(new.resolv_conf, "192.0.2.200 known.example\n")
            assert await resolver.addresses("mx1.example.org") == ["198.51.100.1"]
            assert await resolver.addresses("known.example") == ["192.0.2.200"]

    run(scenario())


def test_close_ends_what_is_under_way() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            server.behaviours["example.org"] = silent
            resolver = make(server)
            waiting = asyncio.ensure_future(resolver.mx("example.org"))
            await until(lambda: server.asked)
            await resolver.close()
            assert (await waiting).verdict is Verdict.TEMPORARY
            assert (await resolver.lookup("example.org", wire.A)).status is Status.FAILED

    run(scenario())


def test_other_askers_are_driven_too() -> None:
    async def scenario() -> None:
        async with serving(zone()) as server:
            resolver = make(server)
            answer: Answer = await resolver.ask(
                lambda shared, now: shared.lookup("mx1.example.org", wire.A, now)
            )
            assert answer.texts == ["192.0.2.1"]

    run(scenario())


def test_usable_types_are_never_none() -> None:
    assert usable_types()
    assert set(usable_types()) <= set(exchangers.ADDRESS_TYPES)
