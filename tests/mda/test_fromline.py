"""The mbox format."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mda.fromline import FromEscaper, from_line

DATE = "Thu Jan  1 00:00:00 1970"


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("a@example.org", b"From a@example.org Thu Jan  1 00:00:00 1970\n"),
        ("", b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n"),
        ("a b\n\xe9@c", b"From a?b?\xc3\xa9@c Thu Jan  1 00:00:00 1970\n"),
    ],
)
def test_the_line_before_a_message(sender: str, expected: bytes) -> None:
    assert from_line(sender, DATE) == expected


@pytest.mark.parametrize(
    ("text", "expected", "every"),
    [
        (b"", b"\n", b"\n"),
        (b"a\n", b"a\n\n", b"a\n\n"),
        (b"a", b"a\n\n", b"a\n\n"),
        (b"From x\n", b">From x\n\n", b">From x\n\n"),
        (b"a\nFrom x\n", b"a\nFrom x\n\n", b"a\n>From x\n\n"),
        (b"a\n\nFrom x\n", b"a\n\n>From x\n\n", b"a\n\n>From x\n\n"),
        (b"a\n\nFrom\n\nFrom:\n", b"a\n\nFrom\n\nFrom:\n\n", b"a\n\nFrom\n\nFrom:\n\n"),
        (b"\nFrom x\n\n\nFrom y", b"\n>From x\n\n\n>From y\n\n", b"\n>From x\n\n\n>From y\n\n"),
        (b">From x\n", b">From x\n\n", b">From x\n\n"),
        (b"\n\nFro", b"\n\nFro\n\n", b"\n\nFro\n\n"),
    ],
)
def test_what_looks_like_that_line_however_it_is_cut(
    text: bytes, expected: bytes, every: bytes
) -> None:
    cuts = [[text], [text[at : at + 1] for at in range(len(text))]]
    cuts += [[text[:at], text[at:]] for at in range(len(text))]
    for pieces in cuts:
        for wanted, every_line in ((expected, False), (every, True)):
            escaper = FromEscaper(every_line=every_line)
            assert b"".join(map(escaper.feed, pieces)) + escaper.finish() == wanted


@given(st.lists(st.sampled_from([b"\n", b"From ", b"Fr", b"om ", b"x", b"\n\n", b">", b""])))
def test_it_is_what_a_regular_expression_over_the_whole_gives(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    ended = text if text.endswith(b"\n") or not text else text + b"\n"
    for every_line in (False, True):
        start = rb"(?<=\n)" if every_line else rb"(?<=\n\n)"
        wanted = re.sub(start + rb"From ", b">From ", b"\n\n" + ended)[2:] + b"\n"
        escaper = FromEscaper(every_line=every_line)
        assert b"".join(map(escaper.feed, pieces)) + escaper.finish() == wanted
