"""Mails to send, and the command lines they become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.mail.status import Outcome
from smtpd_core.smtp.command import Notify
from smtpd_core.smtp.transaction import (
    Recipient,
    Transaction,
    mail_command,
    rcpt_command,
    refuse_mail,
    refuse_recipient,
)

DSN = {"DSN": "", "8BITMIME": "", "SMTPUTF8": "", "SIZE": "1000"}
JOE = Recipient(Address("joe", "x"))


def mail(sender: Address = NULL_ADDRESS, **changes: object) -> Transaction:
    return Transaction(sender, (JOE,), **changes)  # type: ignore[arg-type]  # only named fields


def test_mail_command() -> None:
    assert mail_command(mail(), {}) == b"MAIL FROM:<>"
    full = mail(Address("a", "b"), ret="FULL", envid="x+2B", eight_bit=True)
    assert mail_command(full, {}) == b"MAIL FROM:<a@b>"
    assert mail_command(full, DSN) == b"MAIL FROM:<a@b> RET=FULL ENVID=x+2B BODY=8BITMIME"
    assert mail_command(mail(Address("é", "b")), DSN) == "MAIL FROM:<é@b> SMTPUTF8".encode()
    hostile = mail(ret="HDRS X=1", envid="x\r\nRCPT TO:<y>")
    assert mail_command(hostile, DSN) == b"MAIL FROM:<>"


def test_rcpt_command() -> None:
    full = Recipient(JOE.address, Notify.SUCCESS | Notify.DELAY, "rfc822;joe+2Bx@y")
    assert rcpt_command(full, {}) == b"RCPT TO:<joe@x>"
    assert rcpt_command(full, DSN) == b"RCPT TO:<joe@x> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;joe+2Bx@y"
    never = Recipient(JOE.address, Notify.NEVER | Notify.SUCCESS, "rfc822;a\r\nb")
    assert rcpt_command(never, DSN) == b"RCPT TO:<joe@x> NOTIFY=NEVER"


def spelled(found: object) -> str:
    assert isinstance(found, Outcome)
    return f"{found.result.value} {found.status} {found.text}"


def test_what_a_peer_cannot_take() -> None:
    assert refuse_mail(mail(size=1000), DSN) is None
    assert refuse_mail(mail(size=5000), {"SIZE": "0"}) is None
    assert refuse_mail(mail(size=5000), {"SIZE": "many"}) is None
    assert (
        spelled(refuse_mail(mail(size=1001), DSN)) == "permanent 5.3.4 message too large for peer"
    )
    assert spelled(refuse_mail(mail(smtputf8=True), {})).startswith("permanent 5.6.7 ")
    utf8 = Recipient(Address("é", "x"))
    assert spelled(refuse_recipient(mail(), utf8, DSN)).startswith("permanent 5.6.7 ")
    assert refuse_recipient(mail(smtputf8=True), utf8, DSN) is None


@pytest.mark.parametrize(
    "address",
    [
        Address("a\r\nRCPT TO:<b@c>\r\n", "x"),
        Address("a\n", "x"),
        Address("a>", "x"),
        Address("a b", "x"),
        Address("a\0", "x"),
        Address("a", "x\u2028"),
        Address("\udcff", "x"),
        Address("a" * 600, "x"),
    ],
)
def test_addresses_of_a_damaged_spool_add_no_command(address: Address) -> None:
    assert spelled(refuse_mail(mail(address), DSN)).startswith("permanent 5.1.7 ")
    recipient = Recipient(address)
    assert spelled(refuse_recipient(mail(), recipient, DSN)).startswith("permanent 5.1.3 ")


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_sent_is_one_line(local_part: str, envid: str, orcpt: str) -> None:
    address = Address(local_part, "x")
    sent = mail(address, envid=envid, ret="FULL")
    recipient = Recipient(address, Notify.FAILURE, f"rfc822;{orcpt}")
    if refuse_mail(sent, DSN) is None:
        line = mail_command(sent, DSN)
        assert not set(line) & set(b"\r\n\0")
        assert line.count(b">") == line.count(b"<") == 1 or b"<" in envid.encode()
    if refuse_recipient(sent, recipient, DSN) is None:
        assert not set(rcpt_command(recipient, DSN)) & set(b"\r\n\0")
