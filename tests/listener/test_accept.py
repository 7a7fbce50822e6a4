"""Accepting: many at once, too many, none for a while, through proxies, from this machine."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from typing import TYPE_CHECKING, List

import pytest

from smtpd_core.listener.limits import Clients
from smtpd_core.net.stream import StreamError
from smtpd_core.smtp import answers
from smtpd_core.smtp.proxy import SIGNATURE
from tests.fakes.certificates import MX_EXAMPLE, client_context
from tests.fakes.loop import run, until
from tests.fakes.reception import (
    RULES,
    SERVER,
    Caller,
    Endpoint,
    Listening,
    Reception,
    listen,
    settle,
)

if TYPE_CHECKING:
    from pathlib import Path

PROXIED = "listen on 127.0.0.1 proxy-v2\n" + RULES
V4 = struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, b"\xc0\0\2\7", b"\xc0\0\2\1", 40000, 25)
V6 = struct.pack(
    "!BBH16s16sHH",
    *(0x21, 0x21, 36, bytes.fromhex("20010db8" + "0" * 23 + "7"), b"\0" * 15 + b"\1", 40000, 25),
)
UNIX = struct.pack("!BBH", 0x21, 0x31, 216) + b"/x".ljust(108, b"\0") * 2


def test_fifty_at_once() -> None:
    reception = Reception()

    async def one() -> None:
        caller = await reception.call()
        assert (await caller.mail()).startswith("250 2.0.0 ")
        await caller.quit()

    async def act() -> None:
        async with reception.open():
            for _ in range(4):
                await asyncio.gather(*(one() for _ in range(50)))

    run(act())
    assert len(reception.queue.messages) == 200
    assert len({each.msgid for each in reception.queue.messages}) == 200


def test_when_all_sessions_are_taken_clients_wait() -> None:
    reception = Reception()
    reception.max_sessions = 2

    async def act() -> None:
        async with reception.open() as acceptor:
            first, second = await reception.call(), await reception.call()
            third = await reception.call(greet=False)
            hearing = asyncio.ensure_future(third.hear())
            await settle()
            assert not hearing.done()
            assert acceptor.session_count == 2
            await first.quit()
            assert (await hearing)[0].startswith("220 ")
            await second.quit()
            await third.quit()
            await until(lambda: acceptor.session_count == 0)
            await (await reception.call()).quit()

    run(act())
    trouble = [line for line in reception.log if line.startswith("warn:")]
    assert trouble == [
        "warn: Disabling incoming SMTP connections: Client limit reached",
        "warn: smtp: fd exhaustion over, re-enabling incoming connections",
    ]


def test_without_descriptors_clients_wait() -> None:
    reception = Reception()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def act() -> None:
        async with reception.open() as acceptor:
            first = await reception.call()
            ends = [socket.socket(), socket.socket()]
            for end in ends:
                end.setblocking(False)
                end.connect_ex(reception.listening[0].socket.getsockname())
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest(), hard))
            try:
                await until(lambda: any("Disabling" in line for line in reception.log))
                await settle()
                assert acceptor.session_count == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await first.quit()
            await until(lambda: acceptor.session_count == 2)
            for end in ends:
                end.close()

    run(act())
    trouble = [line for line in reception.log if line.startswith("warn:")]
    assert trouble == [
        "warn: Disabling incoming SMTP connections: Too many open files",
        "warn: smtp: fd exhaustion over, re-enabling incoming connections",
    ]


def highest() -> int:
    """Give the limit that allows no further descriptor."""
    handle = os.dup(0)
    os.close(handle)
    return handle


def test_a_client_with_too_many_sessions_is_sent_away() -> None:
    reception = Reception(PROXIED)
    reception.clients = Clients(2)

    async def act() -> None:
        async with reception.open():
            callers = []
            for _ in range(4):
                caller = await reception.call(greet=False)
                await caller.put(SIGNATURE + V4)
                callers.append(caller)
            greetings = [await caller.line() for caller in callers]
            assert [each[:3] for each in greetings].count("220") == 2
            assert greetings.count(str(answers.TOO_MANY_CLIENTS)) == 2
            for caller, greeting in zip(callers, greetings):
                if greeting[:3] == "220":
                    await caller.quit()
            again = await reception.call(greet=False)
            await again.put(SIGNATURE + V4)
            assert (await again.line())[:3] == "220"
            await again.quit()

    run(act())
    (line,) = reception.lines("smtp refused")
    assert line.endswith(f'result="{answers.TOO_MANY_CLIENTS}" address=192.0.2.7')


# Proxies.


@pytest.mark.parametrize(
    ("preamble", "address"),
    [(V4, "192.0.2.7"), (V6, "[2001:db8::7]"), (b"\x20\x00\x00\x00", "127.0.0.1")],
    ids=["v4", "v6", "local"],
)
@pytest.mark.parametrize("singly", [False, True])
def test_the_client_behind_a_proxy(preamble: bytes, address: str, singly: bool) -> None:
    reception = Reception(PROXIED)
    reception.names.names["192.0.2.7"] = "far.example"

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            whole = SIGNATURE + preamble
            for piece in [bytes((octet,)) for octet in whole] if singly else [whole]:
                await caller.put(piece)
                await settle()
            assert (await caller.hear())[0].startswith("220 ")
            await caller.ask("EHLO c")
            assert (await caller.mail()).startswith("250 ")
            await caller.quit()

    run(act())
    assert reception.lines("smtp event=proxy") == ["smtp event=proxy address=127.0.0.1"]
    ((_, (envelope,), text),) = reception.queue.messages
    assert envelope.address == address.strip("[]")
    name = "far.example" if address == "192.0.2.7" else "<unknown>"
    assert envelope.hostname == name
    bracketed = address if address[0] == "[" else f"[{address}]"
    assert text.startswith(f"Received: from c ({name} {bracketed})\n".encode())


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"EHLO c\r\n", "protocol error (invalid signature)"),
        (SIGNATURE + UNIX, "protocol error (unsupported address family)"),
        (SIGNATURE + b"\x21\x00\x00\x00", "address translation (UNSPEC family not supported"),
    ],
)
def test_a_preamble_that_is_refused(octets: bytes, reason: str) -> None:
    reception = Reception(PROXIED)

    async def act() -> None:
        async with reception.open() as acceptor:
            caller = await reception.call(greet=False)
            await caller.put(octets)
            try:
                assert await caller.is_closed()
            except StreamError:
                pass
            await until(lambda: acceptor.session_count == 0)

    run(act())
    line = reception.log[-1]
    assert line.startswith("proxy ")
    assert f' event=closed address=127.0.0.1 reason="{reason}' in line


def test_tls_begins_right_behind_the_preamble(tmp_path: Path) -> None:
    file = tmp_path / "mx.pem"
    file.write_text(MX_EXAMPLE)
    reception = Reception(
        f'pki "mx.example" cert "{file}"\npki "mx.example" key "{file}"\n'
        f'listen on 127.0.0.1 smtps pki "mx.example" proxy-v2\n{RULES}'
    )

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            caller.stream.send(SIGNATURE + V4)  # leaves together with the ClientHello
            await caller.secure(client_context())
            assert (await caller.hear())[0].startswith("220 ")
            await caller.quit()

    run(act())
    assert len(reception.lines("smtp tls")) == 1


# This machine.


def test_a_local_session() -> None:
    reception = Reception()

    async def act() -> None:
        async with reception.open() as acceptor:
            for uid in (1000, None):
                caller = await local(acceptor_end := await pair())
                assert acceptor.adopt(acceptor_end, uid)
                assert (await caller.hear())[0] == "220 mx.example ESMTP OpenSMTPD"
                said = await caller.ask("EHLO localhost")
                assert said == "250 HELP"
                assert (await caller.mail("\nx\n", "x@far.example")).startswith("250 ")
                await caller.quit()

    run(act())
    (_, (envelope,), text), _ = reception.queue.messages
    assert (envelope.family, envelope.address, envelope.username) == ("local", "", "")
    assert envelope.hostname == SERVER
    assert envelope.flags == 1
    assert text.startswith(b"Received: from localhost (mx.example [local])\n\tby mx.example ")
    assert b" with ESMTPA id " in text
    assert b"\nMessage-ID: <" in text
    assert reception.lines("smtp connected") == [
        "smtp connected address=local host=mx.example uid=1000",
        "smtp connected address=local host=mx.example",
    ]
    assert reception.around.stats.values["smtp.session.local"] == 2


PAIRS: List[socket.socket] = []


async def pair() -> socket.socket:
    ours, theirs = socket.socketpair()
    PAIRS.append(theirs)
    return ours


async def local(_ours: socket.socket) -> Caller:
    from smtpd_core.net.stream import adopt

    return Caller(await adopt(PAIRS.pop()))


def test_a_socket_of_the_unix_family(tmp_path: Path) -> None:
    reception = Reception()
    path = str(tmp_path / "s")

    async def act() -> None:
        from smtpd_core.net.stream import adopt

        end = socket.socket(socket.AF_UNIX)
        end.bind(path)
        end.listen(5)
        end.setblocking(False)
        async with reception.open() as acceptor:
            door = Listening(reception.config.listeners[0], Endpoint("local", 0), end)
            acceptor.open(acceptor._doors[0].site, [*reception.listening, door])
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, path)
            caller = Caller(await adopt(client))
            await caller.hear()
            await caller.ask("EHLO localhost")
            assert (await caller.mail("\nx\n", "x@far.example")).startswith("250 ")
            await caller.quit()

    run(act())
    assert reception.lines("smtp connected") == [
        f"smtp connected address=local host=mx.example uid={os.getuid()}"
    ]


def test_local_clients_are_refused_when_we_are_full_or_paused() -> None:
    reception = Reception()
    reception.max_sessions = 1

    async def act() -> None:
        async with reception.open() as acceptor:
            acceptor.pause()
            assert not acceptor.adopt(await pair())
            acceptor.resume()
            caller = await reception.call()
            refused = await pair()
            assert not acceptor.adopt(refused)
            assert refused.fileno() == -1
            await caller.quit()
        for end in PAIRS:
            end.close()
        PAIRS.clear()

    run(act())


# Pause, reload, stop.


def test_pause_and_resume() -> None:
    reception = Reception()

    async def act() -> None:
        async with reception.open() as acceptor:
            before = await reception.call()
            acceptor.pause()
            during = await reception.call(greet=False)
            hearing = asyncio.ensure_future(during.hear())
            assert (await before.mail()).startswith("250 ")
            await before.quit()  # an end of a session does not resume
            await settle()
            assert not hearing.done()
            acceptor.resume()
            assert (await hearing)[0].startswith("220 ")
            await during.quit()

    run(act())


def test_a_reload_disturbs_nobody() -> None:
    reception = Reception("listen on 127.0.0.1\nlisten on 127.0.0.1 port 26\n" + RULES)

    async def act() -> None:
        async with reception.open() as acceptor:
            stays, goes = reception.listening
            old = [await reception.call(0), await reception.call(1)]
            later = Reception(
                "listen on 127.0.0.1 hostname new.example\nlisten on 127.0.0.1 port 27\n" + RULES
            )
            later.around, later.queue = reception.around, reception.queue
            fresh = listen(later.config.listeners[1])
            kept = Listening(later.config.listeners[0], stays.endpoint, stays.socket)
            acceptor.open(later.site(), [kept, fresh])
            assert goes.socket.fileno() == -1
            reception.listening = [kept, fresh]
            new = await reception.call(0, greet=False)
            assert await new.hear() == ["220 new.example ESMTP OpenSMTPD"]
            other = await reception.call(1)
            for caller in old:
                assert (await caller.mail()).startswith("250 ")
            for caller in (*old, new, other):
                await caller.quit()

    run(act())
    assert b"by mx.example" in reception.queue.messages[0].text


def test_a_stop_lets_mail_come_to_its_end() -> None:
    reception = Reception()

    async def act() -> None:
        reception.queue.gate = asyncio.Event()
        async with reception.open() as acceptor:
            idle, busy = await reception.call(), await reception.call()
            sending = asyncio.ensure_future(busy.mail())
            await until(lambda: reception.queue.committing)
            stopping = asyncio.ensure_future(acceptor.stop(10))
            assert await idle.line() == "421 4.3.2 Service shutting down"
            assert await idle.is_closed()
            with pytest.raises(StreamError):
                await reception_closed(reception)
            assert not stopping.done()
            reception.queue.gate.set()
            assert (await sending).startswith("250 2.0.0 ")
            assert await busy.line() == "421 4.3.2 Service shutting down"
            assert await busy.is_closed()
            await stopping

    run(act())
    assert len(reception.queue.messages) == 1


async def reception_closed(reception: Reception) -> None:
    if reception.listening[0].socket.fileno() == -1:
        raise StreamError("closed")
    await reception.call()


def test_a_stop_is_bounded_in_time() -> None:
    reception = Reception()

    async def act() -> None:
        async with reception.open() as acceptor:
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>", "RCPT TO:<joe@mx.example>", "DATA")
            await caller.put(b"\r\n" + b"x\r\n" * 100_000)
            await until(lambda: reception.queue.opened)
            await acceptor.stop(0.02)
            assert acceptor.session_count == 0

    run(act())
    assert reception.queue.messages == []
    assert reception.queue.abandoned == [0x1000]
