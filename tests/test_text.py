"""Octets and text, and the escapes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core import text


@given(st.binary())
def test_decoding_keeps_every_octet(octets: bytes) -> None:
    assert text.encode(text.decode(octets)) == octets


@pytest.mark.parametrize(
    ("octets", "spelled"),
    [
        (b"plain text", "plain text"),
        (b"tab\there", "tab\there"),
        (b"a\\b", "a\\\\b"),
        (b"\x07\x1b\x7f", "\\^G\\^[\\^?"),
        (b"\xe9", "\\M-i"),
        (b"\x80\x9b\xff", "\\M^@\\M^[\\M^?"),
        (b"\xa0", "\\240"),
        ("é".encode(), "\\M-C\\M-)"),
    ],
)
def test_vis(octets: bytes, spelled: str) -> None:
    assert text.vis(text.decode(octets)) == spelled


def test_vis_is_cut_but_never_inside_an_escape() -> None:
    assert text.vis("x" * 3000) == "x" * 2047
    assert text.vis("x" * 2045 + "\\\\") == "x" * 2045 + "\\\\"
    assert text.vis("x" * 2046 + "\\") == "x" * 2046


@given(st.binary(max_size=300))
def test_what_is_escaped_reaches_a_terminal_as_plain_text(octets: bytes) -> None:
    shown = text.escape(text.decode(octets))
    assert not [letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cs")]
    assert not [letter for letter in shown if unicodedata.bidirectional(letter) in _REORDERING]
    shown.encode("utf-8")


_REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"ordinary", "ordinary"),
        ("größer".encode(), "größer"),
        (b"\x1b[2J\r\n\t", "\\x1b[2J\\r\\n\\t"),
        (b"\xff", "\\xff"),
        ("\u202eabc\u2028".encode(), "\\u202eabc\\u2028"),
    ],
)
def test_escape(octets: bytes, shown: str) -> None:
    assert text.escape(text.decode(octets)) == shown


def test_lines_of_a_message_stay_lines() -> None:
    assert text.escape_lines("a\tb\nc\x1bd\r\n") == "a\tb\nc\\x1bd\\r\n"
