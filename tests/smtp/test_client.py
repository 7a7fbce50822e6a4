"""ClientSession against scripted peers, and against ServerSession."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.mail.status import Result
from smtpd_core.smtp import answers
from smtpd_core.smtp.client import ClientSession, State
from smtpd_core.smtp.client_events import (
    ClientOptions,
    Closed,
    Event,
    Failed,
    MailDone,
    Ready,
    RecipientDone,
    TextWanted,
    TlsPolicy,
    TlsWanted,
)
from smtpd_core.smtp.command import EndOfMessage, MessageText, Rcpt
from smtpd_core.smtp.conversation import Options
from smtpd_core.smtp.reply import Reply
from smtpd_core.smtp.server import ServerSession
from smtpd_core.smtp.transaction import Recipient, Transaction

Cuts = Callable[[bytes], list[list[bytes]]]
DIALOGS = Path(__file__).parents[1] / "dialogs"
SENDER = Address("a", "b.example")


def mail(*names: str, **changes: Any) -> Transaction:
    recipients = tuple(Recipient(Address(name, "mx.example")) for name in names)
    return Transaction(changes.pop("sender", SENDER), recipients, **changes)


class Sender:
    """Does what a relay does: sends its mails one after the other, then quits."""

    def __init__(self, options: ClientOptions, *mails: Transaction, text: bytes = b"x\n") -> None:
        self.session = ClientSession(options)
        self.mails = list(mails)
        self.text = text
        self.events: list[Event] = []
        self.sent = b""

    def receive(self, *pieces: bytes) -> bytes:
        """Feed pieces; return what is sent back."""
        before = len(self.sent)
        for piece in pieces:
            self.session.feed(piece)
            self.act()
        return self.sent[before:]

    def act(self) -> None:
        event = self.session.next_event()
        while event is not None:
            self.events.append(event)
            if isinstance(event, TextWanted):
                for at in range(len(self.text)):
                    self.session.send_text(self.text[at : at + 1])
                self.session.end_text()
            elif isinstance(event, TlsWanted):
                self.sent += self.session.outgoing()
                self.session.tls_started()
            elif isinstance(event, Ready) and self.mails:
                self.session.send_mail(self.mails.pop(0))
            elif isinstance(event, Ready):
                self.session.quit()
            event = self.session.next_event()
        self.sent += self.session.outgoing()

    def results(self) -> list[tuple[int, str]]:
        return [
            (event.index, f"{event.outcome.result.value} {event.outcome.status}")
            for event in self.events
            if isinstance(event, RecipientDone)
        ]

    def talk(self, *exchanges: tuple[bytes, bytes]) -> None:
        """Play a script: what the peer says, what must come back."""
        for said, expected in exchanges:
            assert self.receive(said.replace(b"\n", b"\r\n")) == expected.replace(b"\n", b"\r\n")


def plain(**changes: Any) -> ClientOptions:
    return ClientOptions("c.example", **changes)


def failure(sender: Sender) -> str:
    last = sender.events[-1]
    assert isinstance(last, Failed)
    assert sender.session.state is State.CLOSED
    return last.text


# Whole conversations.


def test_dialog_turned_around() -> None:
    lines = (DIALOGS / "01-one-mail.dialog").read_text().splitlines()
    text = b"Subject: x\n\n.dot\n"
    sender = Sender(ClientOptions("client.example"), mail("joe"), text=text)
    for line in lines:
        if line[:1] == "<":
            sender.receive(line[2:].encode() + b"\r\n")
    spoken = b"".join(line[2:].encode() + b"\r\n" for line in lines if line[:1] == ">")
    assert sender.sent == spoken
    assert sender.results() == [(0, "delivered 2.0.0")]
    assert isinstance(sender.events[-1], Closed)


def test_without_pipelining_one_command_waits_for_the_other() -> None:
    sender = Sender(plain(), mail("a", "b"), mail("c", sender=NULL_ADDRESS))
    sender.talk(
        (b"220 hi\n", b"EHLO c.example\n"),
        (b"500 what\n", b"HELO c.example\n"),
        (b"250 hi\n", b"MAIL FROM:<a@b.example>\n"),
        (b"250 ok\n", b"RCPT TO:<a@mx.example>\n"),
        (b"550 5.1.1 no\n", b"RCPT TO:<b@mx.example>\n"),
        (b"250 ok\n", b"DATA\n"),
        (b"354 go\n", b"x\n.\n"),
        (b"250 ok\n", b"MAIL FROM:<>\n"),
        (b"250 ok\n", b"RCPT TO:<c@mx.example>\n"),
        (b"450 later\n", b"RSET\n"),
        (b"250 ok\n", b"QUIT\n"),
        (b"221 bye\n", b""),
    )
    assert sender.results() == [
        (0, "permanent 5.1.1"),
        (1, "delivered 2.0.0"),
        (0, "temporary 4.0.0"),
    ]
    assert sum(isinstance(event, MailDone) for event in sender.events) == 2


def test_with_pipelining_mail_and_recipients_go_together() -> None:
    sender = Sender(plain(), mail("a", "b", ret="FULL"))
    sender.talk(
        (b"220 hi\n", b"EHLO c.example\n"),
        (
            b"250-hi\n250-PIPELINING\n250 DSN\n",
            b"MAIL FROM:<a@b.example> RET=FULL\nRCPT TO:<a@mx.example>\nRCPT TO:<b@mx.example>\n",
        ),
        (b"250 ok\n250 ok\n", b""),
        (b"550 no\n", b"DATA\n"),
        (b"354 go\n", b"x\n.\n"),
        (b"554 5.7.1 spam\n", b"RSET\n"),
        (b"250 ok\n", b"QUIT\n"),
    )
    assert sender.results() == [(1, "permanent 5.0.0"), (0, "permanent 5.7.1")]


def test_data_is_never_sent_without_a_recipient() -> None:
    sender = Sender(plain(), mail("a", "b"))
    sender.receive(b"220 hi\r\n", b"250-hi\r\n250 PIPELINING\r\n")
    assert sender.receive(b"553 5.1.8 no sender\r\n250 ok\r\n250 ok\r\n") == b"RSET\r\n"
    assert sender.results() == [(0, "permanent 5.1.8"), (1, "permanent 5.1.8")]
    assert sender.receive(b"250 ok\r\n") == b"QUIT\r\n"


def test_many_recipients_go_in_portions() -> None:
    names = [f"u{number}" for number in range(250)]
    sender = Sender(plain(), mail(*names))
    sender.receive(b"220 hi\r\n")
    first = sender.receive(b"250-hi\r\n250 PIPELINING\r\n")
    assert first.count(b"RCPT TO") == 99
    more = sender.receive(b"250 ok\r\n" * 100)
    assert more.count(b"RCPT TO") == 100
    rest = sender.receive(b"250 ok\r\n" * 100)
    assert (rest.count(b"RCPT TO"), rest.count(b"DATA")) == (51, 0)
    assert sender.receive(b"250 ok\r\n" * 51) == b"DATA\r\n"


def test_lmtp_has_one_reply_per_recipient() -> None:
    sender = Sender(plain(lmtp=True), mail("a", "b", "c"))
    sender.talk(
        (b"220 hi\n", b"LHLO c.example\n"),
        (
            b"250-hi\n250 PIPELINING\n",
            (
                b"MAIL FROM:<a@b.example>\nRCPT TO:<a@mx.example>\n"
                b"RCPT TO:<b@mx.example>\nRCPT TO:<c@mx.example>\n"
            ),
        ),
        (b"250 ok\n250 ok\n550 5.1.1 no\n250 ok\n", b"DATA\n"),
        (b"354 go\n", b"x\n.\n"),
        (b"250 ok\n", b""),
        (b"452 4.2.2 full\n", b"QUIT\n"),
        (b"221 bye\n", b""),
    )
    assert sender.results() == [
        (1, "permanent 5.1.1"),
        (0, "delivered 2.0.0"),
        (2, "temporary 4.2.2"),
    ]


def test_lmtp_replies_to_many_recipients_in_one_piece() -> None:
    names = [f"u{number}" for number in range(600)]
    sender = Sender(plain(lmtp=True), mail(*names))
    sender.receive(b"220 hi\r\n250 hi\r\n"[:8], b"250-hi\r\n250 PIPELINING\r\n")
    for _ in range(601):
        sender.receive(b"250 ok\r\n")
    sender.receive(b"354 go\r\n")
    sender.receive(b"250 2.1.5 ok\r\n" * 600)
    assert sender.results() == [(index, "delivered 2.1.5") for index in range(600)]


# TLS and authentication.


def test_starttls_and_plain() -> None:
    options = plain(tls=TlsPolicy.REQUIRED, user="joe", password="secret")
    sender = Sender(options, mail("a"))
    login = base64.b64encode(b"\0joe\0secret")
    sender.talk(
        (b"220 hi\n", b"EHLO c.example\n"),
        (b"250-hi\n250-AUTH LOGIN PLAIN\n250 STARTTLS\n", b"STARTTLS\n"),
        (b"220 go\n", b"EHLO c.example\n"),
        (b"250-hi\n250 AUTH LOGIN PLAIN\n", b"AUTH PLAIN " + login + b"\n"),
        (b"235 ok\n", b"MAIL FROM:<a@b.example>\n"),
    )
    assert "secret" not in repr(options)


def test_login() -> None:
    sender = Sender(plain(secured=True, user="joe", password="secret"), mail("a"))
    sender.talk(
        (b"220 hi\n", b"EHLO c.example\n"),
        (b"250-hi\n250 AUTH LOGIN\n", b"AUTH LOGIN\n"),
        (b"334 VXNlcm5hbWU6\n", base64.b64encode(b"joe") + b"\n"),
        (b"334 UGFzc3dvcmQ6\n", base64.b64encode(b"secret") + b"\n"),
    )
    sender.receive(b"334 more\r\n")
    assert failure(sender) == "AUTH rejected: 334 more"


EHLO = b"250-hi\r\n250 STARTTLS\r\n"
FAILURES = [
    ({}, [b"554 5.7.1 go away\r\n"], "BANNER rejected: 554 5.7.1 go away"),
    ({}, [b"421 busy\r\n"], "421 busy"),
    ({}, [b"220 hi\r\n", b"500 a\r\n", b"500 b\r\n"], "HELO rejected: 500 b"),
    ({"lmtp": True}, [b"220 hi\r\n", b"500 a\r\n"], "LHLO rejected: 500 a"),
    (
        {"tls": TlsPolicy.REQUIRED},
        [b"220 hi\r\n", b"500 a\r\n"],
        "EHLO rejected: 500 a",
    ),
    (
        {"tls": TlsPolicy.REQUIRED},
        [b"220 hi\r\n", b"250 hi\r\n"],
        "TLS required but not supported by remote host",
    ),
    (
        {"tls": TlsPolicy.REQUIRED},
        [b"220 hi\r\n", EHLO, b"454 no\r\n"],
        "STARTTLS rejected: 454 no",
    ),
    (
        {"user": "joe", "password": "x", "tls": TlsPolicy.NEVER},
        [b"220 hi\r\n", b"250-hi\r\n250 AUTH PLAIN\r\n"],
        "Refuse to AUTH over insecure channel",
    ),
    (
        {"user": "joe", "password": "x", "secured": True},
        [b"220 hi\r\n", b"250 hi\r\n"],
        "AUTH not advertised",
    ),
    (
        {"user": "joe", "password": "x", "secured": True},
        [b"220 hi\r\n", b"250-hi\r\n250 AUTH CRAM-MD5\r\n"],
        "No supported AUTH method",
    ),
    (
        {"user": "joe", "password": "x" * 1100, "secured": True},
        [b"220 hi\r\n", b"250-hi\r\n250 AUTH PLAIN\r\n"],
        "Credentials too large",
    ),
    (
        {"user": "joe", "password": "x", "secured": True},
        [b"220 hi\r\n", b"250-hi\r\n250 AUTH PLAIN\r\n", b"535 5.7.8 no\r\n"],
        "AUTH rejected: 535 5.7.8 no",
    ),
    ({}, [b"hello\r\n"], "Bad response: not an SMTP reply: b'hello'"),
    ({}, [b"220 " + b"x" * 3000], "Input too long"),
    ({}, [b"220 hi\r\n250 early\r\n"], "Remote host sent too much data"),
    ({}, [b"220 hi\r\nx"], "Remote host sent too much data"),
    # The reply to STARTTLS, and one more that would be taken for said inside TLS.
    (
        {},
        [b"220 hi\r\n", EHLO, b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"],
        "Remote host sent too much data",
    ),
]


@pytest.mark.parametrize(("changes", "pieces", "text"), FAILURES, ids=lambda value: str(value)[:40])
def test_failures(changes: dict[str, Any], pieces: list[bytes], text: str) -> None:
    sender = Sender(plain(**changes), mail("a"))
    sender.receive(*pieces)
    assert failure(sender) == text
    assert sender.results() == []
    assert not any(isinstance(event, (Ready, TlsWanted)) for event in sender.events)


def test_opportunistic_tls_goes_on_in_clear_when_refused() -> None:
    sender = Sender(plain(), mail("a"))
    sender.receive(b"220 hi\r\n", EHLO)
    assert sender.receive(b"454 no\r\n") == b"MAIL FROM:<a@b.example>\r\n"


def test_octets_between_starttls_and_handshake_fail() -> None:
    session = ClientSession(plain())
    for piece in (b"220 hi\r\n", EHLO, b"220 go\r\n"):
        session.feed(piece)
    assert isinstance(session.next_event(), TlsWanted)
    session.feed(b"250 evil\r\n")
    assert session.next_event() == Failed("Remote host sent too much data")
    with pytest.raises(LocalError):
        session.tls_started()


# Everybody has one outcome, however it ends.


def begun(*names: str, **changes: Any) -> Sender:
    sender = Sender(plain(**changes), mail(*names))
    sender.receive(b"220 hi\r\n", b"250-hi\r\n250 PIPELINING\r\n")
    return sender


def test_a_lost_connection_puts_off_who_has_no_outcome() -> None:
    sender = begun("a", "b")
    sender.receive(b"250 ok\r\n250 ok\r\n550 no\r\n")
    sender.session.connection_lost()
    sender.act()
    assert sender.results() == [(1, "permanent 5.0.0"), (0, "temporary 4.0.0")]
    assert sender.events[-2:] == [MailDone(), Failed("Connection closed unexpectedly")]
    sender.session.connection_lost()
    assert sender.session.next_event() is None


def test_421_ends_everything() -> None:
    sender = begun("a", "b")
    sender.receive(b"250 ok\r\n", b"421 4.3.2 going down\r\n")
    assert sender.results() == [(0, "temporary 4.3.2"), (1, "temporary 4.3.2")]
    assert failure(sender) == "421 4.3.2 going down"


def test_a_refusal_in_the_middle_of_the_text_counts() -> None:
    session = ClientSession(plain())
    sender = begun("a")
    session = sender.session
    session.feed(b"250 ok\r\n250 ok\r\n")
    session.feed(b"354 go\r\n")
    session.send_text(b"part")
    session.feed(b"552 5.3.4 too big\r\n")
    sender.act()
    assert sender.results() == [(0, "permanent 5.3.4")]
    with pytest.raises(LocalError):
        session.send_text(b"more")


@pytest.mark.parametrize("reply", [b"250 ok\r\n", b"550 no\r\n", b"221 x\r\n"])
def test_data_that_is_not_wanted(reply: bytes) -> None:
    sender = begun("a")
    sender.receive(b"250 ok\r\n250 ok\r\n")
    assert sender.receive(reply) == b"RSET\r\n"
    expected = "permanent 5.0.0" if reply.startswith(b"5") else "temporary 4.0.0"
    assert sender.results() == [(0, expected)]


def test_too_many_refused_recipients() -> None:
    sender = begun("a", "b", "c", "d", max_failures=2)
    sender.receive(b"250 ok\r\n250 ok\r\n550 no\r\n550 no\r\n450 no\r\n")
    assert failure(sender) == "Too many consecutive errors, closing connection"
    assert sender.results()[-1] == (0, "temporary 4.0.0")


def test_a_mail_that_cannot_be_offered_costs_no_command() -> None:
    big = mail("a", size=100)
    damaged = mail("a\r\nDATA")
    sender = Sender(plain(), big, damaged)
    sender.receive(b"220 hi\r\n")
    assert sender.receive(b"250-hi\r\n250 SIZE 99\r\n") == b"QUIT\r\n"
    assert sender.results() == [(0, "permanent 5.3.4"), (0, "permanent 5.1.3")]


def test_out_of_turn() -> None:
    session = ClientSession(plain())
    for call in (session.tls_started, session.quit, session.end_text):
        with pytest.raises(LocalError):
            call()
    with pytest.raises(LocalError):
        session.send_mail(mail("a"))
    with pytest.raises(LocalError):
        ClientSession(ClientOptions("bad name\r\n"))
    session.feed(b"220 hi\r\n")
    session.feed(b"250 hi\r\n")
    with pytest.raises(LocalError):
        session.send_mail(mail())


_PIECES = st.sampled_from(
    [
        *(b"220 hi\r\n", b"250 ok\r\n", b"250-hi\r\n250 PIPELINING\r\n", b"354 go\r\n"),
        *(b"550 5.1.1 no\r\n", b"450 later\r\n", b"421 bye\r\n", b"334 x\r\n", b"250-\r\n"),
        *(EHLO, b"221 bye\r\n", b"\r\n", b"250 ok\n", b"\xff"),
    ]
)


@given(st.lists(_PIECES, max_size=25), st.booleans())
def test_any_answers_give_each_recipient_one_outcome(pieces: list[bytes], lmtp: bool) -> None:
    sender = Sender(plain(lmtp=lmtp), mail("a", "b", "c"))
    sender.receive(b"220 hi\r\n", b"250-hi\r\n250 PIPELINING\r\n", *pieces)
    sender.session.connection_lost()
    sender.act()
    assert sorted(index for index, _ in sender.results()) == [0, 1, 2]
    assert sum(isinstance(event, MailDone) for event in sender.events) == 1
    assert isinstance(sender.events[-1], (Failed, Closed))


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_octets(pieces: list[bytes]) -> None:
    sender = Sender(plain(), mail("a"))
    sender.receive(*pieces)
    for event in sender.events:
        if isinstance(event, Failed):
            assert len(event.text.splitlines()) <= 1


# Both ends of ours.


@given(st.text("ab.\r\n\0", max_size=60).map(str.encode), st.booleans())
def test_our_server_takes_what_our_client_sends(stored: bytes, pipelining: bool) -> None:
    server = ServerSession(Options("mx.example"))
    sender = Sender(plain(), mail("joe", "unknown"), text=stored)
    messages: list[bytes] = []
    received = b""
    pending: Optional[bytes] = b""
    while pending is not None:
        server.feed(pending)
        said = b""
        event = server.next_command()
        while event is not None:
            if isinstance(event, MessageText):
                received += event.octets
            elif isinstance(event, Reply):
                said += event.encode()
            elif isinstance(event, EndOfMessage):
                messages.append(received)
                said += server.respond(answers.message_accepted(1))
            elif isinstance(event, Rcpt) and event.recipient.local_part == "unknown":
                said += server.respond(answers.invalid_recipient("unknown"))
            else:
                said += server.respond(server.success())
            event = server.next_command()
        if not pipelining:
            said = said.replace(b"250-PIPELINING\r\n", b"")
        pending = sender.receive(said) if said else None
    assert len(messages) == 1
    assert sender.results() == [(1, "permanent 5.0.0"), (0, "delivered 2.0.0")]
    assert isinstance(sender.events[-1], Closed)
    if not set(stored) & set(b"\r\0") and stored.endswith(b"\n"):
        assert messages == [stored]


def test_delivered_needs_a_positive_reply_to_the_final_dot() -> None:
    sender = begun("a")
    sender.receive(b"250 ok\r\n250 ok\r\n", b"354 go\r\n", b"354 again\r\n")
    outcomes = [event.outcome for event in sender.events if isinstance(event, RecipientDone)]
    assert [found.result for found in outcomes] == [Result.TEMPORARY]
