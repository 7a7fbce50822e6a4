"""ServerSession: dialogs, faults of the original, and any octets at all."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.mail.address import Address
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import (
    Authenticate,
    Command,
    Connect,
    EndOfMessage,
    Hello,
    Mail,
    MessageText,
    Notify,
    Rcpt,
    StartTls,
)
from smtpd_core.smtp.conversation import Options, State
from smtpd_core.smtp.reply import Reply
from smtpd_core.smtp.server import ServerSession

Cuts = Callable[[bytes], list[list[bytes]]]
DIALOGS = sorted((Path(__file__).parents[1] / "dialogs").glob("*.dialog"))
GREETED = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<joe@x>\r\nDATA\r\n"


def options(**changes: Any) -> Options:
    return Options(**{"hostname": "mx.example", "peer_address": "192.0.2.1", **changes})


class Peer:
    """Carries octets and decides, as listener and policy do: joe has the password secret."""

    def __init__(self, session: ServerSession) -> None:
        self.session = session
        self.sent = b""
        self.text = b""
        self.messages: list[bytes] = []
        self.commands: list[Command] = []

    def say(self, *pieces: bytes) -> bytes:
        """Feed pieces; return what the server said to them."""
        before = len(self.sent)
        for piece in pieces or (b"",):
            self.session.feed(piece)
            self.drain()
        return self.sent[before:]

    def drain(self) -> None:
        event = self.session.next_command()
        while event is not None:
            if isinstance(event, MessageText):
                self.text += event.octets
            elif isinstance(event, Reply):
                self.sent += event.encode()
            else:
                self.commands.append(event)
                self.sent += self.session.respond(self.decide(event))
            if self.session.state is State.STARTTLS:
                return
            event = self.session.next_command()

    def decide(self, event: Command) -> Reply:
        if isinstance(event, Rcpt) and event.recipient.local_part == "unknown":
            return answers.invalid_recipient(str(event.recipient))
        if isinstance(event, Rcpt) and event.recipient.local_part == "later":
            return answers.recipient_temporary_failure(str(event.recipient))
        if isinstance(event, Authenticate):
            given = (event.credentials.user, event.credentials.password)
            return self.session.success() if given == ("joe", "secret") else answers.AUTH_FAILED
        if isinstance(event, EndOfMessage):
            text, self.text = self.text, b""
            if event.refusal is not None:
                return event.refusal
            self.messages.append(text)
            return answers.message_accepted(42)
        return self.session.success()


def peer(**changes: Any) -> Peer:
    found = Peer(ServerSession(options(**changes)))
    assert found.say() == b"220 mx.example ESMTP OpenSMTPD\r\n"
    return found


# Dialogs.


def dialog_options(lines: list[str]) -> dict[str, Any]:
    for line in lines:
        if line.startswith("# options:"):
            pairs = (pair.split("=", 1) for pair in line.split(":", 1)[1].split())
            return {name: ast.literal_eval(value) for name, value in pairs}
    return {}


@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda path: path.stem)
def test_dialog(dialog: Path) -> None:
    lines = dialog.read_text(encoding="utf-8").splitlines()
    client = Peer(ServerSession(options(**dialog_options(lines))))
    client.say()
    for number, line in enumerate(lines, 1):
        kind, rest = line[:1], line[2:]
        where = f"{dialog.name}:{number}"
        if kind == ">":
            assert client.sent == b"", where
            client.say(rest.encode() + b"\r\n")
        elif kind == "<":
            said, end, client.sent = client.sent.partition(b"\r\n")
            assert end, where
            assert said.decode()[: len(rest)] == rest, where
        elif kind == "=":
            client.session.tls_started("TLSv1.3:X:256:NO")
        elif kind == "!":
            assert client.session.state is State.CLOSED, where
    assert client.sent == b""


@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda path: path.stem)
def test_dialog_in_one_piece(dialog: Path) -> None:
    # Pipelined, octet by octet or at once: the same replies in the same order.
    lines = dialog.read_text(encoding="utf-8").splitlines()
    if "= tls" in lines:
        return
    changes = dialog_options(lines)
    given_octets = b"".join(line[2:].encode() + b"\r\n" for line in lines if line[:1] == ">")
    whole = Peer(ServerSession(options(**changes)))
    whole.say(given_octets)
    singly = Peer(ServerSession(options(**changes)))
    singly.say(*(bytes((octet,)) for octet in given_octets))
    assert whole.sent == singly.sent
    expected = [line[2:] for line in lines if line[:1] == "<"]
    said = whole.sent.decode().split("\r\n")[:-1]
    assert len(said) == len(expected)
    assert all(map(str.startswith, said, expected))


# Smuggling.


@pytest.mark.parametrize(
    "end",
    [
        *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n"),
        *(b"\r\r\n.\r\n", b"\r\n.\r\r\n", b"\n\r.\n\r", b"\r\n\0.\n", b"\r\n.\0\n", b"\r\n\r.\r\n"),
        *(b"\x0b.\x0b\n", b"\n\n.\n\n"),
    ],
)
def test_no_false_end_of_data_lets_a_second_message_in(end: bytes, cuts: Cuts) -> None:
    smuggled = b"MAIL FROM:<admin@mx.example>\r\nRCPT TO:<joe@x>\r\nDATA\r\n\r\nsmuggled\r\n.\r\n"
    for pieces in cuts(b"\r\nfirst" + end + smuggled):
        client = peer()
        client.say(GREETED)
        said = client.say(*pieces)
        assert said == b"500 5.5.2 Syntax error: bare CR or LF, or NUL\r\n"
        assert client.session.state is State.CLOSED
        assert client.session.bad_input
        assert client.messages == []


def test_dot_nul_is_no_end_of_data() -> None:
    # The original's lines end at a NUL, so `.` NUL was a lone dot.
    client = peer()
    said = client.say(GREETED, b"\r\na\r\n.\0anything\r\nMAIL FROM:<x@y>\r\n.\r\n")
    assert said.endswith(b"Message is not RFC 2822 compliant\r\n")
    assert said.count(b"250 2.0.0 Ok") == 1
    assert client.messages == []


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\0\r\n", b"EHLO a\nMAIL FROM:<x@y>\r\n", b"\r\r\n"]
)
def test_bare_newlines_and_nul_in_commands_close(line: bytes, cuts: Cuts) -> None:
    for pieces in cuts(line):
        client = peer()
        assert client.say(*pieces) == answers.BAD_OCTET.encode()
        assert client.session.state is State.CLOSED
        assert client.say(b"NOOP\r\n") == b""


# TLS.


def tls_peer() -> Peer:
    client = peer(tls_available=True, auth_available=True)
    client.say(b"EHLO c\r\n")
    return client


def test_octets_with_starttls_close_the_session(cuts: Cuts) -> None:
    client = tls_peer()
    assert client.say(b"STARTTLS\r\nMAIL FROM:<injected@x>\r\n") == answers.EARLY_INPUT.encode()
    assert client.session.state is State.CLOSED


def test_octets_behind_starttls_are_never_taken_as_said_inside() -> None:
    client = tls_peer()
    assert client.say(b"STARTTLS\r\n") == b"220 2.0.0 Ready to start TLS\r\n"
    client.session.feed(b"MAIL FROM:<injected@x>\r\n")
    client.session.tls_started("TLSv1.3:X:256:NO")
    assert client.session.state is State.CLOSED
    assert client.session.next_command() is None


def test_octets_before_the_handshake_ends_close_the_session() -> None:
    client = tls_peer()
    client.say(b"STARTTLS\r\n")
    client.session.feed(b"x")
    event = client.session.next_command()
    assert event is answers.EARLY_INPUT
    with pytest.raises(LocalError):
        client.session.tls_started("x")


def test_tls_forgets_the_name_and_keeps_nothing() -> None:
    client = tls_peer()
    client.say(b"STARTTLS\r\n")
    client.session.tls_started("TLSv1.3:X:256:NO")
    assert client.session.conversation.hello is None
    assert client.session.conversation.protocol == "SMTPS"
    assert b"STARTTLS" not in client.say(b"EHLO c\r\n")


def test_tls_only_when_due() -> None:
    with pytest.raises(LocalError):
        peer().session.tls_started("x")


# Secrets.


def test_secrets_of_auth_are_not_kept_for_logs() -> None:
    # The original logged the command line of a refused AUTH in clear.
    for line in (b"AUTH PLAIN c2VjcmV0", b"auth PLAIN  c2VjcmV0", b"AUTH X c2VjcmV0"):
        client = peer()
        client.say(b"EHLO c\r\n" + line + b"\r\n")
        assert "c2Vj" not in client.session.command_text
    client = peer(secured=True, auth_available=True)
    client.say(b"EHLO c\r\nAUTH LOGIN\r\n")
    for shown in ("AUTH LOGIN (username)", "AUTH LOGIN (password)"):
        client.say(b"c2VjcmV0\r\n")
        assert client.session.command_text == shown


def test_login_state_ends_with_the_session() -> None:
    client = peer(secured=True, auth_available=True)
    client.say(b"EHLO c\r\nAUTH LOGIN\r\n")
    assert client.say(b"am9l\nQUIT\r\n") == answers.BAD_OCTET.encode()
    assert client.session.state is State.CLOSED


# Faults of the original.


def test_dsn_parameters_do_not_leak_to_the_next_recipient() -> None:
    client = peer()
    client.say(b"EHLO c\r\nMAIL FROM:<a@b>\r\n")
    client.say(b"RCPT TO:<joe@x> NOTIFY=SUCCESS ORCPT=rfc822;j\r\nRCPT TO:<bob@x>\r\n")
    assert client.commands[-1] == Rcpt(Address("bob", "x"), Notify(0), "")


def test_a_pipelined_message_is_taken() -> None:
    client = peer()
    said = client.say(GREETED + b"Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n")
    assert client.messages == [b"Subject: x\n\n.\n"]
    assert said.endswith(b"accepted for delivery\r\n221 2.0.0 Bye\r\n")


def test_a_shell_line_is_no_sender() -> None:
    # The hole of 2020: a local part that was not checked because its domain was empty.
    client = peer()
    client.say(b"EHLO c\r\n")
    said = client.say(b"MAIL FROM:<;for i in 0 1 2 3;do read r;done;sh;exit 0;>\r\n")
    assert said == b"553 5.1.0 Sender address syntax error\r\n"


def test_size_is_checked_at_mail() -> None:
    client = peer(max_message_size=10)
    assert client.say(b"EHLO c\r\nMAIL FROM:<a@b> SIZE=11\r\n").endswith(
        b"552 5.3.4 Message too big for system: Transaction failed, message too big\r\n"
    )


def test_long_lines() -> None:
    client = peer()
    assert client.say(b"x" * 2048 + b"\r\n") == b"500 5.0.0 Command line too long\r\n"
    client = peer()
    assert client.say(b"x" * 65535) == b"500 5.0.0 Line too long\r\n"
    client = peer()
    assert client.say(GREETED, b"x" * 65535).endswith(b"500 5.0.0 Line too long\r\n")
    assert client.session.state is State.CLOSED


# How it is driven.


def test_commands_wait_for_their_reply() -> None:
    session = ServerSession(options())
    assert isinstance(session.next_command(), Connect)
    with pytest.raises(LocalError):
        session.next_command()
    session.respond(session.success())
    assert session.next_command() is None
    with pytest.raises(LocalError):
        session.respond(answers.OK)
    with pytest.raises(LocalError):
        session.success()


def test_wrong_replies() -> None:
    client = peer()
    client.session.feed(b"NOOP\r\n")
    client.session.next_command()
    with pytest.raises(LocalError):
        client.session.respond(answers.START_DATA)


def test_a_refused_connection_has_only_its_end() -> None:
    session = ServerSession(options())
    client = Peer(session)
    session.next_command()
    assert session.respond(Reply(554, None, ("go away",))) == b"554 go away\r\n"
    assert client.say(b"EHLO c\r\n") == answers.NOT_ALLOWED.encode()
    assert client.say(b"QUIT\r\n") == answers.BYE.encode()


def test_a_reply_that_closes() -> None:
    session = ServerSession(options())
    session.next_command()
    assert session.respond(answers.TEMPORARY_FAILURE_CLOSING) == b"421 4.3.0 Temporary failure\r\n"
    assert session.state is State.CLOSED
    session.feed(b"NOOP\r\n")
    assert session.next_command() is None


def test_a_421_that_does_not_close() -> None:
    client = peer()
    client.say(b"EHLO c\r\n")
    client.session.feed(b"MAIL FROM:<a@b>\r\n")
    client.session.next_command()
    client.session.respond(answers.TEMPORARY_ERROR)
    assert client.session.state is State.READY


def test_a_refused_message_leaves_the_session_ready() -> None:
    client = peer()
    client.say(GREETED)
    client.session.feed(b"a\r\n.\r\n")
    assert isinstance(client.session.next_command(), MessageText)
    assert isinstance(client.session.next_command(), EndOfMessage)
    with pytest.raises(LocalError):
        client.session.success()
    client.session.respond(answers.LOOP_DETECTED)
    assert client.session.state is State.READY
    assert client.session.conversation.mail is None
    assert client.say(b"MAIL FROM:<a@b>\r\n") == answers.OK.encode()


def test_replies_of_a_group_wait_for_each_other() -> None:
    session = peer().session
    session.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nRCPT TO:<>\r\nRSET\r\nNOOP\r\n")
    flushes = []
    event = session.next_command()
    while event is not None:
        if not isinstance(event, (Reply, MessageText)):
            session.respond(session.success())
        flushes.append(session.must_flush)
        event = session.next_command()
    assert flushes == [True, False, False, False, False, True]


def test_filters_rewrite_arguments() -> None:
    session = peer().session
    session.feed(b"EHLO c\r\n")
    session.next_command()
    assert session.rewrite("other.example") == Hello("other.example", extended=True)
    session.respond(session.success())
    session.feed(b"MAIL FROM:<a@b> RET=HDRS\r\n")
    session.next_command()
    assert session.rewrite("<c@d>") == Mail(Address("c", "d"))
    assert session.rewrite("<c@d>\r\n250 x") is answers.BAD_SENDER
    assert session.next_command() is None
    assert session.state is State.READY
    with pytest.raises(LocalError):
        session.rewrite("x")


def test_trace() -> None:
    client = peer(
        peer_host="c.example", secured=True, tls="T:C:1:NO", auth_available=True, received_auth=True
    )
    client.say(b"EHLO c\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\nMAIL FROM:<a@b>\r\nRCPT TO:<joe@x>\r\n")
    trace = client.session.conversation.trace(42, "D")
    assert (trace.helo, trace.host, trace.protocol) == ("c", "c.example", "ESMTPSA")
    assert (trace.tls, trace.user, trace.recipient) == ("T:C:1:NO", "joe", Address("joe", "x"))
    client.say(b"RCPT TO:<unknown@x>\r\n")
    assert client.session.conversation.trace(42, "D").recipient == Address("joe", "x")
    client.say(b"RCPT TO:<bob@x>\r\n")
    assert client.session.conversation.trace(42, "D").recipient is None
    masked = peer(mask_source=True)
    masked.say(b"HELO c\r\n")
    assert masked.session.conversation.trace(42, "D").helo == ""
    with pytest.raises(LocalError):
        peer().session.conversation.trace(42, "D")


# Any octets, in any cuts.

_WORDS = st.sampled_from(
    [
        *(
            b"EHLO c\r\n",
            b"HELO c\r\n",
            b"MAIL FROM:<a@b>\r\n",
            b"RCPT TO:<joe@x>\r\n",
            b"DATA\r\n",
        ),
        *(
            b"RSET\r\n",
            b"NOOP\r\n",
            b"QUIT\r\n",
            b"HELP\r\n",
            b"STARTTLS\r\n",
            b".\r\n",
            b"text\r\n",
        ),
        *(b"AUTH PLAIN\r\n", b"AUTH LOGIN am9l\r\n", b"AGpvZQBzZWNyZXQ=\r\n", b"*\r\n", b"..x\r\n"),
        *(
            b"RCPT TO:<unknown@x>\r\n",
            b"MAIL FROM:<> SIZE=99999999999\r\n",
            b"\r\n",
            b"\xff\xfe\r\n",
        ),
        *(b"\n", b"\r", b"\0", b"x" * 3000),
    ]
)
_CHATTER = st.lists(st.one_of(_WORDS, _WORDS, _WORDS, st.binary(max_size=20)), max_size=30)


def outcome_of(pieces: list[bytes]) -> tuple[bytes, list[bytes], State, list[Command]]:
    client = Peer(
        ServerSession(
            options(secured=True, auth_available=True, max_errors=8, max_idle_commands=20)
        )
    )
    client.say(*pieces)
    return client.sent, client.messages, client.session.state, client.commands


@given(_CHATTER, st.lists(st.integers(0, 2000), max_size=5))
def test_any_octets_in_any_cuts(chatter: list[bytes], places: list[int]) -> None:
    octets = b"".join(chatter)
    whole = outcome_of([octets])
    ends = sorted({0, len(octets), *(place for place in places if place < len(octets))})
    assert outcome_of([octets[a:b] for a, b in zip(ends, ends[1:])] or [b""]) == whole
    sent, messages, _, _ = whole
    lines = sent.split(b"\r\n")
    assert lines.pop() == b""
    assert all(line[:3].isdigit() and line[3:4] in b" -" for line in lines)
    assert not any(set(line) & set(b"\r\n\0") for line in lines)
    assert all(b"\r" not in message for message in messages)


@given(_CHATTER)
def test_what_is_kept_is_bounded(chatter: list[bytes]) -> None:
    client = Peer(ServerSession(options()))
    client.say()
    for piece in chatter:
        client.say(piece)
        assert len(client.session._lines._buffer) <= 65535 + 3000
        assert client.session._reader is None or len(client.session._reader._tail) <= 65535


def test_any_cut_of_starttls_ends_it(cuts: Cuts) -> None:
    for pieces in cuts(b"STARTTLS\r\nEHLO evil\r\n"):
        client = tls_peer()
        client.say(*pieces)
        if client.session.state is State.STARTTLS:  # what came behind is still unread
            client.session.tls_started("x")
        assert client.session.state is State.CLOSED
        assert [type(each) for each in client.commands[2:]] in ([], [StartTls])
