"""Command lines out of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import CommandError
from smtpd_core.smtp.lines import MAX_BUFFER, LineReader

if TYPE_CHECKING:
    from smtpd_core.smtp.reply import Reply

Cuts = Callable[[bytes], list[list[bytes]]]


def read(pieces: list[bytes]) -> tuple[list[bytes], Optional[Reply]]:
    reader = LineReader()
    lines = []
    for piece in pieces:
        reader.feed(piece)
        try:
            line = reader.next_line()
            while line is not None:
                lines.append(line)
                line = reader.next_line()
        except CommandError as error:
            return lines, error.reply
    return lines, None


@pytest.mark.parametrize(
    ("octets", "lines", "refusal"),
    [
        (b"a\r\n\r\nb\r\nrest", [b"a", b"", b"b"], None),
        (b"a\r\nb\nc\r\n", [b"a"], answers.BAD_OCTET),
        (b"a\r\nb\rc\r\n", [b"a"], answers.BAD_OCTET),
        (b"a\r\r\n", [], answers.BAD_OCTET),
        (b"\n", [], answers.BAD_OCTET),
        (b"NOOP\0\r\n", [], answers.BAD_OCTET),
        (b"x" * 2047 + b"\r\n", [b"x" * 2047], None),
        (b"x" * 2048 + b"\r\n", [], answers.COMMAND_TOO_LONG),
        (b"x" * 65534 + b"\r\n", [], answers.COMMAND_TOO_LONG),
        (b"x" * 65535 + b"\r\n", [], answers.LINE_TOO_LONG),
        (b"x" * 65535, [], answers.LINE_TOO_LONG),
        (b"x" * 65534, [], None),
        (b"x" * 65535 + b"\n", [], answers.LINE_TOO_LONG),
        (b"x" * 3000 + b"\0", [], answers.BAD_OCTET),
    ],
)
def test_same_lines_however_they_arrive(
    octets: bytes, lines: list[bytes], refusal: Optional[Reply], cuts: Cuts
) -> None:
    for pieces in cuts(octets):
        assert read(pieces) == (lines, refusal)


def test_bounded() -> None:
    reader = LineReader()
    reader.feed(b"a\r\n" * MAX_BUFFER)
    with pytest.raises(LocalError):
        reader.feed(b"a")


def test_take_all() -> None:
    reader = LineReader()
    reader.feed(b"a\r\nb\r")
    assert reader.next_line() == b"a"
    assert reader.next_line() is None
    assert reader.take_all() == b"b\r"
    assert reader.is_empty
    reader.feed(b"c\r\n")
    assert reader.next_line() == b"c"


@given(st.text("a\r\n\0", max_size=30).map(str.encode), st.integers(0, 30))
def test_any_cutting_gives_the_same(octets: bytes, at: int) -> None:
    assert read([octets[:at], octets[at:]]) == read([octets])
