"""One mail: its envelopes as releases write them, its text in memory or in a file."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, List

import pytest

from smtpd_core.listener.transaction import MAX_BODY, Origin, Stored, Transaction
from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.mail.header import MAX_RECEIVED, HeaderRules
from smtpd_core.mail.received import Trace
from smtpd_core.queue.envelope import parse_envelope
from smtpd_core.queue.releases import find_release, format_envelope, readers
from smtpd_core.routing.expand import Delivery, Method
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import Mail, Notify, Rcpt
from tests.fakes.loop import run
from tests.fakes.services import NOW, FakeQueue

LIBEXEC = "/usr/libexec/opensmtpd"
ORIGIN = Origin(
    tag="SUBMIT",
    smtpname="mx.example",
    helo="client.example",
    hostname="client.example",
    username="joe",
    family="inet4",
    address="192.0.2.1",
    authenticated=True,
)
SENDER = Address("a", "b.example")
JOE = Address("joe", "mx.example")
MAIL = Mail(SENDER)
HEADER = HeaderRules("mx.example")
LOCAL = Delivery(Method.USER, "local", "joe@mx.example", user="joe")
TRACE = Trace(
    helo="client.example",
    host="client.example",
    address="192.0.2.1",
    server="mx.example",
    protocol="ESMTP",
    msgid=7,
    date="Sun, 22 Nov 2026 14:23:32 +0000 (UTC)",
)
RECEIVED = b"Received: from client.example (client.example [192.0.2.1])\n"


def begin(queue: FakeQueue, mail: Mail = MAIL, origin: Origin = ORIGIN) -> Transaction:
    return Transaction(queue, 7, mail, origin)


def spelled(rcpt: Rcpt, delivery: Delivery, mail: Mail = MAIL, **changes: Any) -> str:
    """Give the envelope of a delivery as the spool holds it; every release since 6.7 reads it."""
    transaction = begin(FakeQueue(), mail, replace(ORIGIN, **changes))
    assert transaction.add(rcpt, [delivery], NOW, LIBEXEC)
    octets = format_envelope(transaction.envelopes[0], find_release("6.8"))
    parsed = parse_envelope(octets)
    assert parsed.damage == []
    assert "6.7" in readers(parsed)
    return octets.decode()


def test_an_envelope_as_6_8_writes_it() -> None:
    assert spelled(Rcpt(JOE), LOCAL) == (
        "version: 3\ndispatcher: local\ntag: SUBMIT\ntype: mda\nsmtpname: mx.example\n"
        "helo: client.example\nhostname: client.example\nusername: joe\nsockaddr: 192.0.2.1\n"
        "sender: a@b.example\nrcpt: joe@mx.example\ndest: joe@mx.example\n"
        f"ctime: {NOW}\nlast-try: 0\nlast-bounce: 0\nttl: 0\nretry: 0\nflags: authenticated\n"
        "dsn-notify: 0\nmda-user: joe\n"
    )


def test_an_envelope_to_relay_with_all_parameters() -> None:
    text = spelled(
        Rcpt(JOE, Notify.SUCCESS | Notify.DELAY, "rfc822;Joe@mx.example"),
        Delivery(Method.RELAY, "out", "joe@else.example"),
        Mail(NULL_ADDRESS, ret="HDRS", envid="q+2B1"),
        authenticated=False,
        username="",
        tag="",
        family="inet6",
        address="2001:db8::1",
    )
    assert text == (
        "version: 3\ndispatcher: out\ntype: mta\nsmtpname: mx.example\n"
        "helo: client.example\nhostname: client.example\nsockaddr: [2001:db8::1]\n"
        "sender: @\nrcpt: joe@mx.example\ndest: joe@else.example\n"
        f"ctime: {NOW}\nlast-try: 0\nlast-bounce: 0\nttl: 0\nretry: 0\n"
        "dsn-notify: 5\ndsn-ret: HDRS\ndsn-envid: q+2B1\ndsn-orcpt: Joe@mx.example\n"
    )


@pytest.mark.parametrize(
    ("delivery", "ending"),
    [
        (
            Delivery(Method.USER, "local", "joe+t@mx.example", user="joe", sub_address="t"),
            "mda-subaddress: t\nmda-user: joe\n",
        ),
        (
            Delivery(Method.PIPE, "local", "x@mx.example", user="ann", target="/bin/f -x %{rcpt}"),
            "mda-exec: /bin/f -x %{rcpt}\nmda-user: ann\n",
        ),
        (
            Delivery(Method.FILE, "local", "x@mx.example", user="_smtpd", target="/var/x"),
            f"mda-exec: {LIBEXEC}/mail.mboxfile -f %{{mbox.from}} /var/x\nmda-user: _smtpd\n",
        ),
    ],
)
def test_local_deliveries(delivery: Delivery, ending: str) -> None:
    assert spelled(Rcpt(JOE), delivery).endswith("dsn-notify: 0\n" + ending)


def test_a_local_session() -> None:
    text = spelled(Rcpt(JOE), LOCAL, family="local", address="", username="", tag="")
    assert "\nsockaddr: local\n" in text


def test_names_are_cut_to_what_releases_read() -> None:
    text = spelled(Rcpt(JOE), LOCAL, helo="h" * 255, hostname="n" * 255)
    assert f"\nhelo: {'h' * 64}\nhostname: {'n' * 64}\n" in text


@pytest.mark.parametrize(
    ("orcpt", "stored"),
    [
        ("RFC822;a@b", "a@b"),
        ("utf-8;a@b", "utf-8;a@b"),
        ("x400;nothing", ""),
        ("rfc822;nodomain", ""),
        ("", ""),
    ],
)
def test_original_recipients(orcpt: str, stored: str) -> None:
    transaction = begin(FakeQueue())
    transaction.add(Rcpt(JOE, orcpt=orcpt), [LOCAL], NOW, LIBEXEC)
    assert transaction.envelopes[0].dsn_orcpt == stored


def test_parameters_of_one_recipient_are_not_those_of_the_next() -> None:
    transaction = begin(FakeQueue())
    transaction.add(Rcpt(JOE, Notify.NEVER, "rfc822;a@b"), [LOCAL], NOW, LIBEXEC)
    transaction.add(Rcpt(JOE), [LOCAL], NOW, LIBEXEC)
    assert [each.dsn_notify for each in transaction.envelopes] == [8, 0]
    assert transaction.envelopes[1].dsn_orcpt == ""


def test_a_command_too_long_to_store_is_no_recipient() -> None:
    transaction = begin(FakeQueue())
    command = Delivery(Method.FILE, "local", "x@y", user="joe", target="/" + "x" * 2040)
    assert not transaction.add(Rcpt(JOE), [LOCAL, command], NOW, LIBEXEC)
    assert transaction.envelopes == []
    assert transaction.recipients == []


def send(transaction: Transaction, *pieces: bytes, rules: HeaderRules = HEADER) -> Stored:
    async def act() -> Stored:
        transaction.add(Rcpt(JOE), [LOCAL], NOW, LIBEXEC)
        transaction.begin(TRACE, rules)
        for piece in pieces:
            await transaction.write(piece)
        stored = await transaction.commit()
        await transaction.abandon()
        return stored

    found = run(act())
    assert isinstance(found, Stored)
    return found


def test_a_small_mail_is_committed_in_memory() -> None:
    queue = FakeQueue()
    transaction = begin(queue)
    stored = send(transaction, b"Subject: x\nBcc: y@z\nTo: joe\n\nbo", b"dy\n")
    assert stored.reply == answers.message_accepted(7)
    assert stored.accepted
    assert stored.evpids == [7 << 32 | 1]
    ((msgid, envelopes, text),) = queue.messages
    assert msgid == 7
    assert len(envelopes) == 1
    assert text.startswith(RECEIVED)
    assert text.endswith(b"\nSubject: x\nTo: joe@mx.example\n\nbody\n")
    assert transaction.size == len(text)
    assert queue.opened == {}
    assert queue.abandoned == []


def test_a_large_mail_goes_to_a_file() -> None:
    queue = FakeQueue()
    transaction = begin(queue)
    pieces = [b"Subject: x\n\n", *(b"x" * 1000 + b"\n" for _ in range(500))]
    assert send(transaction, *pieces).accepted
    text = queue.messages[0].text
    assert text.endswith(b"".join(pieces))
    assert len(text) == transaction.size > 3 * MAX_BODY
    assert queue.opened == {}
    assert queue.abandoned == []


def test_memory_is_bounded() -> None:
    queue = FakeQueue()
    transaction = begin(queue)
    held: List[int] = []

    async def act() -> None:
        transaction.begin(TRACE, HeaderRules("mx.example"))
        await transaction.write(b"\n")
        for _ in range(1600):
            await transaction.write(b"x" * 65535 + b"\n")
            held.append(sum(map(len, transaction._pieces)))
        await transaction.abandon()

    run(act())
    assert transaction.size > 100 << 20
    assert max(held) <= MAX_BODY + 65536
    assert queue.abandoned == [7]


def test_a_message_of_headers_alone() -> None:
    queue = FakeQueue()
    rules = HeaderRules("mx.example", date="D", message_id="i@mx.example")
    assert send(begin(queue), b"Subject: x\n", rules=rules).accepted
    ending = b"\nSubject: x\nDate: D\nMessage-ID: <i@mx.example>\n"
    assert queue.messages[0].text.endswith(ending)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b"Received: x\n" * MAX_RECEIVED + b"\n", answers.LOOP_DETECTED),
        (b"no colon here\n\n", answers.NOT_COMPLIANT),
        (b" folded\n\n", answers.NOT_COMPLIANT),
        (b"Subject: x\nunfinished", answers.NOT_COMPLIANT),
    ],
)
def test_refused_texts(text: bytes, reply: object) -> None:
    queue = FakeQueue()
    transaction = begin(queue)
    stored = send(transaction, text, b"more\n")
    assert stored.reply == reply
    assert not stored.accepted
    assert transaction.loops is (reply is answers.LOOP_DETECTED)
    assert queue.messages == []


def test_junk_is_marked_first() -> None:
    queue = FakeQueue()
    transaction = begin(queue)
    transaction.junk = True
    send(transaction, b"Subject: x\n\n")
    assert queue.messages[0].text.startswith(b"X-Spam: Yes\nReceived: ")


@pytest.mark.parametrize("call", ["open_body", "commit"])
def test_a_queue_that_fails(call: str) -> None:
    queue = FakeQueue()
    queue.failing[call] = "the disk is full"
    transaction = begin(queue)
    stored = send(transaction, b"\n", b"x\n" * MAX_BODY, b"more\n")
    assert stored.trouble == "the disk is full"
    assert not stored.accepted
    if call == "open_body":
        assert stored.reply is answers.TEMPORARY_ERROR
    else:
        assert stored.reply is answers.TEMPORARY_FAILURE_CLOSING
        assert queue.abandoned == [7]
    assert queue.opened == {}
    assert queue.messages == []


def test_a_file_that_cannot_be_written() -> None:
    class ReadOnly(FakeQueue):
        async def open_body(self, msgid: int) -> int:
            handle = await super().open_body(msgid)
            os.close(handle)
            return os.open(self.opened[msgid], os.O_RDONLY)

    queue = ReadOnly()
    transaction = begin(queue)
    stored = send(transaction, b"\n", b"x\n" * MAX_BODY)
    assert stored.reply is answers.TEMPORARY_ERROR
    assert "Bad file descriptor" in stored.trouble
    assert queue.abandoned == [7]
