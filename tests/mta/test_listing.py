"""What an operator is shown."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from smtpd_core.mta import listing
from tests.fakes.loop import run, until
from tests.fakes.relaying import AT_ONCE, World, smarthost
from tests.fakes.smtp_peer import STALL, Peer, serving


def test_while_a_mail_is_under_way_and_after() -> None:
    async def whole() -> None:
        async with serving(Peer({"TEXT": STALL})) as peer:
            world = World(smarthost("yes"), limits=replace(AT_ONCE, conn_delay_relay=9))
            world.lookups.tables["hosts"] = [f"smtp://mx.example:{peer.port}"]
            world.resolver.hosts["mx.example"] = ("127.0.0.1",)
            world.resolver.names["127.0.0.1"] = "mx.example"
            for _ in range(3):
                world.relay()
            await until(lambda: "DATA" in peer.commands)
            await asyncio.sleep(0.01)
            world.now += 2
            name = f"[relay:mx.example,port={peer.port},smtp,mx]"
            assert listing.relays(world.mta) == [
                f"{name} refcount=2 ntask=2 nconn=1 lastconn=2s timeout=3s wait=limits",
                "  connector [] refcount=0 nconn=1 lastconn=2s timeout=- flags=LIMIT_RELAY",
            ]
            assert listing.hosts(world.mta) == [
                "127.0.0.1 mx.example refcount=1 nconn=1 lastconn=2s"
            ]
            route = f"[] <-> 127.0.0.1:{peer.port} (mx.example)"
            numbers = "nconn=1 nerror=0 penalty=0 timeout=-"
            assert listing.routes(world.mta) == [f"1. {route} ---- {numbers}"]
            assert listing.hoststats(world.mta) == []
            assert listing.blocks(world.mta) == []
            counters = ("mta.relay", "mta.session", "mta.task", "mta.task.running", "mta.route")
            assert [world.stats[key] for key in counters] == [1, 1, 3, 1, 1]
            await world.close(0.01)
            await until(lambda: not world.mta.works)
            assert listing.relays(world.mta) == []
            assert len(listing.hoststats(world.mta)) == 1

    run(whole())


def test_hosts_by_length_of_address_then_by_octets() -> None:
    async def whole() -> None:
        world = World(smarthost())
        for address in ("2001:db8::1", "192.0.2.10", "192.0.2.9", "fe80::1%lo"):
            world.mta.limits.hosts.of(address)
        shown = [line.split()[0] for line in listing.hosts(world.mta)]
        assert shown == ["192.0.2.9", "192.0.2.10", "2001:db8::1", "fe80::1%lo"]
        assert listing.hosts(world.mta)[0] == "192.0.2.9 (null) refcount=0 nconn=0 lastconn=-"
        for source, domain in (("", ""), ("192.0.2.1", "x.example"), ("2001:db8::1", "y")):
            world.mta.block(source, domain)
        assert listing.blocks(world.mta) == [
            "[] -> *",
            "192.0.2.1 -> x.example",
            "[2001:db8::1] -> y",
        ]
        await world.close()

    run(whole())
