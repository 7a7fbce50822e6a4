"""What the server says."""

from __future__ import annotations

import pytest

from smtpd_core.smtp import answers
from smtpd_core.smtp.reply import Reply

# As the original says them; those of the session itself are in the dialogs.
SPELLED = [
    (answers.SENDER_REJECTED, b"530 Sender rejected"),
    (answers.TEMPORARY_ERROR, b"421 4.3.0 Temporary Error"),
    (answers.TEMPORARY_FAILURE, b"421 4.3.0 Temporary failure"),
    (answers.INTERNAL_ERROR, b"421 Internal server error"),
    (answers.LOOP_DETECTED, b"500 5.4.6 Routing loop detected: Loop detected"),
    (
        answers.NOT_COMPLIANT,
        b"550 5.7.1 Delivery not authorized, message refused: Message is not RFC 2822 compliant",
    ),
    (answers.invalid_recipient("a@b"), b"550 Invalid recipient: <a@b>"),
    (answers.recipient_temporary_failure("a@b"), b"451 Temporary failure: <a@b>"),
    (
        answers.expansion_failed("a@b", temporary=False),
        b"524 5.2.4 Mailing list expansion problem: <a@b>",
    ),
    (
        answers.expansion_failed("a@b", temporary=True),
        b"424 4.2.4 Mailing list expansion problem: <a@b>",
    ),
    (answers.message_accepted(0x1B2C3D4E), b"250 2.0.0 1b2c3d4e Message accepted for delivery"),
    (answers.EARLY_INPUT, b"500 5.5.1 Invalid command: Pipelining not supported"),
]


@pytest.mark.parametrize(("reply", "spelled"), SPELLED, ids=lambda value: str(value)[:30])
def test_spelling(reply: Reply, spelled: bytes) -> None:
    assert reply.encode() == spelled + b"\r\n"


def test_status_agrees_with_code() -> None:
    for name, reply in vars(answers).items():
        if isinstance(reply, Reply):
            assert reply.status is None or reply.status[0] == str(reply.code)[0], name


def test_words_of_the_client_are_bounded_and_escaped() -> None:
    reply = answers.mail_option_unsupported("x\r\n250 y\x1b" + "z" * 5000)
    assert len(reply.encode()) < 400
    assert reply.encode().count(b"\n") == 1
    assert b"\x1b" not in reply.encode()


def test_addresses() -> None:
    assert answers.hello("s", "c", "[::1]") == "s Hello c [::1], pleased to meet you"
    assert answers.hello("s", "c", "127.0.0.1") == "s Hello c [127.0.0.1], pleased to meet you"
