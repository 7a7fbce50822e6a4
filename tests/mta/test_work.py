"""The work of one relay: connections opened, routes left alone, envelopes held."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from smtpd_core.mta import listing
from smtpd_core.smtp.client import IDLE_SECONDS
from tests.fakes.loop import leap, run, until
from tests.fakes.relaying import AT_ONCE, World, play, smarthost, world_for
from tests.fakes.smtp_peer import CLOSE, STALL, Peer, serving

WIRE_BODY = b"Subject: x\r\n\r\nHello\r\n..dot\r\n"
NET = "Network error on destination MXs: 127.0.0.1: "


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"BANNER": "554 5.7.1 not you"}, "BANNER rejected: 554 5.7.1 not you"),
        ({"BANNER": "421 4.3.2 busy"}, "421 4.3.2 busy"),
        ({"BANNER": "451 4.3.2 busy"}, "BANNER rejected: 451 4.3.2 busy"),
        ({"CONNECT": CLOSE}, "Connection closed unexpectedly"),
        ({"EHLO": "500 no", "HELO": "502 no"}, "HELO rejected: 502 no"),
        ({"EHLO": CLOSE}, "Connection closed unexpectedly"),
        ({"BANNER": "hello"}, "Bad response: not an SMTP reply: b'hello'"),
    ],
)
def test_a_session_that_never_gets_ready_disables_the_route(
    script: dict[str, str], reason: str
) -> None:
    async def act(world: World, peer: Peer) -> None:
        assert await world.one() == f"temporary 4.4.1 {NET}{reason}"
        route = f"[] <-> 127.0.0.1:{peer.port} (mx.example)"
        assert f"smtp-out: Disabling route {route} for 15s" in world.lines
        assert f"0000000000000abc mta error reason={reason} address=127.0.0.1:{peer.port}" in (
            world.lines
        )
        assert peer.sessions == 1
        assert await world.one() == f"temporary 4.4.1 {NET}{reason}"
        assert peer.sessions == 1  # left alone
        assert listing.routes(world.mta) == [
            f"1. {route} ND-- nconn=0 nerror=1 penalty=1 timeout=15s"
        ]
        world.now += 15
        await world.one()
        assert f"smtp-out: Enabling route {route}" in world.lines
        assert peer.sessions == 2

    play(Peer(script), act)


def test_nobody_there() -> None:
    async def whole() -> None:
        async with serving(Peer()) as peer:
            pass
        world = world_for(peer)
        assert await world.one() == f"temporary 4.4.1 {NET}Connection refused".replace(
            "127.0.0.1: ", "127.0.0.1: IO Error: "
        )
        assert world.lines[-1].startswith(
            "0000000000000000 mta delivery evpid=0000000100000001 from=<s@here.example>"
            ' to=<d@there.example> rcpt=- source="-" relay="there.example" delay=1m5s'
            ' result="TempFail" stat="Network error on destination MXs: 127.0.0.1: IO Error: '
        )
        await world.close()

    run(whole())


def test_another_port_of_a_bad_host_is_still_good() -> None:
    async def whole() -> None:
        async with serving(Peer()) as good, serving(Peer({"BANNER": "554 no"})) as bad:
            world = world_for(bad)
            assert (await world.one()).startswith("temporary")
            world.lookups.tables["hosts"] = [f"smtp://mx.example:{good.port}"]
            assert (await world.one()).startswith("delivered")
            await world.close()

    run(whole())


def test_the_next_host_when_the_first_fails() -> None:
    async def whole() -> None:
        async with serving(Peer({"BANNER": "554 no"})) as bad:
            good = Peer(host="127.0.0.2", port=bad.port)
            async with serving(good):
                world = world_for(bad)
                world.resolver.hosts["mx.example"] = ("127.0.0.1", "127.0.0.2")
                assert (await world.one()).startswith("delivered")
                assert (bad.sessions, good.sessions) == (1, 1)
                assert (await world.one()).startswith("delivered")
                assert (bad.sessions, good.sessions) == (1, 1)
                await world.close()

    run(whole())


def test_a_blocked_domain() -> None:
    async def act(world: World, peer: Peer) -> None:
        assert world.mta.block("", "MX.example")
        assert listing.blocks(world.mta) == ["[] -> mx.example"]
        blocked = "temporary 4.4.4 All routes to destination blocked"
        assert await world.one() == blocked
        world.mta.unblock("", "mx.example")
        assert (await world.one()).startswith("delivered")

    play(Peer(), act)


def test_no_more_connections_than_allowed() -> None:
    async def act(world: World, peer: Peer) -> None:
        for _ in range(40):
            world.relay()
        await world.outcomes()
        assert len(peer.mails) == 40
        assert peer.most_open == 3

    play(Peer(), act, limits=replace(AT_ONCE, max_conn_per_route=3))


def test_hold_and_release() -> None:
    async def act(world: World, peer: Peer) -> None:
        for _ in range(8):
            world.relay()
        assert [evpid & 0xFF for evpid, _ in world.queue.held] == [5, 6, 7, 8]
        await world.outcomes()
        await until(lambda: len(world.queue.released) == 2)
        holdq = world.queue.held[0][1]
        assert holdq == f"out [relay:mx.example,port={peer.port},smtp,mx]"
        assert world.queue.released == [(holdq, 3), (holdq, 0)]
        relay = f"[relay:mx.example,port={peer.port},smtp,mx]"
        assert f"smtp-out: hiwat reached on {relay}: holding envelopes" in world.lines
        assert f"smtp-out: back to lowat on {relay}: releasing" in world.lines

    limits = replace(AT_ONCE, task_hiwat=4, task_lowat=2, task_release=3, max_conn_per_route=1)
    play(Peer(), act, limits=limits)


def test_a_relay_that_fails_lets_its_held_envelopes_go() -> None:
    async def act(world: World, _peer: Peer) -> None:
        for _ in range(4):
            world.relay()
        await world.outcomes()
        assert [count for _, count in world.queue.released] == [0]

    play(Peer({"BANNER": "554 no"}), act, limits=replace(AT_ONCE, task_hiwat=2))


def test_closing_while_the_dns_is_asked() -> None:
    async def whole() -> None:
        world = World(smarthost())

        world.resolver.silent = True
        world.relay()
        await asyncio.sleep(0.01)
        assert listing.relays(world.mta) == [
            "[relay:there.example,smtp] refcount=1 ntask=1 nconn=0 lastconn=- timeout=- wait=MX"
        ]
        await world.close()
        assert await world.outcomes() == ["temporary 4.3.2 Server is shutting down"]

    run(whole())


def test_many_mails_over_few_connections() -> None:
    async def act(world: World, peer: Peer) -> None:
        for _ in range(200):
            world.relay()
        outcomes = await world.outcomes()
        assert outcomes == ["delivered 2.0.0 250 2.0.0 Accepted"] * 200
        assert len(peer.mails) == 200
        assert peer.sessions <= 5

    limits = replace(AT_ONCE, task_hiwat=500)
    play(Peer(extensions=("PIPELINING",)), act, limits=limits)


def test_who_waits_for_a_limit_looks_again_in_time() -> None:
    async def act(world: World, peer: Peer) -> None:
        for _ in range(4):
            world.relay()
        await until(lambda: any("DATA" in command for command in peer.commands))
        (work,) = world.mta.works.values()
        await until(lambda: work.wait is not None)
        assert peer.sessions == 1
        world.now += 2
        leap(2)
        await until(lambda: peer.sessions == 2)

        await until(lambda: len(world.queue.reports) == 3)
        leap(IDLE_SECONDS + 1)  # for the mail that hangs
        await world.outcomes()

    limits = replace(AT_ONCE, conn_delay_relay=2)
    play(Peer({"TEXT": [STALL, "250 ok"]}), act, limits=limits)
