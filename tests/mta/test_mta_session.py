"""One connection over loopback to scripted peers: what they say, TLS, authentication."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from smtpd_core.config.model import RelayTls
from smtpd_core.mta.session import QUIT_SECONDS
from smtpd_core.smtp.client import IDLE_SECONDS
from tests.fakes.certificates import OTHER_EXAMPLE, server_context
from tests.fakes.loop import leap, until
from tests.fakes.relaying import AT_ONCE, World, play
from tests.fakes.smtp_peer import CLOSE, RESET, STALL, Peer

if TYPE_CHECKING:
    from pathlib import Path

WIRE_BODY = b"Subject: x\r\n\r\nHello\r\n..dot\r\n"
NET = "Network error on destination MXs: 127.0.0.1: "


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ({"MAIL": "550 5.7.1 go away"}, "permanent 5.7.1 550 5.7.1 go away"),
        ({"MAIL": "451 4.3.0 later"}, "temporary 4.3.0 451 4.3.0 later"),
        ({"RCPT": "550 no enhanced"}, "permanent 5.0.0 550 no enhanced"),
        ({"DATA": "554 5.6.0 no"}, "permanent 5.6.0 554 5.6.0 no"),
        ({"TEXT": "554 5.6.0 spam"}, "permanent 5.6.0 554 5.6.0 spam"),
        ({"TEXT": "452 4.3.1 full"}, "temporary 4.3.1 452 4.3.1 full"),
        ({"TEXT": "354 what"}, "temporary 4.0.0 354 what"),
        ({"TEXT": "421 4.3.2 closing" + CLOSE}, "temporary 4.3.2 421 4.3.2 closing"),
        ({"MAIL": CLOSE}, "temporary 4.0.0 Connection closed unexpectedly"),
        ({"MAIL": RESET}, "temporary 4.0.0 Connection closed unexpectedly"),
        ({"TEXT": CLOSE}, "temporary 4.0.0 Connection closed unexpectedly"),
        ({"MAIL": "nonsense"}, "temporary 4.0.0 Bad response: not an SMTP reply: b'nonsense'"),
        ({"MAIL": "250 " + "x" * 3000}, "temporary 4.0.0 Input too long"),
        ({"MAIL": "250 ok\r\n250 more"}, "temporary 4.0.0 Remote host sent too much data"),
        ({"EARLY": "552 5.3.4 too much" + CLOSE}, "permanent 5.3.4 552 5.3.4 too much"),
        (
            {"RCPT": "550 5.1.1 evil\tline\x01\x7f \x85"},
            "permanent 5.1.1 550 5.1.1 evil line?? \udc85",
        ),
    ],
)
def test_what_a_peer_says_is_the_outcome(script: dict[str, str], outcome: str) -> None:
    async def act(world: World, _: Peer) -> None:
        assert await world.one() == outcome

    play(Peer(script), act)


@pytest.mark.parametrize("scheme", ["smtp", "smtp+tls", "smtps"])
def test_tls(tmp_path: Path, scheme: str) -> None:
    peer = Peer(tls=server_context(tmp_path), smtps=scheme == "smtps")

    async def act(world: World, _: Peer) -> None:
        assert (await world.one()).startswith("delivered")

    world = play(peer, act, scheme=scheme)
    assert peer.commands.count("EHLO here.example") == (1 if scheme == "smtps" else 2)
    assert "0000000000000abc mta tls ciphers=TLSv1.3:TLS_AES_256_GCM_SHA384:256" in world.lines
    result = "unverified" if scheme == "smtp" else "valid"
    assert any(f'mta cert-check result="{result}" fingerprint="SHA256:' in x for x in world.lines)


@pytest.mark.parametrize("scheme", ["smtp+tls", "smtps"])
def test_a_wrong_certificate_where_it_matters(tmp_path: Path, scheme: str) -> None:
    peer = Peer(tls=server_context(tmp_path, OTHER_EXAMPLE), smtps=scheme == "smtps")

    async def act(world: World, _: Peer) -> None:
        found = await world.one()
        assert found.startswith(
            f"temporary 4.4.1 {NET}IO Error: certificate verify failed: Hostname mismatch"
        )
        assert peer.mails == []

    play(peer, act, scheme=scheme)


@pytest.mark.parametrize(
    ("scheme", "tls"), [("smtp+tls", RelayTls.NO_VERIFY), ("smtp", RelayTls.OPPORTUNISTIC)]
)
def test_a_wrong_certificate_where_it_does_not(tmp_path: Path, scheme: str, tls: RelayTls) -> None:
    peer = Peer(tls=server_context(tmp_path, OTHER_EXAMPLE))

    async def act(world: World, _: Peer) -> None:
        assert (await world.one()).startswith("delivered")

    world = play(peer, act, scheme=scheme, tls=tls)
    assert any("mta tls ciphers=" in line for line in world.lines)


def test_a_handshake_that_fails_is_done_without_where_tls_is_optional(tmp_path: Path) -> None:
    peer = Peer({"HANDSHAKE": CLOSE}, tls=server_context(tmp_path))

    async def act(world: World, _: Peer) -> None:
        assert (await world.one()).startswith("delivered")

    world = play(peer, act)
    assert peer.sessions == 2
    assert any(
        line.startswith(
            "smtp-out: Error on session 0000000000000abc: opportunistic TLS failed,"
            " downgrading to plain"
        )
        for line in world.lines
    )


@pytest.mark.parametrize("tls", [RelayTls.VERIFY, RelayTls.NO_VERIFY])
def test_a_handshake_that_fails_is_never_done_without_where_tls_is_required(
    tmp_path: Path, tls: RelayTls
) -> None:
    peer = Peer({"HANDSHAKE": CLOSE}, tls=server_context(tmp_path))

    async def act(world: World, _: Peer) -> None:
        assert (await world.one()).startswith(f"temporary 4.4.1 {NET}IO Error: ")
        assert peer.sessions == 1
        assert peer.mails == []

    play(peer, act, tls=tls)


def test_tls_that_is_not_offered_where_it_is_required() -> None:
    async def act(world: World, peer: Peer) -> None:
        reason = "TLS required but not supported by remote host"
        assert await world.one() == f"temporary 4.4.1 {NET}{reason}"
        assert peer.mails == []

    play(Peer(), act, scheme="smtp+tls")


def test_starttls_refused(tmp_path: Path) -> None:
    peer = Peer({"STARTTLS": "454 4.7.0 no"}, tls=server_context(tmp_path))

    async def optional(world: World, _: Peer) -> None:
        assert (await world.one()).startswith("delivered")

    play(peer, optional)

    async def required(world: World, _: Peer) -> None:
        assert await world.one() == f"temporary 4.4.1 {NET}STARTTLS rejected: 454 4.7.0 no"

    peer.port = 0
    play(peer, required, scheme="smtp+tls")


@pytest.mark.parametrize("scheme", ["smtp", "smtp+tls"])
def test_clear_text_behind_the_220_is_never_believed(tmp_path: Path, scheme: str) -> None:
    injected = b"250-evil.example\r\n250 AUTH PLAIN\r\n"
    peer = Peer(tls=server_context(tmp_path), behind_starttls=injected)

    async def act(world: World, _: Peer) -> None:
        assert await world.one() == f"temporary 4.4.1 {NET}Remote host sent too much data"
        assert peer.mails == []

    play(peer, act, scheme=scheme)


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        ("AUTH LOGIN PLAIN", "AUTH PLAIN AG1lAHNlY3JldA=="),
        ("AUTH LOGIN", "AUTH LOGIN"),
    ],
)
def test_authentication(tmp_path: Path, offered: str, said: str) -> None:
    peer = Peer(tls=server_context(tmp_path), smtps=True, extensions=(offered,))

    async def act(world: World, _: Peer) -> None:
        world.lookups.tables["hosts"] = [f"smtps://label@mx.example:{peer.port}"]
        world.lookups.tables["secrets"] = {"label": "me:secret"}
        assert (await world.one()).startswith("delivered")
        assert said in peer.commands
        if said == "AUTH LOGIN":
            assert {"me", "secret"} <= set(peer.commands)

    world = play(peer, act, auth="secrets")
    assert not any("secret" in line for line in world.lines)


@pytest.mark.parametrize(
    ("extensions", "script", "reason"),
    [
        ((), {}, "AUTH not advertised"),
        (("AUTH GSSAPI",), {}, "No supported AUTH method"),
        (("AUTH PLAIN",), {"AUTH": "535 5.7.8 wrong"}, "AUTH rejected: 535 5.7.8 wrong"),
    ],
)
def test_authentication_that_fails_fails_at_once(
    tmp_path: Path, extensions: tuple[str, ...], script: dict[str, str], reason: str
) -> None:
    peer = Peer(script, tls=server_context(tmp_path), smtps=True, extensions=extensions)

    async def act(world: World, _: Peer) -> None:
        world.lookups.tables["hosts"] = [f"smtps://label@mx.example:{peer.port}"]
        world.lookups.tables["secrets"] = {"label": "me:secret"}
        assert await world.one() == f"temporary 4.4.1 {NET}{reason}"

    play(peer, act, auth="secrets")


def test_credentials_too_large(tmp_path: Path) -> None:
    peer = Peer(tls=server_context(tmp_path), smtps=True, extensions=("AUTH PLAIN",))

    async def act(world: World, _: Peer) -> None:
        world.lookups.tables["hosts"] = [f"smtps://label@mx.example:{peer.port}"]
        world.lookups.tables["secrets"] = {"label": "me:" + "x" * 1100}
        assert await world.one() == f"temporary 4.4.1 {NET}Credentials too large"

    play(peer, act, auth="secrets")


def test_a_message_that_cannot_be_read(tmp_path: Path) -> None:
    async def act(world: World, peer: Peer) -> None:
        world.queue.opener = lambda: os.open(tmp_path, os.O_RDONLY)  # a directory has no octets
        assert await world.one() == "temporary 4.0.0 Error reading content file"
        assert peer.mails == []

    play(Peer(), act)


def test_a_message_too_large_for_the_peer() -> None:
    async def act(world: World, peer: Peer) -> None:
        world.queue.messages[1] = b"x" * 101
        assert await world.one() == "permanent 5.3.4 message too large for peer"
        assert (await world.one()).startswith("delivered")
        assert peer.sessions == 1

    play(Peer(extensions=("SIZE 100",)), act)


def test_a_large_message() -> None:
    async def act(world: World, peer: Peer) -> None:
        world.queue.messages[1] = b"0123456789abcde\n" * 200_000
        assert (await world.one()).startswith("delivered")
        assert peer.mails[0].text == b"0123456789abcde\r\n" * 200_000

    play(Peer(), act)


def test_lmtp() -> None:
    peer = Peer({"TEXT b@there.example": "552 5.2.2 over quota"}, lmtp=True)

    async def act(world: World, _: Peer) -> None:
        world.relay("a@there.example", msgid=7)
        world.relay("b@there.example", msgid=7)
        assert await world.outcomes() == [
            "delivered 2.0.0 250 2.0.0 Accepted",
            "permanent 5.2.2 552 5.2.2 over quota",
        ]
        assert peer.commands[0] == "LHLO here.example"

    world = play(peer, act, scheme="lmtp")
    assert "address=lmtp://127.0.0.1" in world.lines[0]


def test_a_peer_that_ends_a_resting_connection() -> None:
    async def act(world: World, peer: Peer) -> None:
        await world.one()
        await until(lambda: not peer.open)
        assert (await world.one()).startswith("delivered")
        assert peer.sessions == 2

    peer = Peer({"TEXT": ["250 ok" + CLOSE, "250 ok"]})
    world = play(peer, act)
    assert any("after 1 message(s) sent: Connection closed" in line for line in world.lines)


def test_too_many_refused_recipients() -> None:
    async def act(world: World, _: Peer) -> None:
        for number in range(6):
            world.relay(f"u{number}@there.example", msgid=7)
        outcomes = await world.outcomes()
        assert outcomes[:3] == ["permanent 5.1.1 550 5.1.1 no"] * 3
        text = "temporary 4.0.0 Too many consecutive errors, closing connection"
        assert outcomes[3:] == [text] * 3

    limits = replace(AT_ONCE, max_failures_per_session=3)
    play(Peer({"RCPT": "550 5.1.1 no"}), act, limits=limits)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ({"BANNER": STALL}, f"temporary 4.4.1 {NET}Connection timeout"),
        ({"EHLO": "250-half" + STALL}, f"temporary 4.4.1 {NET}Connection timeout"),
        ({"MAIL": STALL}, "temporary 4.0.0 Connection timeout"),
        ({"TEXT": "250-half" + STALL}, "temporary 4.0.0 Connection timeout"),
    ],
)
def test_time_outs(script: dict[str, str], outcome: str) -> None:
    async def act(world: World, peer: Peer) -> None:
        evpid = world.relay()
        place = next(iter(script))
        await until(lambda: place in peer.seen)
        await asyncio.sleep(0.02)
        leap(IDLE_SECONDS - 1)
        await asyncio.sleep(0.02)
        assert evpid not in world.queue.reports
        leap(2)
        assert await world.outcomes() == [outcome]

    play(Peer(script), act)


def test_a_handshake_that_times_out(tmp_path: Path) -> None:
    async def act(world: World, peer: Peer) -> None:
        world.relay()
        await until(lambda: "HANDSHAKE" in peer.seen)
        await asyncio.sleep(0.02)
        leap(IDLE_SECONDS + 1)
        assert await world.outcomes() == [f"temporary 4.4.1 {NET}Connection timeout"]

    peer = Peer({"HANDSHAKE": STALL}, tls=server_context(tmp_path))
    play(peer, act, scheme="smtp+tls")


def test_a_peer_that_stops_reading() -> None:
    async def act(world: World, peer: Peer) -> None:
        world.queue.messages[1] = b"0123456789abcde\n" * 2_000_000
        world.relay()
        await until(lambda: "DATA" in peer.seen)
        await asyncio.sleep(0.2)
        leap(IDLE_SECONDS + 1)
        assert await world.outcomes() == ["temporary 4.0.0 Connection timeout"]

    play(Peer({"DATA": "354 go" + STALL}), act)


def test_quit_is_not_waited_for_long() -> None:
    async def act(world: World, peer: Peer) -> None:
        assert (await world.one()).startswith("delivered")
        await until(lambda: "QUIT" in peer.seen)
        await asyncio.sleep(0.01)
        leap(QUIT_SECONDS + 1)
        await until(lambda: not world.mta.works)

    play(Peer({"QUIT": STALL}), act, limits=replace(AT_ONCE, session_keepalive=0))
