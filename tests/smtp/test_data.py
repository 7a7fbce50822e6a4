"""The text after DATA."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.smtp.data import BareNewlineError, DataError, DataReader, DataWriter

Cuts = Callable[[bytes], list[list[bytes]]]
VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "smtp" / "data").glob("*.in"))


def read(pieces: list[bytes], max_size: int = 0) -> tuple[bytes, DataReader, bytes]:
    reader = DataReader(max_size)
    text = b""
    behind = b""
    for piece in pieces:
        if reader.ended:
            behind += piece
        else:
            text += reader.feed(piece)
    return text, reader, reader.rest + behind


def test_vectors_are_there() -> None:
    assert len(VECTORS) > 25


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_same_text_however_the_octets_arrive(vector: Path, cuts: Cuts) -> None:
    refusal = vector.with_suffix(".err")
    for pieces in cuts(vector.read_bytes()):
        if refusal.exists():
            with pytest.raises(DataError) as caught:
                read(pieces)
            assert type(caught.value).__name__ == refusal.read_text().strip()
        else:
            text, reader, _ = read(pieces)
            assert text == vector.with_suffix(".out").read_bytes()
            assert reader.ended
            assert reader.size == len(text)


@pytest.mark.parametrize("pieces", [[b"a\rb"], [b"a\r", b"b"], [b"a\r", b"\r"], [b"a\nb"], [b"\n"]])
def test_a_bare_newline_is_refused_as_soon_as_it_is_one(pieces: list[bytes]) -> None:
    with pytest.raises(BareNewlineError):
        read(pieces)


def test_what_comes_behind_is_kept(cuts: Cuts) -> None:
    for pieces in cuts(b"a\r\n.\r\nQUIT\nbare\r\n"):
        assert read(pieces)[2] == b"QUIT\nbare\r\n"


def test_nothing_may_be_fed_behind_the_end() -> None:
    reader = DataReader()
    reader.feed(b".\r\n")
    with pytest.raises(LocalError):
        reader.feed(b"")


def test_size_counts_line_ends_without_stuffing() -> None:
    assert not read([b"..2\r\n45\r\n.\r\n"], 6)[1].too_big
    text, reader, _ = read([b"..2\r\n456\r\n", b"more\r\n.\r\n"], 6)
    assert (text, reader.too_big, reader.ended) == (b"", True, True)


def test_nul_is_noted() -> None:
    assert read([b"a\0b\r\n.\r\n"])[1].has_nul
    assert not read([b"ab\r\n.\r\n"])[1].has_nul


def write(pieces: list[bytes]) -> bytes:
    writer = DataWriter()
    return b"".join(map(writer.feed, pieces)) + writer.finish()


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        (b"", b".\r\n"),
        (b"a\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\n..\na.\n", b"..\r\n...\r\na.\r\n.\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n.\r\n"),
        (b"a\r.\rMAIL FROM:<x>\n", b"a . MAIL FROM:<x>\r\n.\r\n"),
        (b"a\n.\r\nb\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\r\n.\r\r\n", b"a \r\n.. \r\n.\r\n"),
        (b"a\r", b"a \r\n.\r\n"),
        (b"\r.\n", b" .\r\n.\r\n"),
        (b".\0\n", b".. \r\n.\r\n"),
        (b"\n\n", b"\r\n\r\n.\r\n"),
    ],
)
def test_nothing_is_smuggled_out(stored: bytes, sent: bytes, cuts: Cuts) -> None:
    for pieces in cuts(stored):
        assert write(pieces) == sent


@given(st.text("a.\r\n\0", max_size=60).map(str.encode), st.integers(0, 60))
def test_what_is_sent_is_read_as_one_message(stored: bytes, at: int) -> None:
    sent = write([stored[:at], stored[at:]])
    text, reader, rest = read([sent])
    assert reader.ended
    assert rest == b""
    assert not reader.has_nul
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    if not set(stored) & set(b"\r\0") and (stored.endswith(b"\n") or not stored):
        assert text == stored


@given(st.text("a.\r\n\0", max_size=40).map(str.encode), st.integers(0, 40))
def test_any_cutting_gives_the_same(octets: bytes, at: int) -> None:
    def result(pieces: list[bytes]) -> object:
        try:
            text, reader, rest = read(pieces)
        except BareNewlineError:
            return "bare"
        return text, reader.ended, rest, reader.size, reader.has_nul

    assert result([octets[:at], octets[at:]]) == result([octets])
