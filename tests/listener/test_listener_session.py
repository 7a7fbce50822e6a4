"""Whole sessions over loopback: mail, TLS, logins, hostile and slow clients, trouble behind us."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import struct
import tracemalloc
from base64 import b64encode
from typing import TYPE_CHECKING, List, Union

import pytest

from smtpd_core.listener.site import Timeouts
from smtpd_core.net.stream import CLOSE_SECONDS, StreamError
from smtpd_core.smtp import answers
from smtpd_core.tables.password import hash_password
from tests.fakes.certificates import MX_EXAMPLE, client_context
from tests.fakes.loop import leap, run, until
from tests.fakes.reception import PLAIN, RULES, Caller, Reception, settle

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from smtpd_core.routing.expand import Expansion

HASH = hash_password(b"secret", "sha512", entropy=lambda count: b"\1" * count)
LOGIN = b64encode(b"\0joe\0secret").decode()
WRONG = b64encode(b"\0joe\0wrong").decode()
SMUGGLED = "MAIL FROM:<admin@mx.example>\r\nRCPT TO:<joe@mx.example>\r\nDATA\r\n\r\nx\r\n.\r\n"


def with_tls(directory: Path, listen: str) -> str:
    file = directory / "mx.pem"
    file.write_text(MX_EXAMPLE)
    return (
        f'pki "mx.example" cert "{file}"\npki "mx.example" key "{file}"\n'
        f'listen on 127.0.0.1 {listen} pki "mx.example"\n{RULES}'
    )


# A mail.


def test_a_mail_and_its_log() -> None:
    reception = Reception()
    reception.names.names["127.0.0.1"] = "client.example"

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            said = await caller.mail("From: a\n\nbody\n", "joe@mx.example", "ann+t@mx.example")
            assert said == "250 2.0.0 00001000 Message accepted for delivery"
            await caller.quit()

    run(act())
    ((_, envelopes, text),) = reception.queue.messages
    assert [each.mda_user for each in envelopes] == ["joe", "ann"]
    assert [each.mda_subaddress for each in envelopes] == ["", "t"]
    assert text == (
        b"Received: from client.example (client.example [127.0.0.1])\n"
        b"\tby mx.example (OpenSMTPD) with ESMTP id 00001000;\n"
        b"\tSun, 22 Nov 2026 14:23:32 +0000 (UTC)\n"
        b"From: a@mx.example\n"
        b"Date: Sun, 22 Nov 2026 14:23:32 +0000 (UTC)\n"
        b"Message-ID: <0000000000000002@mx.example>\n"
        b"\nbody\n"
    )
    session = "0000000000000001 smtp "
    assert reception.log == [
        session + "connected address=127.0.0.1 host=client.example",
        session + f"message msgid=00001000 size={len(text)} nrcpt=2 proto=ESMTP",
        session + "envelope evpid=0000100000000001 from=<a@b.example> to=<joe@mx.example>",
        session + "envelope evpid=0000100000000002 from=<a@b.example> to=<ann+t@mx.example>",
        session + "disconnected reason=quit",
    ]
    assert reception.around.stats.values["smtp.session.inet4"] == 1


def test_a_library_that_everybody_uses() -> None:
    reception = Reception()

    def send() -> None:
        host, port = reception.listening[0].socket.getsockname()
        with smtplib.SMTP(host, port, local_hostname="client.example", timeout=5) as client:
            refused = client.sendmail(
                "a@b.example",
                ["joe@mx.example", "nobody@mx.example"],
                "Subject: x\r\n\r\n.dot\r\n",
                mail_options=["SIZE=20", "BODY=8BITMIME"],
                rcpt_options=["NOTIFY=SUCCESS,DELAY"],
            )
        assert refused == {"nobody@mx.example": (550, b"Invalid recipient: <nobody@mx.example>")}

    async def act() -> None:
        async with reception.open():
            await asyncio.get_running_loop().run_in_executor(None, send)

    run(act())
    ((_, (envelope,), text),) = reception.queue.messages
    assert envelope.dsn_notify == 5
    assert text.endswith(b"\n\n.dot\n")
    (line,) = reception.lines("smtp failed")
    assert 'command="rcpt to:<nobody@mx.example> notify=success,delay"' in line.lower()
    assert line.endswith(' result="550 Invalid recipient: <nobody@mx.example>" address=127.0.0.1')


def test_helo_and_one_recipient_in_the_trace() -> None:
    reception = Reception()

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            await caller.hear()
            await caller.ask("HELO c")
            await caller.mail()
            await caller.quit()

    run(act())
    assert b"with SMTP id 00001000\n\tfor <joe@mx.example>;\n" in reception.queue.messages[0].text
    assert reception.lines("smtp message")[0].endswith(" proto=SMTP")


def test_the_acceptance_is_said_when_the_mail_is_stored_and_not_before() -> None:
    reception = Reception()

    async def act() -> None:
        reception.queue.gate = asyncio.Event()
        async with reception.open():
            caller = await reception.call()
            sending = asyncio.ensure_future(caller.mail())
            await until(lambda: reception.queue.committing)
            await settle()
            assert not sending.done()
            assert reception.lines("smtp message") == []
            reception.queue.gate.set()
            assert (await sending).startswith("250 2.0.0 ")
            await caller.quit()

    run(act())


def test_two_mails_one_after_a_reset() -> None:
    reception = Reception()

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<x@b.example>", "RCPT TO:<ann@mx.example>")
            assert await caller.ask("RSET") == "250 2.0.0 Reset state"
            await caller.mail()
            await caller.mail()
            await caller.quit()

    run(act())
    assert [len(each.envelopes) for each in reception.queue.messages] == [1, 1]
    assert [each.sender for each in reception.queue.messages[0].envelopes] == ["a@b.example"]


def test_ten_thousand_recipients() -> None:
    reception = Reception("smtp limit max-rcpt 10000\n" + PLAIN)
    commands = "".join(f"RCPT TO:<joe+{n}@mx.example>\r\n" for n in range(10001))

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>")
            putting = asyncio.ensure_future(caller.put(commands.encode()))
            replies = [(await caller.hear())[-1][:9] for _ in range(10001)]
            await putting
            assert replies == ["250 2.1.5"] * 10000 + ["451 4.5.3"]
            assert (await caller.ask("DATA")).startswith("354")
            await caller.put(b"\r\n.\r\n")
            assert (await caller.hear())[-1].startswith("250 2.0.0")
            await caller.quit()

    run(act())
    assert len(reception.queue.messages[0].envelopes) == 10000


def test_aliases_cannot_make_envelopes_without_end() -> None:
    reception = Reception(
        'table al { "all" = ":include:/all" }\n' + PLAIN.replace("maildir", "maildir alias <al>")
    )
    names = [f"u{n}" for n in range(4500)]
    reception.supervisor.users.update(dict.fromkeys(names, reception.supervisor.users["joe"]))
    reception.supervisor.includes["/all"] = "\n".join(names)

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>")
            for _ in range(4):
                assert (await caller.ask("RCPT TO:<all@mx.example>")).startswith("250 ")
            assert (await caller.ask("RCPT TO:<all@mx.example>")).startswith("451 4.5.3 ")
            await caller.quit()

    run(act())


def test_a_large_mail_costs_little_memory() -> None:
    reception = Reception("smtp max-message-size 100M\n" + PLAIN)
    line = b"x" * 998 + b"\r\n"
    piece = line * 64

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>", "RCPT TO:<joe@mx.example>", "DATA")
            await caller.put(b"\r\n")
            tracemalloc.start()
            try:
                for _ in range(320):  # 20 megabytes
                    await caller.put(piece)
                await until(lambda: reception.queue.opened)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 4 << 20
            await caller.put(b".\r\n")
            assert (await caller.hear())[-1].startswith("250 2.0.0")
            await caller.quit()

    run(act())
    assert len(reception.queue.messages[0].text) > 320 * 64 * 999


def test_a_mail_too_large_is_refused_at_its_end() -> None:
    reception = Reception("smtp max-message-size 100\n" + PLAIN)

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            assert (await caller.ask("MAIL FROM:<a@b.example> SIZE=101")).startswith("552 5.3.4")
            assert (await caller.mail("\n" + "x" * 100 + "\n")).startswith("554 5.3.4")
            assert (await caller.mail("\n" + "x" * 90 + "\n")).startswith("250 2.0.0")
            await caller.quit()

    run(act())
    assert reception.lines("smtp failed-command")[-1] == (
        'smtp failed-command command="DATA" result="554 5.3.4 Message too big for system:'
        ' Transaction failed, message too big" address=127.0.0.1'
    )


def test_a_loop_is_refused_and_told() -> None:
    reception = Reception()

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            said = await caller.mail("Received: x\n" * 100 + "\nbody\n")
            assert said == "500 5.4.6 Routing loop detected: Loop detected"
            assert (await caller.mail()).startswith("250 ")
            await caller.quit()

    run(act())
    assert any(line.startswith("warn: loop detected") for line in reception.log)


# Smuggling.


@pytest.mark.parametrize(
    "end",
    [
        *("\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n"),
        *("\r\r\n.\r\n", "\r\n.\r\r\n", "\n\r.\n\r", "\r\n\r.\r\n", "\n\n.\n\n", "\r\n\0.\n"),
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_no_second_mail_is_smuggled_in(end: str, apart: bool) -> None:
    reception = Reception()
    pieces = ["\r\nfirst" + end, SMUGGLED] if apart else ["\r\nfirst" + end + SMUGGLED]

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>", "RCPT TO:<joe@mx.example>", "DATA")
            for piece in pieces:
                try:
                    await caller.put(piece.encode())
                except StreamError:
                    break  # it was closed already
                await settle()
            try:
                assert await caller.line() == str(answers.BAD_OCTET)
                assert await caller.is_closed()
            except StreamError:
                pass  # reset, because it went on speaking

    run(act())
    assert reception.queue.messages == []
    (line,) = reception.lines("smtp bad-input")
    assert line.endswith(" address=127.0.0.1")
    assert reception.lines("smtp disconnected") == ["smtp disconnected reason=quit"]


# TLS.


def test_starttls(tmp_path: Path) -> None:
    reception = Reception(with_tls(tmp_path, "tls received-auth"))

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            assert await caller.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
            await caller.secure()
            assert await caller.ask("EHLO c") == "250 HELP"
            assert (await caller.mail()).startswith("250 ")
            assert reception.around.stats.values["smtp.tls"] == 1
            await caller.quit()

    run(act())
    (line,) = reception.lines("smtp tls")
    description = line.rpartition("=")[2]
    assert description.startswith("TLSv1.3:TLS_")
    text = reception.queue.messages[0].text.decode()
    assert f" with ESMTPS id 00001000 ({description}:NO) auth=no\n" in text
    assert reception.around.stats.values["smtp.tls"] == 0


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_what_is_said_in_clear_is_never_taken_as_said_inside(tmp_path: Path, apart: bool) -> None:
    reception = Reception(with_tls(tmp_path, "tls"))
    injected = b"RSET\r\n"

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            if apart:
                assert (await caller.ask("STARTTLS")).startswith("220 ")
                await caller.put(injected)
                with pytest.raises(StreamError):
                    await caller.secure()
            else:
                await caller.put(b"STARTTLS\r\n" + injected)
                assert await caller.line() == str(answers.EARLY_INPUT)
                assert await caller.is_closed()

    run(act())
    (end,) = reception.lines("smtp disconnected")
    if apart:
        assert end == "smtp disconnected reason=tls-accept-failed address=127.0.0.1"
    else:
        assert reception.lines("smtp bad-input") != []


def test_immediate_tls(tmp_path: Path) -> None:
    reception = Reception(with_tls(tmp_path, "smtps"))

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            await caller.secure()
            assert (await caller.hear())[0] == "220 mx.example ESMTP OpenSMTPD"
            assert "250-STARTTLS" not in await reply(caller, "EHLO c")
            assert (await caller.mail()).startswith("250 ")
            assert reception.around.stats.values["smtp.smtps"] == 1
            await caller.quit()

    run(act())
    assert b"with ESMTPS id" in reception.queue.messages[0].text
    words = [line.split()[2] for line in reception.log]
    assert words[:2] == ["connected", "tls"]


async def reply(caller: Caller, line: str) -> List[str]:
    await caller.say(line)
    return await caller.hear()


async def heard_nothing(caller: Caller) -> None:
    """Wait for the end of a connection on which no text is said, but perhaps an alert of TLS."""
    try:
        while octets := await caller.stream.receive(5):
            assert octets[:1] == b"\x15"
    except StreamError:
        pass


def test_a_handshake_that_fails_is_told(tmp_path: Path) -> None:
    reception = Reception(with_tls(tmp_path, "smtps"))

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            await caller.say("EHLO in.clear")
            await heard_nothing(caller)

    run(act())
    assert [line.split(" ", 3)[3] for line in reception.log] == [
        "address=127.0.0.1 host=<unknown>",
        "reason=tls-accept-failed address=127.0.0.1",
    ]


def test_a_silent_handshake_ends(tmp_path: Path) -> None:
    reception = Reception(with_tls(tmp_path, "smtps"))
    reception.timeouts = Timeouts(handshake=0.05)

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            await heard_nothing(caller)

    run(act())
    assert reception.lines("smtp disconnected") == [
        "smtp disconnected reason=timeout address=127.0.0.1"
    ]


def test_a_client_shows_its_certificate(tmp_path: Path) -> None:
    text = with_tls(tmp_path, "smtps verify").replace(
        "listen on", f'ca "us" cert "{tmp_path}/ca.pem"\nlisten on'
    )
    text = text.replace("smtps verify", 'smtps verify ca "us"')
    from tests.fakes.certificates import AUTHORITY

    (tmp_path / "ca.pem").write_text(AUTHORITY)
    reception = Reception(text)
    context = client_context()
    context.load_cert_chain(str(tmp_path / "mx.pem"))

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            await caller.secure(context)
            await caller.hear()
            await caller.ask("EHLO c")
            await caller.mail()
            await caller.quit()

    run(act())
    (line,) = reception.lines("smtp cert-check")
    assert line.startswith('smtp cert-check result="verified" fingerprint="SHA256:')
    assert b":YES)" in reception.queue.messages[0].text


# Logins.


def submission(directory: Path, options: str) -> Reception:
    table = (
        f'table cr {{ "joe" = "{HASH}" }}\ntable se {{ "joe" = "joe@mx.example, @j.example" }}\n'
    )
    text = table + with_tls(directory, f"smtps {options}")
    reception = Reception(text)
    reception.supervisor.passwords["joe"] = "secret"
    return reception


async def enter(reception: Reception) -> Caller:
    caller = await reception.call(greet=False)
    await caller.secure()
    await caller.hear()
    await caller.ask("EHLO c")
    return caller


@pytest.mark.parametrize("table", ["", "<cr>"])
def test_a_login(tmp_path: Path, table: str) -> None:
    reception = submission(tmp_path, f"auth {table} received-auth tag SUB")

    async def act() -> None:
        async with reception.open():
            caller = await enter(reception)
            assert (await caller.ask("MAIL FROM:<a@b>")).startswith("530 5.5.1 ")
            assert await caller.ask(f"AUTH PLAIN {WRONG}") == "535 Authentication failed"
            assert (await caller.ask(f"AUTH PLAIN {LOGIN}")).startswith("235 2.0.0 ")
            assert (await caller.mail("\n", "x@far.example")).startswith("250 ")
            await caller.quit()

    run(act())
    ((_, (envelope,), text),) = reception.queue.messages
    assert envelope.username == "joe"
    assert envelope.flags == 1
    assert envelope.type == "mta"
    assert envelope.tag == "SUB"
    assert b" with ESMTPSA id" in text
    assert b" auth=yes user=joe\n" in text
    assert reception.lines("smtp authentication") == [
        "smtp authentication user=joe result=permfail address=127.0.0.1",
        "smtp authentication user=joe result=ok",
    ]
    assert 'command="AUTH PLAIN (...)" result="535' in reception.lines("smtp failed-command")[1]
    assert not any(secret in line for line in reception.log for secret in (LOGIN, WRONG))


def test_a_login_that_cannot_be_checked(tmp_path: Path) -> None:
    reception = submission(tmp_path, "auth")
    reception.supervisor.cannot_tell = True

    async def act() -> None:
        async with reception.open():
            caller = await enter(reception)
            said = await caller.ask(f"AUTH PLAIN {LOGIN}")
            assert said == "421 4.3.0 Temporary failure"
            assert await caller.ask("NOOP") == "250 2.0.0 Ok"
            await caller.quit()

    run(act())
    assert reception.lines("smtp authentication") == [
        "smtp authentication user=joe result=tempfail address=127.0.0.1"
    ]


@pytest.mark.parametrize(
    ("sender", "said"),
    [
        ("joe@mx.example", "250 2.0.0 Ok"),
        ("joe+tag@mx.example", "250 2.0.0 Ok"),
        ("any@j.example", "250 2.0.0 Ok"),
        ("ann@mx.example", "530 Sender rejected"),
        ("", "530 Sender rejected"),
    ],
)
def test_senders(tmp_path: Path, sender: str, said: str) -> None:
    reception = submission(tmp_path, "auth senders <se>")

    async def act() -> None:
        async with reception.open():
            caller = await enter(reception)
            await caller.ask(f"AUTH PLAIN {LOGIN}")
            assert await caller.ask(f"MAIL FROM:<{sender}>") == said
            await caller.quit()

    run(act())


def test_masquerade(tmp_path: Path) -> None:
    reception = submission(tmp_path, "auth senders <se> masquerade")

    async def act() -> None:
        async with reception.open():
            caller = await enter(reception)
            await caller.ask(f"AUTH PLAIN {LOGIN}", "MAIL FROM:<me@j.example>")
            await caller.ask("RCPT TO:<joe@mx.example>", "DATA")
            await caller.put(b"From: Ann <ann@mx.example>\r\n\r\n.\r\n")
            assert (await caller.hear())[-1].startswith("250 ")
            await caller.quit()

    run(act())
    assert b"\nFrom: Ann <me@j.example>\n" in reception.queue.messages[0].text


# Names.


def test_the_banner_waits_for_the_clients_name() -> None:
    reception = Reception()
    reception.names.names["127.0.0.1"] = "known.example"

    async def act() -> None:
        reception.names.gate = asyncio.Event()
        async with reception.open():
            caller = await reception.call(greet=False)
            hearing = asyncio.ensure_future(caller.hear())
            await settle()
            assert not hearing.done()
            assert reception.log == []
            reception.names.gate.set()
            assert (await hearing)[0].startswith("220 ")
            await caller.quit()

    run(act())
    assert reception.lines("smtp connected")[0].endswith(" host=known.example")


def test_but_not_for_ever() -> None:
    reception = Reception()
    reception.timeouts = Timeouts(name=0.02)

    async def act() -> None:
        reception.names.gate = asyncio.Event()
        async with reception.open():
            caller = await reception.call(greet=False)
            assert (await caller.hear())[0].startswith("220 ")
            await caller.quit()

    run(act())
    assert reception.log[0] == "warn: getnameinfo: 127.0.0.1: temporary failure"
    assert reception.log[1].endswith(" host=<unknown>")


def test_the_name_we_go_by() -> None:
    table = 'table hn { "127.0.0.1" = "one.example" }\n'
    reception = Reception(table + "listen on 127.0.0.1 hostnames <hn> hostname h.example\n" + RULES)

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            assert await caller.hear() == ["220 one.example ESMTP OpenSMTPD"]
            await caller.ask("EHLO c", "MAIL FROM:<bare>")
            await caller.ask("RCPT TO:<joe@mx.example>", "DATA")
            await caller.put(b"\r\n.\r\n")
            await caller.hear()
            await caller.quit()

    run(act())
    ((_, (envelope,), text),) = reception.queue.messages
    assert envelope.smtpname == "one.example"
    assert envelope.sender == "bare@h.example"
    assert b"\tby one.example (OpenSMTPD)" in text


# Slow and vanishing clients.


@pytest.mark.parametrize("said", [b"", b"NOO", b"EHLO c\r\n", b"EHLO c\r\nMAIL FROM:<a@b>\r\nRS"])
def test_a_silent_client_is_sent_away(said: bytes) -> None:
    reception = Reception()
    reception.timeouts = Timeouts(idle=0.05)

    async def act() -> None:
        async with reception.open():
            caller = await reception.call(greet=False)
            await caller.put(said)
            line = await caller.line()
            while line[:3] in ("220", "250"):
                line = await caller.line()
            assert line == "421 4.4.2 Timeout"
            assert await caller.is_closed()

    run(act())
    assert reception.lines("smtp disconnected") == [
        "smtp disconnected reason=timeout address=127.0.0.1"
    ]


@pytest.mark.parametrize("in_data", [False, True])
def test_an_octet_now_and_then_gains_nothing(in_data: bool) -> None:
    reception = Reception()
    reception.timeouts = Timeouts(idle=10 if in_data else 0.15, message=0.15)

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            if in_data:
                await caller.ask("MAIL FROM:<a@b.example>", "RCPT TO:<joe@mx.example>", "DATA")
            hearing = asyncio.ensure_future(caller.line())
            while not hearing.done():
                await caller.put(b"x")
                await asyncio.wait({hearing}, timeout=0.02)
            assert await hearing == "421 4.4.2 Timeout"

    run(act())
    assert reception.queue.messages == []


def test_a_client_that_does_not_read_is_sent_away() -> None:
    reception = Reception("smtp limit max-rcpt 100000\n" + PLAIN)
    reception.timeouts = Timeouts(idle=0.3)
    mail = b"EHLO c\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<joe@mx.example>\r\n" * 20_000

    async def act() -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.setblocking(False)
        async with reception.open() as acceptor:
            assert acceptor.adopt(ours)
            sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(theirs, mail))
            await until(lambda: reception.lines("smtp disconnected"))
            assert not sending.done()  # we stopped reading when it did
            sending.cancel()
            leap(CLOSE_SECONDS)  # nor does it take leave
        theirs.close()

    run(act())
    (line,) = reception.lines("smtp disconnected")
    assert line == "smtp disconnected reason=timeout address=local"


STEPS = [
    b"",
    b"EHLO c\r\n",
    b"MAIL FROM:<a@b.example>\r\n",
    b"RCPT TO:<joe@mx.example>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\n",
    b"x" * 998 + b"\r\n",
    b"\r\n" * 100_000,
    b".\r",
]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("count", range(1, len(STEPS) + 1))
def test_a_client_that_goes_away_leaves_nothing(count: int, how: str) -> None:
    reception = Reception()

    async def act() -> None:
        async with reception.open() as acceptor:
            loop = asyncio.get_running_loop()
            end = socket.socket()
            end.setblocking(False)
            await loop.sock_connect(end, reception.listening[0].socket.getsockname())
            for step in STEPS[:count]:
                await loop.sock_sendall(end, step)
                await settle()
            if how == "reset":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
            await until(lambda: reception.lines("smtp disconnected"))
            await until(lambda: acceptor.session_count == 0)

    run(act())
    assert reception.queue.messages == []
    (line,) = reception.lines("smtp disconnected")
    assert "reason=disconnect" in line or 'reason="io-error: Connection reset by peer' in line


def test_a_client_that_goes_away_before_it_hears_that_we_took_its_mail() -> None:
    reception = Reception()

    async def act() -> None:
        reception.queue.gate = asyncio.Event()
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>", "RCPT TO:<joe@mx.example>", "DATA")
            await caller.put(b"\r\n.\r\n")
            await until(lambda: reception.queue.committing)
            transport = caller.stream._transport
            assert transport is not None
            end = transport.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.stream.abort()
            await asyncio.sleep(0.02)
            reception.queue.gate.set()
            await until(lambda: reception.lines("smtp disconnected"))

    run(act())
    assert len(reception.queue.messages) == 1
    assert reception.lines("smtp unheard") == [
        "smtp unheard msgid=00001000 result=accepted address=127.0.0.1"
    ]


# Trouble behind us.


def test_a_queue_that_cannot_store() -> None:
    reception = Reception()
    reception.queue.failing["commit"] = "the disk is full"

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            assert await caller.mail() == "421 4.3.0 Temporary failure"
            assert await caller.is_closed()

    run(act())
    assert any("the disk is full" in line and "127.0.0.1" in line for line in reception.log)
    assert 'result="421 4.3.0 Temporary failure" address=' in reception.lines("smtp failed")[0]


def test_a_queue_without_ids() -> None:
    reception = Reception()
    reception.queue.failing["new_msgid"] = "gone"

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            assert await caller.ask("MAIL FROM:<a@b.example>") == "421 4.3.0 Temporary Error"
            assert await caller.is_closed()

    run(act())


def test_a_mistake_of_ours_ends_one_session_with_a_word() -> None:
    reception = Reception()

    class Broken:
        async def expand(self, *_: object) -> Union[Expansion, None]:
            raise RuntimeError("our mistake")

    async def act() -> None:
        async with reception.open() as acceptor:
            acceptor._doors[0].site.__dict__["router"] = Broken()
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>")
            assert await caller.ask("RCPT TO:<joe@mx.example>") == "421 Internal server error"
            assert await caller.is_closed()
            assert [str(error) for error in reception.around.confessed] == ["our mistake"]
            reception.around.confessed.clear()

    run(act())


def test_what_an_alias_says_is_checked() -> None:
    table = 'table al { "gone" = "error:550 Gone away" "later" = "error:421 Not now" }\n'
    reception = Reception(table + PLAIN.replace("maildir", "maildir alias <al>"))

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b.example>")
            said = await caller.ask("RCPT TO:<gone@mx.example>")
            assert said == "550 Gone away: <gone@mx.example>"
            said = await caller.ask("RCPT TO:<later@mx.example>")
            assert said == "421 Not now: <later@mx.example>"
            assert await caller.is_closed()

    run(act())


def test_rules_know_the_session() -> None:
    rules = (
        'action "a" relay\nmatch from rdns "known.example" for any action "a"\n'
        'match from any helo "nice.example" for any action "a"\n'
        'match from any mail-from "@fine.example" for any action "a"\n'
    )
    reception = Reception("listen on 127.0.0.1\n" + rules)

    async def refused(hello: str, sender: str) -> bool:
        caller = await reception.call(greet=False)
        await caller.hear()
        await caller.ask(f"EHLO {hello}", f"MAIL FROM:<{sender}>")
        said = await caller.ask("RCPT TO:<x@y.example>")
        await caller.quit()
        return said == "550 Invalid recipient: <x@y.example>"

    async def act() -> None:
        async with reception.open():
            assert await refused("c", "a@b")
            assert not await refused("nice.example", "a@b")
            assert not await refused("c", "a@fine.example")
            reception.names.names["127.0.0.1"] = "known.example"
            assert not await refused("c", "a@b")

    run(act())


def test_tls_is_no_secret_to_the_rules(tmp_path: Path) -> None:
    text = with_tls(tmp_path, "tls").replace(RULES, 'action "a" relay\n')
    reception = Reception(text + 'match from any tls for any action "a"\n')

    async def act() -> None:
        async with reception.open():
            caller = await reception.call()
            await caller.ask("MAIL FROM:<a@b>")
            assert (await caller.ask("RCPT TO:<x@y.example>")).startswith("550 ")
            await caller.ask("RSET", "STARTTLS")
            await caller.secure(ssl_context())
            await caller.ask("EHLO c", "MAIL FROM:<a@b>")
            assert (await caller.ask("RCPT TO:<x@y.example>")).startswith("250 ")
            await caller.quit()

    run(act())


def ssl_context() -> ssl.SSLContext:
    return client_context()
