"""One connection on behalf of a work: where from, under which name, how many mails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from smtpd_core.errors import SmtpdError
from tests.fakes.loop import leap, until
from tests.fakes.relaying import AT_ONCE, World, play, raising
from tests.fakes.smtp_peer import Peer

WIRE_BODY = b"Subject: x\r\n\r\nHello\r\n..dot\r\n"
NET = "Network error on destination MXs: 127.0.0.1: "


@pytest.mark.parametrize("error", [SmtpdError("gone"), OSError(2, "gone")])
def test_a_message_that_cannot_be_opened(error: Exception) -> None:
    async def act(world: World, peer: Peer) -> None:
        world.queue.opener = raising(error)
        assert await world.one() == "temporary 4.3.0 Could not get message fd"
        world.queue.opener = None
        assert (await world.one()).startswith("delivered")
        assert peer.sessions == 1

    play(Peer(), act)


def test_a_descriptor_that_is_none() -> None:
    async def act(world: World, peer: Peer) -> None:
        world.queue.opener = lambda: 999_999
        assert await world.one() == "temporary 4.3.0 Could not stat message fd"

    play(Peer(), act)


def test_dsn_is_passed_on() -> None:
    async def act(world: World, peer: Peer) -> None:
        values: dict[str, Any] = {
            "dsn_notify": 3,
            "dsn_orcpt": "rfc822;d@there.example",
            "dsn_ret": "HDRS",
        }
        await world.one(dsn_envid="id1", **values)
        assert "MAIL FROM:<s@here.example> RET=HDRS ENVID=id1" in peer.commands
        rcpt = "RCPT TO:<d@there.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;d@there.example"
        assert rcpt in peer.commands
        assert world.queue.passed_on == set(world.queue.reports)

    play(Peer(extensions=("DSN",)), act)


def test_sources_and_their_names() -> None:
    async def act(world: World, peer: Peer) -> None:
        world.lookups.tables["sources"] = ["127.0.0.3", "127.0.0.4"]
        world.lookups.tables["names"] = {"127.0.0.3": "three.example", "127.0.0.4": "four.example"}
        for _ in range(2):
            await world.one()
        assert peer.clients == ["127.0.0.3", "127.0.0.4"]
        assert "EHLO three.example" in peer.commands
        assert "EHLO four.example" in peer.commands
        assert any('source="127.0.0.4"' in line for line in world.lines)

    play(
        Peer(),
        act,
        src="sources",
        helo_src="names",
        limits=replace(AT_ONCE, session_keepalive=0),
    )


def test_a_source_that_is_not_here() -> None:
    async def act(world: World, peer: Peer) -> None:
        world.lookups.tables["sources"] = ["192.0.2.77", "127.0.0.3"]
        assert (await world.one()).startswith("delivered")
        assert peer.clients == ["127.0.0.3"]
        why = "Cannot assign requested address"
        route = f"192.0.2.77 <-> 127.0.0.1:{peer.port} (mx.example)"
        assert f"smtp-out: Error on {route}: {why}" in world.lines

    play(Peer(), act, src="sources")

    async def only_bad(world: World, _: Peer) -> None:
        world.lookups.tables["sources"] = ["192.0.2.77"]
        why = "No valid route to destination: Cannot assign requested address"
        assert await world.one() == f"temporary 4.4.4 {why}"

    play(Peer(), only_bad, src="sources")


def test_a_source_without_a_name() -> None:
    async def act(world: World, _: Peer) -> None:
        world.lookups.tables.update(sources=["127.0.0.3"], names={})
        assert (await world.one()).startswith(
            "temporary 4.4.4 No valid route to destination: Failed to retrieve helo string"
        )

    play(Peer(), act, src="sources", helo_src="names")


@pytest.mark.parametrize("helo", ["not a name", ""])
def test_a_name_nobody_can_say(helo: str) -> None:
    async def act(world: World, _: Peer) -> None:
        assert "Failed to retrieve helo string" in await world.one()

    play(Peer(), act, helo=helo)


def test_a_connection_is_used_again_and_left_in_time() -> None:
    async def act(world: World, peer: Peer) -> None:
        for _ in range(5):
            await world.one()
        assert peer.sessions == 2
        assert [mail.session for mail in peer.mails] == [1, 1, 1, 2, 2]

    play(Peer(), act, limits=replace(AT_ONCE, session_mail_max=3))


def test_a_host_that_takes_nothing() -> None:
    async def act(world: World, peer: Peer) -> None:
        for _ in range(12):
            world.relay()
        outcomes = await world.outcomes()
        assert outcomes[:10] == ["temporary 4.7.0 450 4.7.0 no"] * 10
        text = "temporary 4.4.1 Destination seem to reject all mails: 127.0.0.1: 450 4.7.0 no"
        assert outcomes[10:] == [text] * 2
        place = f"127.0.0.1:{peer.port}"
        assert f"0000000000000abc mta host-rejects-all-mails address={place}" in world.lines

    limits = replace(AT_ONCE, max_conn_per_route=1)
    play(Peer({"MAIL": "450 4.7.0 no"}), act, limits=limits)


def test_a_mistake_of_ours_ends_one_session_only() -> None:
    async def act(world: World, peer: Peer) -> None:
        world.queue.opener = raising(KeyError("a mistake"))
        assert await world.one() == "temporary 4.3.0 Internal error"
        await until(lambda: world.mistakes)
        assert isinstance(world.mistakes.pop(), KeyError)
        world.queue.opener = None
        assert (await world.one()).startswith("delivered")
        assert peer.sessions == 2

    play(Peer(), act)


def test_the_last_connection_rests_for_a_while() -> None:
    async def act(world: World, peer: Peer) -> None:
        await world.one()
        assert peer.open == 1
        leap(9)
        await world.one()
        assert peer.sessions == 1
        leap(11)
        await until(lambda: not peer.open)
        assert peer.commands[-1] == "QUIT"
        await until(lambda: not world.mta.works)

    play(Peer(), act)


def test_pauses_between_mails() -> None:
    async def act(world: World, peer: Peer) -> None:
        for _ in range(2):
            world.relay()
        await until(lambda: len(world.queue.reports) == 1)
        leap(29)
        await asyncio.sleep(0.01)
        assert len(world.queue.reports) == 1
        leap(2)
        await world.outcomes()
        leap(31)

    limits = replace(AT_ONCE, session_transaction_delay=30, max_conn_per_route=1)
    play(Peer(), act, limits=limits)


def test_a_name_that_takes_too_long_is_done_without() -> None:
    async def act(world: World, _: Peer) -> None:
        world.resolver.nameless = True
        world.relay()
        await until(lambda: world.stats.get("mta.session"))
        await asyncio.sleep(0.01)
        leap(3)
        await world.outcomes()
        assert "host=<unknown>" in world.lines[0]

    play(Peer(), act)
