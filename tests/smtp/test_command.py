"""Command lines and their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import FormatError
from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import (
    CommandError,
    Grammar,
    Hello,
    Mail,
    Notify,
    Rcpt,
    Verb,
    decode_xtext,
    is_xtext,
    parse_hello,
    parse_line,
    parse_mail,
    parse_rcpt,
)

if TYPE_CHECKING:
    from smtpd_core.smtp.reply import Reply

GRAMMAR = Grammar("here.example", dsn=True, smtputf8=True, max_size=1000)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"NOOP", (Verb.NOOP, None)),
        (b"noop  ", (Verb.NOOP, None)),
        (b"Ehlo a b ", (Verb.EHLO, "a b")),
        (b"mail from:<a@b> X=y", (Verb.MAIL, "<a@b> X=y")),
        (b"RCPT TO: \t<a@b>", (Verb.RCPT, "<a@b>")),
        (b"AUTH PLAIN \xff", (Verb.AUTH, "PLAIN \udcff")),
    ],
)
def test_lines(line: bytes, expected: tuple[Verb, str]) -> None:
    assert parse_line(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b" NOOP", b"MAIL", b"MAIL FROM <a@b>", b"MAIL FROM :<a@b>", b"RCPT", b"NOOPX"),
        *(b"(connect)", b"(end of data)", b"MAIL FROM", b"DATA\t", b"\xff"),
    ],
)
def test_unrecognized(line: bytes) -> None:
    with pytest.raises(CommandError) as caught:
        parse_line(line)
    assert caught.value.reply is answers.UNRECOGNIZED


def test_hello() -> None:
    assert parse_hello(Verb.EHLO, "[::1]") == Hello("[::1]", extended=True)
    assert parse_hello(Verb.HELO, "a_b.c") == Hello("a_b.c", extended=False)


def test_mail() -> None:
    assert parse_mail("<>", GRAMMAR) == Mail(NULL_ADDRESS)
    assert parse_mail("<a> size=1000 BODY=8BITMIME RET=full ENVID=x+2B", GRAMMAR) == Mail(
        Address("a", "here.example"), size=1000, eight_bit=True, ret="FULL", envid="x+2B"
    )
    assert parse_mail("<é@b> smtputf8", GRAMMAR).smtputf8
    assert parse_mail("<a@b> AUTH=joe+40x BODY=7BIT", GRAMMAR).auth == "joe+40x"


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("<a@b", answers.BAD_SENDER),
        ("<@b>", answers.BAD_SENDER),
        ("<é@b>", answers.BAD_SENDER),
        ("<a@b> SIZE=1001", answers.ANNOUNCED_TOO_BIG),
        ("<a@b> SIZE=" + "9" * 20, answers.ANNOUNCED_TOO_BIG),
        ("<a@b> SIZE=" + "1" * 21, answers.mail_option_unsupported("SIZE=" + "1" * 21)),
        ("<a@b> SIZE=-1", answers.mail_option_unsupported("SIZE=-1")),
        ("<a@b> SIZE", answers.mail_option_unsupported("SIZE")),
        ("<a@b> BODY", answers.mail_option_unsupported("BODY")),
        ("<a@b> ENVID=" + "x" * 101, answers.envid_too_long("x" * 101)),
        ("<a@b> ENVID=a+2", answers.mail_option_unsupported("ENVID=a+2")),
        ("<a@b> NOTIFY=NEVER", answers.mail_option_unsupported("NOTIFY=NEVER")),
        ("<a@b> MT-PRIORITY=3", answers.mail_option_unsupported("MT-PRIORITY=3")),
    ],
)
def test_mail_refuses(argument: str, reply: Reply) -> None:
    with pytest.raises(CommandError) as caught:
        parse_mail(argument, GRAMMAR)
    assert caught.value.reply == reply


def test_longest_parameters() -> None:
    assert len(parse_mail("<> ENVID=" + "x" * 100, GRAMMAR).envid) == 100
    orcpt = "rfc822;" + "x" * 493
    assert parse_rcpt(f"<a@b> ORCPT={orcpt}", GRAMMAR, utf8=False).orcpt == orcpt
    with pytest.raises(CommandError) as caught:
        parse_rcpt(f"<a@b> ORCPT={orcpt}x", GRAMMAR, utf8=False)
    assert caught.value.reply is answers.BAD_ORCPT


def test_rcpt() -> None:
    assert parse_rcpt("<a@b>", GRAMMAR, utf8=False) == Rcpt(Address("a", "b"))
    found = parse_rcpt("<a@b> notify=success,DELAY,other ORCPT=rfc822;x", GRAMMAR, utf8=False)
    assert found == Rcpt(Address("a", "b"), Notify.SUCCESS | Notify.DELAY, "rfc822;x")
    assert parse_rcpt("<a@b> NOTIFY=NEVER", GRAMMAR, utf8=False).notify is Notify.NEVER
    assert parse_rcpt("<é@b>", GRAMMAR, utf8=True).recipient.local_part == "é"
    assert [flag.value for flag in Notify] == [1, 2, 4, 8]  # as the spool has them


@pytest.mark.parametrize(
    "value", ["", "rfc822", "rfc822;", ";a", "rfc822;a b", "rfc822;a=b", "r c;a", "-x;a", "é;a"]
)
def test_bad_orcpt(value: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_rcpt(f"<a@b> ORCPT={value}", GRAMMAR, utf8=True)
    assert caught.value.reply.code in (503, 553)


def test_xtext() -> None:
    assert decode_xtext("a+2Bb+C3+A9") == "a+bé"
    assert not is_xtext("+2b")  # lower case
    for bad in ("a=b", "a b", "+", "+4", "é", "a\n"):
        with pytest.raises(FormatError):
            decode_xtext(bad)


def understand(line: bytes) -> Optional[Reply]:
    """Parse a line to its end; return the refusal."""
    try:
        verb, argument = parse_line(line)
        if verb is Verb.MAIL:
            parse_mail(argument or "", GRAMMAR)
        elif verb is Verb.RCPT:
            parse_rcpt(argument or "", GRAMMAR, utf8=True)
        elif verb is Verb.EHLO:
            parse_hello(verb, argument)
    except CommandError as error:
        return error.reply
    return None


@given(st.binary(max_size=200))
def test_any_line_is_understood_or_refused_in_one_line(line: bytes) -> None:
    for start in (b"", b"MAIL FROM:<a@b> ", b"RCPT TO:<", b"MAIL FROM:<", b"EHLO "):
        refusal = understand(start + line)
        assert refusal is None or refusal.encode().count(b"\n") == 1
