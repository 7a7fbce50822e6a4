"""Stream over loopback: octets, limits, and TLS at an exact octet with real TLS at both ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from typing import TYPE_CHECKING, Any, Awaitable, Callable

import pytest

from smtpd_core.errors import LocalError
from smtpd_core.net import stream as stream_module
from smtpd_core.net.stream import (
    MAX_RECEIVED,
    MAX_UNFLUSHED,
    ClearTextError,
    SourceError,
    Stream,
    StreamError,
    StreamTimeoutError,
    TlsError,
    adopt,
    connect,
)
from tests.fakes.certificates import MX_EXAMPLE, OTHER_EXAMPLE, client_context, server_context
from tests.fakes.loop import run, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HELLO_FIRST = b"\x16\x03\x01"  # how every ClientHello starts


async def pair() -> tuple[Stream, Stream]:
    ours, theirs = socket.socketpair()
    return await adopt(ours), await adopt(theirs)


async def wired() -> tuple[Stream, socket.socket]:
    """A stream, and the raw other end of it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return await adopt(ours), theirs


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[Stream], Awaitable[None]], host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    tasks: list[asyncio.Future[None]] = []
    loop = asyncio.get_running_loop()

    def accept(accepted: Stream) -> None:
        tasks.append(asyncio.ensure_future(serve(accepted)))

    server = await loop.create_server(lambda: Stream(accept), host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def fill(stream: Stream) -> int:
    """Send until the peer takes no more; return how many octets that were."""
    sent = 0
    while True:
        stream.send(b"y" * 65536)
        sent += 65536
        try:
            await stream.flush(0.1)
        except StreamTimeoutError:
            return sent


async def read_exactly(stream: Stream, count: int) -> bytes:
    octets = b""
    while len(octets) < count:
        piece = await stream.receive(5)
        assert piece, f"the stream ended after {octets!r}"
        octets += piece
    return octets


def test_octets_go_both_ways_when_flushed() -> None:
    async def scenario() -> None:
        one, other = await pair()
        one.send(b"a")
        one.send(b"b")
        with pytest.raises(StreamTimeoutError):
            await other.receive(0.02)
        await one.flush()
        assert await other.receive() == b"ab"
        other.send(b"c")
        await other.close()
        assert await one.receive() == b"c"
        assert await one.receive() == b""
        assert await one.receive() == b""
        one.abort()

    run(scenario())


def test_nothing_is_read_before_somebody_receives() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        theirs.send(b"early")
        stream = await adopt(ours)
        for _ in range(5):
            await asyncio.sleep(0)
        assert stream.take() == b""
        assert ours.recv(5, socket.MSG_PEEK) == b"early"
        assert await stream.receive() == b"early"
        stream.abort()
        theirs.close()

    run(scenario())


def test_a_half_closed_peer_still_gets_replies() -> None:
    async def scenario() -> None:
        stream, raw = await wired()
        raw.send(b"QUIT\r\n")
        raw.shutdown(socket.SHUT_WR)
        assert await stream.receive() == b"QUIT\r\n"
        assert await stream.receive() == b""
        stream.send(b"221 Bye\r\n")
        await stream.flush()
        assert raw.recv(100) == b"221 Bye\r\n"
        await stream.close()
        assert raw.recv(100) == b""
        raw.close()

    run(scenario())


def test_reading_stops_when_nobody_takes() -> None:
    async def scenario() -> None:
        one, other = await pair()
        await one.flush()
        other.send(b"x")
        await other.flush()
        assert await one.receive() == b"x"  # reading goes on behind this
        sent = await fill(other)
        taken = one.take()
        assert MAX_RECEIVED <= len(taken) <= MAX_RECEIVED + 262144 < sent
        assert len(taken) + len(await read_exactly(one, sent - len(taken))) == sent
        one.abort()
        other.abort()

    run(scenario())


def test_what_is_never_flushed_is_a_mistake() -> None:
    async def scenario() -> None:
        one, other = await pair()
        one.send(b"x" * MAX_UNFLUSHED)
        with pytest.raises(LocalError):
            one.send(b"x")
        one.abort()
        other.abort()

    run(scenario())


def test_one_task_receives() -> None:
    async def scenario() -> None:
        one, other = await pair()
        waiting = asyncio.ensure_future(one.receive())
        await asyncio.sleep(0)
        with pytest.raises(LocalError):
            await one.receive()
        other.send(b"x")
        await other.flush()
        assert await waiting == b"x"
        one.abort()
        other.abort()

    run(scenario())


def test_a_cancelled_wait_loses_nothing() -> None:
    async def scenario() -> None:
        one, other = await pair()
        waiting = asyncio.ensure_future(one.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other.send(b"kept")
        await other.flush()
        assert await one.receive(5) == b"kept"
        one.abort()
        other.abort()

    run(scenario())


def test_what_came_before_a_reset_is_received_first() -> None:
    async def scenario() -> None:
        stream, raw = await tcp_pair()
        raw.send(b"552 too much\r\n")
        assert await stream.receive() == b"552 too much\r\n"
        raw.send(b"421 bye\r\n")
        await until(lambda: stream._received)
        reset(raw)
        await until(lambda: stream.is_lost)
        assert await stream.receive() == b"421 bye\r\n"
        with pytest.raises(StreamError, match="Connection reset by peer"):
            await stream.receive()
        with pytest.raises(StreamError, match="Connection reset by peer"):
            await stream.flush()
        stream.send(b"into the void")
        await stream.close()

    run(scenario())


async def tcp_pair() -> tuple[Stream, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await connect("127.0.0.1", server.getsockname()[1], timeout_seconds=5)
        raw, _ = server.accept()
    return stream, raw


def reset(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.close()


def test_abort_wakes_who_waits() -> None:
    async def scenario() -> None:
        one, other = await pair()
        waiting = asyncio.ensure_future(one.receive())
        await asyncio.sleep(0)
        one.abort()
        assert await waiting == b""
        assert one.is_lost
        assert await other.receive() == b""
        other.abort()

    run(scenario())


def test_close_sends_the_last_octets_even_to_a_slow_peer() -> None:
    async def scenario() -> None:
        one, other = await pair()
        octets = b"z" * 2_000_000
        one.send(octets)
        closing = asyncio.ensure_future(one.close())
        assert await read_exactly(other, len(octets)) == octets
        assert await other.receive() == b""
        await closing
        other.abort()

    run(scenario())


def test_close_is_bounded() -> None:
    async def scenario() -> None:
        one, other = await pair()
        one.send(b"z" * 2_000_000)
        await one.close(0.05)
        await until(lambda: one.is_lost)
        other.abort()

    run(scenario())


# Connecting.


def test_connect_tells_both_ends() -> None:
    async def scenario() -> None:
        peers = []

        async def serve(accepted: Stream) -> None:
            peers.append(accepted.peer)
            await accepted.close()

        async with listening(serve) as port:
            stream = await connect("127.0.0.1", port, source="127.0.0.7", timeout_seconds=5)
            assert stream.local.address == "127.0.0.7"
            assert stream.peer == ("127.0.0.1", port)
            assert await stream.receive() == b""
            stream.abort()
        assert peers == [("127.0.0.7", stream.local.port)]

    run(scenario())


def test_connect_over_ipv6() -> None:
    async def scenario() -> None:
        async def serve(accepted: Stream) -> None:
            await accepted.close()

        async with listening(serve, "::1") as port:
            stream = await connect("::1", port, timeout_seconds=5)
            assert stream.peer == ("::1", port)
            stream.abort()

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    run(scenario())


@pytest.mark.parametrize(
    ("address", "source", "error", "why"),
    [
        ("127.0.0.1", "", StreamError, "Connection refused"),
        ("127.0.0.1", "192.0.2.77", SourceError, "Cannot assign requested address"),
        ("fe80::1%no-such-0", "", StreamError, "(?i)no (such|interface)"),
    ],
)
def test_connect_says_why_not(address: str, source: str, error: type, why: str) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(error, match=why) as caught:
            await connect(address, port, source=source, timeout_seconds=5)
        assert type(caught.value) is error

    run(scenario())


def test_connect_refuses_no_port() -> None:
    with pytest.raises(StreamError, match="port 0"):
        run(connect("127.0.0.1", 0, timeout_seconds=1))


def test_connect_times_out() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            port = server.getsockname()[1]
            ends = await asyncio.gather(  # nobody accepts, and the backlog is short
                *(connect("127.0.0.1", port, timeout_seconds=0.2) for _ in range(8)),
                return_exceptions=True,
            )
            failures = [end for end in ends if isinstance(end, StreamTimeoutError)]
            assert failures
            assert str(failures[0]) == "Connection timeout"
            for end in ends:
                if isinstance(end, Stream):
                    end.abort()

    run(scenario())


# TLS.


class Upgraded:
    """Both ends of a connection inside TLS."""

    def __init__(self, directory: Path) -> None:
        self.server_context = server_context(directory)
        self.client_context = client_context()

    async def start(self, client: Stream, server: Stream) -> None:
        await asyncio.gather(
            client.start_tls(
                self.client_context, server_side=False, hostname="mx.example", timeout_seconds=5
            ),
            server.start_tls(self.server_context, server_side=True, timeout_seconds=5),
        )


def test_tls_behind_clear_text_and_what_it_came_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair()
        client.send(b"STARTTLS\r\n")
        await client.flush()
        assert await server.receive() == b"STARTTLS\r\n"
        assert server.hold() == b""
        server.send(b"220 go\r\n")  # flushed by start_tls

        async def client_side() -> None:
            assert await client.receive() == b"220 go\r\n"
            await client.start_tls(
                client_context(), server_side=False, hostname="mx.example", timeout_seconds=5
            )

        await asyncio.gather(
            client_side(),
            server.start_tls(server_context(tmp_path), server_side=True, timeout_seconds=5),
        )
        assert client.tls is not None
        assert server.tls is not None
        assert client.tls.description == "TLSv1.3:TLS_AES_256_GCM_SHA384:256"
        assert client.tls.verified
        der = ssl.PEM_cert_to_DER_cert(MX_EXAMPLE[MX_EXAMPLE.index("-----BEGIN CERT") :])
        assert client.tls.fingerprint == f"SHA256:{hashlib.sha256(der).hexdigest()}"
        assert server.tls[3:] == (False, None)
        client.send(b"EHLO\r\n")
        await client.flush()
        assert await server.receive(5) == b"EHLO\r\n"
        server.send(b"q" * 1_000_000)
        waiting = asyncio.ensure_future(server.flush())
        assert await read_exactly(client, 1_000_000) == b"q" * 1_000_000
        await waiting
        closing = asyncio.ensure_future(server.close())
        assert await client.receive(5) == b""
        await client.close()
        await closing

    run(scenario())


def test_tls_from_the_first_octet(tmp_path: Path) -> None:
    async def scenario() -> None:
        context = server_context(tmp_path)

        async def serve(accepted: Stream) -> None:
            for _ in range(20):  # the ClientHello arrives, and waits in the kernel
                await asyncio.sleep(0.001)
            await accepted.start_tls(context, server_side=True, timeout_seconds=5)
            accepted.send(b"220 hello\r\n")
            await accepted.close()

        async with listening(serve) as port:
            stream = await connect("127.0.0.1", port, timeout_seconds=5)
            await stream.start_tls(
                client_context(verify=False), server_side=False, timeout_seconds=5
            )
            assert await stream.receive(5) == b"220 hello\r\n"
            assert stream.tls is not None
            assert not stream.tls.verified
            assert stream.tls.fingerprint
            assert await stream.receive(5) == b""
            await stream.close()

    run(scenario())


def test_octets_in_flight_at_the_end_of_the_handshake_are_kept(tmp_path: Path) -> None:
    """The first words inside TLS may come in one segment with the end of the handshake."""

    async def scenario() -> None:
        client, server = await pair()
        pieces = [b"%d\r\n" % number for number in range(200)]
        upgraded = Upgraded(tmp_path)
        await upgraded.start(client, server)
        for piece in pieces:
            client.send(piece)
            await client.flush()
        assert await read_exactly(server, len(b"".join(pieces))) == b"".join(pieces)
        client.abort()
        server.abort()

    run(scenario())


class Relayed:
    """A TLS client whose octets the test carries, to send them as it likes."""

    def __init__(self, hostname: str = "mx.example") -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=hostname)

    async def shake(self, raw: socket.socket, *, singly: bool = False) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.carry(raw, singly=singly)
                self.incoming.write(await loop.sock_recv(raw, 65536))
            else:
                await self.carry(raw, singly=singly)
                return

    async def carry(self, raw: socket.socket, *, singly: bool = False) -> None:
        loop = asyncio.get_running_loop()
        octets = self.outgoing.read()
        for at in range(0, len(octets), 1 if singly else len(octets)):
            await loop.sock_sendall(raw, octets[at : at + 1] if singly else octets)

    async def say(self, raw: socket.socket, octets: bytes, *, singly: bool = False) -> None:
        self.tls.write(octets)
        await self.carry(raw, singly=singly)


@pytest.mark.parametrize("singly", [False, True])
def test_a_handshake_in_single_octets(tmp_path: Path, singly: bool) -> None:
    async def scenario() -> None:
        server, raw = await wired()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, b"STARTTLS\r\n")
        assert await server.receive() == b"STARTTLS\r\n"
        server.send(b"220 go\r\n")
        upgrade = asyncio.ensure_future(
            server.start_tls(server_context(tmp_path), server_side=True, timeout_seconds=5)
        )
        assert await loop.sock_recv(raw, 8) == b"220 go\r\n"
        client = Relayed()
        await client.shake(raw, singly=singly)
        await client.say(raw, b"EHLO x\r\n", singly=singly)
        await upgrade
        assert await read_exactly(server, 8) == b"EHLO x\r\n"
        server.abort()
        raw.close()

    run(scenario())


def test_a_client_hello_that_does_not_wait_for_the_220_is_clear_text() -> None:
    """Behind STARTTLS in one segment, it came before the server agreed: it is not TLS yet."""

    async def scenario() -> None:
        server, raw = await wired()
        client = Relayed()
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        raw.send(b"STARTTLS\r\n" + client.outgoing.read())
        octets = await server.receive()
        assert octets.startswith(b"STARTTLS\r\n" + HELLO_FIRST)  # all of it is the session's
        assert server.hold() == b""
        server.abort()
        raw.close()

    run(scenario())


def test_a_client_hello_between_the_220_and_the_upgrade_waits(tmp_path: Path) -> None:
    """Even when the 220 was flushed first: behind hold() nothing is read."""

    async def scenario() -> None:
        server, raw = await wired()
        loop = asyncio.get_running_loop()
        raw.send(b"STARTTLS\r\n")
        assert await server.receive() == b"STARTTLS\r\n"
        assert server.hold() == b""
        server.send(b"220 go\r\n")
        await server.flush()
        assert await loop.sock_recv(raw, 8) == b"220 go\r\n"
        client = Relayed()
        shaking = asyncio.ensure_future(client.shake(raw))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert server.take() == b""
        await server.start_tls(server_context(tmp_path), server_side=True, timeout_seconds=5)
        await shaking
        server.abort()
        raw.close()

    run(scenario())


def test_clear_text_behind_starttls_is_seen_and_never_inside_tls(tmp_path: Path) -> None:
    async def scenario() -> None:
        server, raw = await wired()
        raw.send(b"STARTTLS\r\n")
        assert await server.receive() == b"STARTTLS\r\n"
        raw.send(b"MAIL FROM:<mallory@example.org>\r\n")
        await until(lambda: server._received)
        server.send(b"220 go\r\n")
        with pytest.raises(ClearTextError):
            await server.start_tls(server_context(tmp_path), server_side=True, timeout_seconds=5)
        with pytest.raises(BlockingIOError):
            raw.recv(8)  # the 220 was not sent
        assert server.tls is None
        assert await server.receive() == b"MAIL FROM:<mallory@example.org>\r\n"
        server.abort()
        raw.close()

    run(scenario())


def test_hold_gives_the_clear_text_to_the_session() -> None:
    async def scenario() -> None:
        server, raw = await wired()
        raw.send(b"STARTTLS\r\n")
        assert await server.receive() == b"STARTTLS\r\n"
        raw.send(b"RSET\r\n")
        await until(lambda: server._received)
        assert server.hold() == b"RSET\r\n"
        raw.send(b"late\r\n")
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert server.take() == b""  # in the kernel, for the handshake to choke on
        server.abort()
        raw.close()

    run(scenario())


def test_late_clear_text_spoils_the_handshake(tmp_path: Path) -> None:
    async def scenario() -> None:
        server, raw = await wired()
        raw.send(b"STARTTLS\r\n")
        assert await server.receive() == b"STARTTLS\r\n"
        assert server.hold() == b""
        raw.send(b"MAIL FROM:<mallory@example.org>\r\n")
        server.send(b"220 go\r\n")
        client = Relayed()
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        raw.send(client.outgoing.read())
        with pytest.raises(TlsError):
            await server.start_tls(server_context(tmp_path), server_side=True, timeout_seconds=5)
        with pytest.raises(StreamError):
            await server.receive()
        raw.close()

    run(scenario())


@pytest.mark.parametrize("together", [True, False])
def test_a_server_that_talks_in_clear_behind_its_220(together: bool) -> None:
    async def scenario() -> None:
        client, raw = await wired()
        raw.send(b"220 go\r\n" + (b"250 injected\r\n" if together else b""))
        if together:
            assert await client.receive() == b"220 go\r\n250 injected\r\n"
        else:
            assert await client.receive() == b"220 go\r\n"
            raw.send(b"250 injected\r\n")
            await until(lambda: client._received)
            with pytest.raises(ClearTextError):
                await client.start_tls(client_context(), server_side=False, timeout_seconds=5)
            assert await client.receive() == b"250 injected\r\n"
        client.abort()
        raw.close()

    run(scenario())


def test_a_certificate_of_somebody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair()
        results = await asyncio.gather(
            client.start_tls(
                client_context(), server_side=False, hostname="mx.example", timeout_seconds=5
            ),
            server.start_tls(
                server_context(tmp_path, OTHER_EXAMPLE), server_side=True, timeout_seconds=5
            ),
            return_exceptions=True,
        )
        assert isinstance(results[0], TlsError)
        assert str(results[0]).startswith("certificate verify failed: Hostname mismatch")
        assert client.is_lost
        with pytest.raises(StreamError):
            await client.receive(5)
        client.abort()
        server.abort()

    run(scenario())


def test_an_address_can_be_verified(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair()
        facts, _ = await asyncio.gather(
            client.start_tls(
                client_context(), server_side=False, hostname="127.0.0.9", timeout_seconds=5
            ),
            server.start_tls(server_context(tmp_path), server_side=True, timeout_seconds=5),
        )
        assert facts.verified
        client.abort()
        server.abort()

    run(scenario())


def test_a_handshake_that_never_ends() -> None:
    async def scenario() -> None:
        client, raw = await wired()
        with pytest.raises(StreamTimeoutError, match="Connection timeout"):
            await client.start_tls(
                client_context(verify=False), server_side=False, timeout_seconds=0.05
            )
        assert client.is_lost
        raw.close()

    run(scenario())


@pytest.mark.parametrize("answer", [b"", b"454 no\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_a_peer_that_does_not_speak_tls(answer: bytes) -> None:
    async def scenario() -> None:
        client, raw = await wired()
        if answer:
            raw.send(answer)
        raw.shutdown(socket.SHUT_WR)
        with pytest.raises(TlsError):
            await client.start_tls(
                client_context(verify=False), server_side=False, timeout_seconds=5
            )
        assert client.is_lost
        raw.close()

    run(scenario())


@pytest.mark.parametrize("name", ["", ".x", "a" * 64 + ".example", "\udcff.example"])
def test_a_name_that_cannot_be_announced(name: str) -> None:
    async def scenario() -> None:
        client, raw = await wired()
        with pytest.raises(TlsError):
            await client.start_tls(
                client_context(), server_side=False, hostname=name, timeout_seconds=5
            )
        raw.close()

    run(scenario())


def test_a_cancelled_handshake_ends_the_connection() -> None:
    async def scenario() -> None:
        client, raw = await wired()
        shaking = asyncio.ensure_future(
            client.start_tls(client_context(verify=False), server_side=False, timeout_seconds=5)
        )
        await asyncio.sleep(0.01)
        shaking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shaking
        assert client.is_lost
        raw.close()

    run(scenario())


def test_reading_stops_inside_tls_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair()
        await Upgraded(tmp_path).start(client, server)
        client.send(b"a")
        await client.flush()
        assert await read_exactly(server, 1) == b"a"
        sent = await fill(client)
        taken = server.take()
        assert len(taken) <= MAX_RECEIVED + 262144
        assert len(taken) < sent
        assert len(taken) + len(await read_exactly(server, sent - len(taken))) == sent
        client.abort()
        server.abort()

    run(scenario())


def test_a_peer_that_never_ends_its_tls_does_not_hold_us(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair()
        await Upgraded(tmp_path).start(client, server)
        assert server.hold() == b""
        await client.close(0.05)
        await until(lambda: client.is_lost)
        server.abort()

    run(scenario())


def test_why_leaves_numbers_out() -> None:
    assert stream_module._why(ConnectionRefusedError(111, "Connect call failed")) == (
        "Connection refused"
    )
    error: Any = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1)")
    assert "_ssl.c" not in stream_module._why(error)
