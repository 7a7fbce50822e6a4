"""Relaying from envelopes to outcomes: which relay, which transaction, what is reported."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from smtpd_core.config.model import RelayTls
from smtpd_core.dns.exchangers import Exchanger, Exchangers, Verdict
from smtpd_core.mail import srs
from smtpd_core.mail.srs import Keys
from smtpd_core.mta import listing
from smtpd_core.routing.rules import Failure
from tests.fakes.certificates import OTHER_EXAMPLE, server_context
from tests.fakes.loop import run, until
from tests.fakes.relaying import AT_ONCE, KEY, NOW, World, play, smarthost, world_for
from tests.fakes.smtp_peer import STALL, Peer, serving

if TYPE_CHECKING:
    from pathlib import Path

WIRE_BODY = b"Subject: x\r\n\r\nHello\r\n..dot\r\n"
NET = "Network error on destination MXs: 127.0.0.1: "


def test_one_mail() -> None:
    async def act(world: World, peer: Peer) -> None:
        assert await world.one() == "delivered 2.0.0 250 2.0.0 Accepted"
        assert peer.commands[0] == "EHLO here.example"
        assert peer.commands[1] == "MAIL FROM:<s@here.example>"
        assert peer.commands[2] == "RCPT TO:<d@there.example>"
        assert peer.mails[0].text == WIRE_BODY

    peer = Peer()
    world = play(peer, act)
    sid = "0000000000000abc"
    assert world.lines == [
        f"{sid} mta connecting address=smtp://127.0.0.1:{peer.port} host=mx.example",
        f"{sid} mta connected",
        (
            f"{sid} mta delivery evpid=0000000100000001 from=<s@here.example>"
            ' to=<d@there.example> rcpt=- source="127.0.0.1" relay="127.0.0.1 (mx.example)"'
            ' delay=1m5s result="Ok" stat="250 2.0.0 Accepted"'
        ),
        f"{sid} mta disconnected reason=quit messages=1",
    ]


def test_recipients_of_one_message_share_a_transaction() -> None:
    async def act(world: World, peer: Peer) -> None:
        for name in "abc":
            world.relay(f"{name}@there.example", msgid=7)
        world.relay("d@there.example", msgid=7, sender="other@here.example")
        world.relay("e@there.example", msgid=8)
        assert len(await world.outcomes()) == 5
        assert [mail.recipients for mail in peer.mails] == [
            ["a@there.example", "b@there.example", "c@there.example"],
            ["d@there.example"],
            ["e@there.example"],
        ]
        assert peer.sessions == 1

    play(Peer(), act, limits=replace(AT_ONCE, max_conn_per_relay=1))


def test_each_recipient_has_its_own_outcome() -> None:
    script = {
        "RCPT b@there.example": "550-5.1.1 no\r\n550 5.1.1 such user",
        "RCPT c@there.example": "451 4.2.0 later",
    }

    async def act(world: World, peer: Peer) -> None:
        for name in "abc":
            world.relay(f"{name}@there.example", msgid=7)
        assert await world.outcomes() == [
            "delivered 2.0.0 250 2.0.0 Accepted",
            "permanent 5.1.1 550-5.1.1 no such user",
            "temporary 4.2.0 451 4.2.0 later",
        ]
        assert peer.mails[0].recipients == ["a@there.example"]

    world = play(Peer(script), act)
    assert any(
        'result="PermFail" stat="550-5.1.1 no such user" address=127.0.0.1:' in line
        for line in world.lines
    )
    assert listing.hoststats(world.mta) == [f"there.example|{NOW}|250 2.0.0 Accepted"]


@pytest.mark.parametrize(
    ("options", "tables", "outcome"),
    [
        ({"host": "hosts"}, {"hosts": []}, "temporary 4.3.5 Cannot retrieve smarthost"),
        ({"domain": "map"}, {"map": {}}, "temporary 4.3.5 Cannot retrieve smarthost"),
        ({"host": "hosts"}, {"hosts": ["ftp://x"]}, "temporary 4.3.5 Cannot parse smarthost"),
        (
            {"host": "hosts"},
            {"hosts": [Failure("x: unknown scheme")]},
            "temporary 4.3.5 Cannot parse smarthost",
        ),
        (
            {"host": "hosts"},
            {"hosts": ["smtps://label@mx.example"]},
            "temporary 4.3.5 No auth table for relaying",
        ),
        (
            {"host": "hosts", "tls": RelayTls.VERIFY},
            {"hosts": ["lmtp://mx.example:24"]},
            "temporary 4.7.4 TLS required for relaying",
        ),
        (
            {"host": "hosts", "auth": "secrets"},
            {"hosts": ["smtps://label@mx.example"], "secrets": {}},
            "temporary 4.7.8 Could not retrieve credentials",
        ),
        (
            {"host": "hosts", "src": "sources"},
            {"hosts": ["mx.example"], "sources": []},
            "temporary 4.3.5 Could not retrieve source address",
        ),
        ({"host": "hosts"}, {"hosts": ["other.example"]}, "temporary 4.4.3 Host not found"),
        ({}, {}, "permanent 5.1.2 Domain does not exist"),
    ],
)
def test_what_fails_before_a_connection(
    options: dict[str, Any], tables: dict[str, Any], outcome: str
) -> None:
    async def whole() -> None:
        world = World(replace(smarthost(), **options))
        world.lookups.tables = tables
        assert await world.one() == outcome
        assert world.lines[-1].startswith("0000000000000000 mta delivery ")
        await world.close()

    run(whole())


def found(*hosts: tuple[int, str, str]) -> Exchangers:
    return Exchangers(
        Verdict.FOUND, tuple(Exchanger(level, name, (address,)) for level, name, address in hosts)
    )


@pytest.mark.parametrize(
    ("exchangers", "options", "outcome"),
    [
        (
            Exchangers(Verdict.TEMPORARY, text="Temporary failure in MX lookup"),
            {},
            "temporary 4.4.3 Temporary failure in MX lookup",
        ),
        (
            Exchangers(Verdict.PERMANENT, text="Domain does not accept mail"),
            {},
            "permanent 5.1.10 Domain does not accept mail",
        ),
        (found((10, "here.example", "192.0.2.1")), {}, "loop 4.4.6 Loop detected"),
        (
            found((10, "here.example", "192.0.2.9"), (20, "other.example", "192.0.2.8")),
            {"backup": True},
            "temporary 4.4.3 No MX found for domain",
        ),
        (
            found((10, "mx.example", "2001:db8::1")),
            {"limits": replace(AT_ONCE, family=4)},
            "temporary 4.4.4 Address family mismatch on destination MXs",
        ),
    ],
)
def test_domains_that_lead_nowhere(
    exchangers: Exchangers, options: dict[str, Any], outcome: str
) -> None:
    async def whole() -> None:
        limits = options.pop("limits", AT_ONCE)
        world = World(smarthost(**options), limits=limits)
        world.resolver.domains["there.example"] = exchangers
        world.own = {("192.0.2.1", 25)}
        assert await world.one() == outcome
        await world.close()

    run(whole())


def test_an_action_that_is_gone() -> None:
    async def whole() -> None:
        world = World(smarthost())
        assert (await world.one(dispatcher="old")) == "temporary 4.3.5 No relay action old"
        await world.close()

    run(whole())


def test_the_sender_as_the_action_says() -> None:
    async def act(world: World, peer: Peer) -> None:
        await world.one()
        await world.one(sender="@")
        assert [mail.sender for mail in peer.mails] == ["s@gate.example", ""]

    play(Peer(), act, mail_from="@gate.example")


def test_a_forwarded_sender_is_rewritten() -> None:
    async def act(world: World, peer: Peer) -> None:
        await world.one("d@there.example", rcpt="list@here.example")
        await world.one("d@there.example")
        rewritten, plain = (mail.sender for mail in peer.mails)
        assert plain == "s@here.example"
        assert srs.restore(rewritten, Keys(KEY), NOW) == "s@here.example"

    play(Peer(), act, srs=True)


def test_what_failed_is_tried_again_when_the_domain_gets_better() -> None:
    async def act(world: World, peer: Peer) -> None:
        assert (await world.one()).startswith("temporary")
        world.mta.resume_route(0)
        assert any(line.endswith("per admin request") for line in world.lines)
        assert (await world.one()).startswith("delivered")
        assert world.rescheduled == [1 << 32 | 1]

    play(Peer({"BANNER": ["554 no", "220 yes"]}), act)


def test_two_actions_do_not_share_a_connection(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(Peer(tls=server_context(tmp_path, OTHER_EXAMPLE))) as peer:
            lax = smarthost("yes", "lax", tls=RelayTls.NO_VERIFY)
            strict = smarthost("yes", "strict", tls=RelayTls.VERIFY)
            world = World(lax, strict)
            world.lookups.tables["hosts"] = [f"smtp://mx.example:{peer.port}"]
            world.resolver.hosts["mx.example"] = ("127.0.0.1",)
            assert (await world.one(dispatcher="lax")).startswith("delivered")
            refused = await world.one(dispatcher="strict")
            assert "certificate verify failed" in refused
            await world.close()

    run(whole())


def test_closing_lets_a_mail_finish_and_fails_the_rest() -> None:
    async def whole() -> None:
        async with serving(Peer()) as peer:
            world = world_for(peer, limits=replace(AT_ONCE, max_conn_per_route=1))
            world.queue.messages[1] = b"x" * 70 + b"\n" * 300_000
            for _ in range(3):
                world.relay()
            await until(lambda: peer.commands)
            await world.close()
            down = "temporary 4.3.2 Server is shutting down"
            assert (await world.outcomes())[1:] == [down] * 2
            assert await world.one() == down
            assert not peer.open

    run(whole())


def test_closing_ends_a_mail_that_takes_too_long() -> None:
    async def whole() -> None:
        async with serving(Peer({"TEXT": STALL})) as peer:
            world = world_for(peer)
            world.relay()
            await until(lambda: "DATA" in peer.commands)
            await asyncio.sleep(0.02)
            await world.close(0.02)
            assert await world.outcomes() == ["temporary 4.3.2 Server is shutting down"]

    run(whole())
