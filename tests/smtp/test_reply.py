"""Replies, composed and read."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core import text as octet_text
from smtpd_core.errors import LocalError
from smtpd_core.mail.status import MAX_ERRORLINE, Result
from smtpd_core.smtp.reply import (
    MAX_LINE,
    Reply,
    ReplyError,
    ReplyReader,
    errorline,
    outcome_of,
    parse_refusal,
    parse_reply_line,
    refused,
)

Cuts = Callable[[bytes], list[list[bytes]]]
VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "smtp" / "reply").glob("*.in"))


def read(pieces: list[bytes]) -> list[Reply]:
    reader = ReplyReader()
    replies = []
    for piece in pieces:
        reader.feed(piece)
        reply = reader.next_reply()
        while reply is not None:
            replies.append(reply)
            reply = reader.next_reply()
    return replies


def test_vectors_are_there() -> None:
    assert len(VECTORS) > 25


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_one_safe_line_of_what_a_server_says(vector: Path, cuts: Cuts) -> None:
    refusal = vector.with_suffix(".err")
    for pieces in cuts(vector.read_bytes()):
        if refusal.exists():
            with pytest.raises(ReplyError) as caught:
                read(pieces)
            assert type(caught.value).__name__ == refusal.read_text().strip()
        else:
            (reply,) = read(pieces)
            line = errorline(reply)
            assert octet_text.encode(line) == vector.with_suffix(".out").read_bytes()


@pytest.mark.parametrize(
    "hostile",
    [
        b"553-\r\n553 \nversion: 3\ntype: mda\nmda-exec: id\r\n",
        b"553-x\r\n\r\ntype: mda\r\n553 x\r\n",
        b"553-x\r\ntype: mda\r\n",
        b"553 x\rtype: mda\r\n",
        b"553 x\x0btype: mda\x0cmda-exec: id\x85\xc2\x85\xe2\x80\xa8y\r\n",
    ],
)
def test_the_hole_of_2020_a_reply_puts_no_line_into_an_envelope(hostile: bytes) -> None:
    # OpenSMTPD up to 6.6.3 copied the last line of a multi-line reply with its newlines.
    assert all(len(text.splitlines()) == 1 for text in said(hostile))


def said(octets: bytes) -> list[str]:
    """Give what would be stored of some replies, or of the error they are."""
    try:
        return [outcome_of(reply).text for reply in read([octets])]
    except ReplyError as error:
        return [str(error)]


def test_status_is_taken_off_when_all_lines_repeat_it() -> None:
    assert read([b"550-5.1.1 a\r\n550 5.1.1 b\r\n"]) == [Reply(550, "5.1.1", ("a", "b"))]
    assert read([b"550-5.1.1 a\r\n550 5.1.2 b\r\n"]) == [Reply(550, None, ("5.1.1 a", "5.1.2 b"))]
    assert str(outcome_of(read([b"550-5.1.1 a\r\n550 b\r\n"])[0]).status) == "5.1.1"


def test_reply_lines() -> None:
    assert parse_reply_line(b"250-x\xff") == (250, True, b"x\xff")
    assert parse_reply_line(b"250") == (250, False, b"")


def test_spelling() -> None:
    assert Reply(250, "2.0.0", ("a", "b")).encode() == b"250-2.0.0 a\r\n250 2.0.0 b\r\n"
    assert Reply(334, None, ("",)).encode() == b"334 \r\n"
    assert Reply(250, "2.0.0", ("",)).encode() == b"250 2.0.0\r\n"


@pytest.mark.parametrize("line", ["a\r\n250 b", "a\nb", "a\rb", "a\0b"])
def test_no_reply_of_ours_holds_a_second_one(line: str) -> None:
    with pytest.raises(LocalError):
        Reply(550, None, ("x", line))


def test_impossible_replies() -> None:
    with pytest.raises(LocalError):
        Reply(600, None, ("x",))
    with pytest.raises(LocalError):
        Reply(250, None, ())


def test_refusals_of_filters_and_aliases() -> None:
    assert parse_refusal("550 go away") == Reply(550, None, ("go away",))
    assert parse_refusal("451 4.7.1 later") == Reply(451, "4.7.1", ("later",))
    assert parse_refusal("421 bye").closes
    for bad in ("250 ok", "550", "550 ", "5500 x", "550 a\r\n250 b", "550 a\nb", "x", "\u06650 x"):
        with pytest.raises(ReplyError):
            parse_refusal(bad)


def test_outcomes() -> None:
    assert outcome_of(Reply(250, "2.1.5", ("ok",))).result is Result.DELIVERED
    assert outcome_of(Reply(354, None, ("go",))).result is Result.TEMPORARY
    assert refused(Reply(250, None, ("ok",))).result is Result.TEMPORARY
    found = refused(Reply(552, "5.2.2", ("full",)), "AUTH rejected: ")
    assert (found.result, str(found.status)) == (Result.PERMANENT, "5.2.2")
    assert found.text == "AUTH rejected: 552 5.2.2 full"


def test_waiting_replies_are_bounded() -> None:
    reader = ReplyReader()
    reader.feed(b"250 a\r\n" * 257)
    with pytest.raises(LocalError):
        reader.feed(b"")


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_any_octets_make_replies_or_an_error(pieces: list[bytes]) -> None:
    try:
        replies = read(pieces)
    except ReplyError:
        return
    for reply in replies:
        assert len(errorline(reply).encode("utf-8", "surrogateescape")) <= MAX_ERRORLINE


_TEXT = st.binary(max_size=40).filter(lambda octets: not set(octets) & set(b"\r\n\0"))


@given(st.integers(200, 599), st.lists(_TEXT, min_size=1, max_size=5))
def test_encode_then_read_is_identity(code: int, lines: list[bytes]) -> None:
    reply = Reply(code, None, tuple(map(octet_text.decode, lines)))
    (found,) = read([reply.encode()])
    assert found.encode() == reply.encode()


@given(st.binary(max_size=MAX_LINE))
def test_octets_are_kept(octets: bytes) -> None:
    clean = bytes(set(octets) - set(b"\r\n\0"))
    (reply,) = read([b"250 x" + clean + b"\r\n"])
    assert octet_text.encode(reply.lines[0]) == b"x" + clean
