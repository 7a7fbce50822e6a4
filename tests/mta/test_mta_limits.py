"""Limits with a clock of numbers: maxima, delays, preferences, penalties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.config.settings import MtaLimits
from smtpd_core.mta import limits as module
from smtpd_core.mta.limits import (
    FORGET_SECONDS,
    MAX_ERRORS,
    Limit,
    Limits,
    Obstacle,
    Route,
    Trouble,
    Wait,
    Way,
    gravest,
)
from smtpd_core.mta.targets import Hop, Relay
from tests.fakes.relaying import AT_ONCE, smarthost

NOW = 1_000_000
RELAY = Relay(smarthost(), "there.example")
HOP = Hop(10, "mx.example", "192.0.2.1", 25)
SECOND = Hop(10, "mx.example", "192.0.2.2", 25)
WORSE = Hop(20, "mx2.example", "192.0.2.3", 25)


def way(source: str = "", relay: Relay = RELAY, **changes: Any) -> Way:
    return Way(relay, source, replace(AT_ONCE, **changes))


def go(limits: Limits, where: Way, *hops: Hop, now: int = NOW) -> Route:
    """Choose a route and connect on it."""
    found = limits.choose(where, hops, now)
    assert isinstance(found, Route), found
    limits.connect(where, found, now)
    return found


def good(limits: Limits, where: Way, *hops: Hop, now: int = NOW) -> Route:
    """Connect, and get ready."""
    route = go(limits, where, *hops, now=now)
    limits.ready(route)
    return route


@pytest.mark.parametrize(
    ("changes", "other", "limit"),
    [
        ({"max_conn_per_host": 1}, {}, Limit.HOST),
        ({"max_conn_per_route": 1}, {}, Limit.ROUTE),
        ({"max_conn_per_source": 1}, {"relay": Relay(smarthost(), "b.example")}, Limit.SOURCE),
        ({"max_conn_per_connector": 1}, {}, Limit.CONNECTOR),
        ({"max_conn_per_relay": 1}, {"source": "192.0.2.99"}, Limit.RELAY),
        (
            {"max_conn_per_domain": 1},
            {"source": "192.0.2.99", "relay": Relay(smarthost(name="o"), "there.example")},
            Limit.DOMAIN,
        ),
    ],
)
def test_maxima(changes: dict[str, Any], other: dict[str, Any], limit: Limit) -> None:
    limits = Limits()
    first = way(**changes)
    route = good(limits, first, HOP)
    second = way(**changes, **other)
    assert limits.choose(second, [HOP], NOW) == Wait(5, limit)
    assert limits.disconnect(first, route, NOW) == 0
    assert isinstance(limits.choose(second, [HOP], NOW), Route)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"conn_delay_host": 3}, Limit.HOST),
        ({"conn_delay_route": 3}, Limit.ROUTE),
        ({"conn_delay_source": 3}, Limit.SOURCE),
        ({"conn_delay_connector": 3}, Limit.CONNECTOR),
        ({"conn_delay_relay": 3}, Limit.RELAY),
        ({"conn_delay_domain": 3}, Limit.DOMAIN),
    ],
)
def test_delays(changes: dict[str, Any], limit: Limit) -> None:
    limits = Limits()
    where = way(**changes)
    good(limits, where, HOP)
    assert limits.choose(where, [HOP], NOW) == Wait(3, limit)
    assert limits.choose(where, [HOP], NOW + 2) == Wait(1, limit)
    assert isinstance(limits.choose(where, [HOP], NOW + 3), Route)


def test_a_route_rests_after_a_disconnect() -> None:
    limits = Limits()
    where = way(reconn_delay_route=3)
    limits.disconnect(where, good(limits, where, HOP), NOW + 10)
    assert limits.choose(where, [HOP], NOW + 11) == Wait(2, Limit.ROUTE)
    assert isinstance(limits.choose(where, [HOP], NOW + 13), Route)


def test_the_original_defaults() -> None:
    limits = Limits()
    where = Way(RELAY, "", MtaLimits())
    good(limits, where, HOP)
    assert limits.choose(where, [HOP], NOW) == Wait(2, Limit.RELAY)
    assert limits.choose(where, [HOP], NOW + 2) == Wait(3, Limit.ROUTE)
    assert isinstance(limits.choose(where, [HOP], NOW + 5), Route)


def test_a_long_delay_is_looked_at_every_few_seconds() -> None:
    limits = Limits()
    where = way(conn_delay_domain=600)
    good(limits, where, HOP)
    assert limits.choose(where, [HOP], NOW + 1) == Wait(5, Limit.DOMAIN)


def test_the_least_busy_route_of_the_best_preference() -> None:
    limits = Limits()
    where = way(max_conn_per_route=2)
    hops = (WORSE, HOP, SECOND)
    used = [good(limits, where, *hops).address for _ in range(4)]
    assert used == ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"]
    # The better ones are busy, not bad: the worse one is not for now.
    assert limits.choose(where, hops, NOW) == Wait(5, Limit.ROUTE)


def test_a_worse_preference_when_the_better_has_nothing() -> None:
    limits = Limits()
    where = way()
    limits.disconnect(where, go(limits, where, HOP, WORSE), NOW, "refused")
    assert good(limits, where, HOP, WORSE).address == WORSE.address


def test_a_new_route_has_one_connection() -> None:
    limits = Limits()
    route = go(limits, way(), HOP)
    assert limits.choose(way(), [HOP], NOW) == Wait(5, Limit.ROUTE)
    limits.ready(route)
    assert limits.choose(way(), [HOP], NOW) is route


@pytest.mark.parametrize(
    ("source", "family", "hops", "expected"),
    [
        ("", 4, ["2001:db8::1"], Trouble.FAMILY),
        ("", 6, ["192.0.2.1"], Trouble.FAMILY),
        ("192.0.2.99", 0, ["2001:db8::1"], Trouble.FAMILY),
        ("2001:db8::99", 0, ["192.0.2.1"], Trouble.FAMILY),
        ("2001:db8::99", 0, ["192.0.2.1", "2001:db8::1"], "2001:db8::1"),
        ("", 4, ["2001:db8::1", "192.0.2.1"], "192.0.2.1"),
        ("", 0, [], Trouble.MX),
    ],
)
def test_families(source: str, family: int, hops: list[str], expected: Union[str, Trouble]) -> None:
    found = Limits().choose(
        way(source, family=family), [HOP._replace(address=each) for each in hops], NOW
    )
    if isinstance(found, Route):
        assert found.address == expected
    else:
        assert found == Obstacle(expected)  # type: ignore[arg-type]


def test_penalties_grow_and_shrink() -> None:
    limits = Limits()
    where, now, seconds = way(), NOW, []
    route = limits.route("", HOP)
    for _ in range(3):  # three connections of a route that was good, all failing later
        limits.connect(where, route, now)
    for expected in (15, 60, 135):
        route.is_new = True
        seconds.append(limits.disconnect(where, route, now, "time-out"))
        assert seconds[-1] == expected
    assert limits.choose(where, [HOP], now + 134) == Obstacle(Trouble.ROUTE_NET, "time-out")
    assert limits.sweep(now + 134) == []
    assert limits.sweep(now + 135) == [route]
    assert (route.penalty, route.is_new, route.disabled_until) == (2, True, 0)
    assert limits.choose(where, [HOP], now + 135) is route


def test_penalties_have_an_end() -> None:
    limits = Limits()
    where = way()
    route = limits.route("", HOP)
    for _ in range(20):
        limits.connect(where, route, NOW)
        last = limits.disconnect(where, route, NOW, "refused")
    assert last == 3600


def test_a_penalty_is_for_one_port_and_one_source() -> None:
    limits = Limits()
    where = way()
    limits.disconnect(where, go(limits, where, HOP), NOW, "refused")
    assert isinstance(limits.choose(where, [HOP], NOW), Obstacle)
    assert isinstance(limits.choose(where, [HOP._replace(port=587)], NOW), Route)
    assert isinstance(limits.choose(way("192.0.2.99"), [HOP], NOW), Route)


def test_a_route_that_was_good_has_some_credit() -> None:
    limits = Limits()
    where = way()
    for count in range(1, MAX_ERRORS):
        route = good(limits, where, HOP)
        assert limits.disconnect(where, route, NOW, "reset") == 0
        assert route.errors == count
    limits.delivered(route)
    assert route.errors == 0
    for _ in range(MAX_ERRORS):
        seconds = limits.disconnect(where, good(limits, where, HOP), NOW, "reset")
    assert seconds == 15
    assert limits.choose(where, [HOP], NOW) == Obstacle(Trouble.ROUTE_NET, "reset")


def test_a_host_that_rejects_all() -> None:
    limits = Limits()
    route = good(limits, way(), HOP)
    assert limits.reject(route, "450 no", NOW) == 15
    assert limits.choose(way(), [HOP], NOW) == Obstacle(Trouble.ROUTE_SMTP, "450 no")


def test_the_gravest_obstacle_is_told() -> None:
    limits = Limits()
    where = way(family=4)
    limits.disconnect(where, go(limits, where, HOP), NOW, "refused")
    six = HOP._replace(address="2001:db8::1")
    assert limits.choose(where, [six, HOP], NOW) == Obstacle(Trouble.ROUTE_NET, "refused")
    assert gravest([Obstacle(Trouble.BLOCKED), Obstacle(Trouble.MX)]) == Obstacle(Trouble.MX)


def test_resume() -> None:
    limits = Limits()
    where = way()
    for hop in (HOP, SECOND):
        limits.disconnect(where, go(limits, where, hop), NOW, "refused")
    assert limits.resume(99) == []
    (resumed,) = limits.resume(2)
    assert (resumed.address, resumed.penalty) == (SECOND.address, 0)
    assert limits.choose(where, [HOP, SECOND], NOW) is resumed
    assert [route.ident for route in limits.resume(0)] == [1]


def test_blocks() -> None:
    limits = Limits()
    assert limits.block("", "There.Example")
    assert limits.choose(way(), [HOP], NOW) == Obstacle(Trouble.BLOCKED)
    assert isinstance(limits.choose(way("192.0.2.99"), [HOP], NOW), Route)
    limits.unblock("", "there.example")
    limits.unblock("", "there.example")
    assert isinstance(limits.choose(way(), [HOP], NOW), Route)
    limits.block("", "")
    assert limits.choose(way(), [HOP], NOW) == Obstacle(Trouble.BLOCKED)
    for number in range(module.MAX_BLOCKS - 1):
        assert limits.block("", str(number))
    assert not limits.block("", "one too many")


def test_what_is_unused_is_forgotten_and_nothing_else() -> None:
    limits = Limits()
    where = way()
    good(limits, where, HOP)
    limits.disconnect(where, good(limits, where, SECOND), NOW)
    limits.disconnect(where, go(limits, where, WORSE), NOW + FORGET_SECONDS, "refused")
    limits.sweep(NOW + FORGET_SECONDS + 1)
    assert {address for _, address, _ in limits.routes} == {HOP.address, WORSE.address}
    assert set(limits.hosts.known) == {HOP.address, WORSE.address}
    assert set(limits.relays.known) == {RELAY}


def test_spelling() -> None:
    route = Route(source="2001:db8::9", address="2001:db8::1", port=25)
    assert str(route) == "[2001:db8::9] <-> [2001:db8::1]"
    assert str(Route(address="192.0.2.1", port=587, name="mx")) == "[] <-> 192.0.2.1:587 (mx)"


@given(st.lists(st.tuples(st.sampled_from("cdfrs"), st.integers(0, 40)), max_size=80))
def test_counts_never_go_wrong(steps: list[tuple[str, int]]) -> None:
    """Whatever happens, open connections are counted, and never beyond the limits."""
    limits, now = Limits(), NOW
    where = way(max_conn_per_host=3, max_conn_per_relay=4)
    open_routes: list[Route] = []
    for step, number in steps:
        if step == "c":
            found = limits.choose(where, [HOP, SECOND, WORSE], now)
            if isinstance(found, Route):
                limits.connect(where, found, now)
                open_routes.append(found)
        elif step in "df" and open_routes:
            route = open_routes.pop(number % len(open_routes))
            limits.disconnect(where, route, now, "failed" if step == "f" else None)
        elif step == "r" and open_routes:
            limits.ready(open_routes[number % len(open_routes)])
        else:
            now += number
            limits.sweep(now)
        assert limits.relays.of(RELAY).connections == len(open_routes) <= 4
        for hop in (HOP, SECOND, WORSE):
            count = sum(route.address == hop.address for route in open_routes)
            assert limits.hosts.of(hop.address).connections == count <= 3
        assert all(route.penalty >= 0 for route in limits.routes.values())
