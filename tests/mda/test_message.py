"""A message with its prefix."""

from __future__ import annotations

import os
import tempfile
from typing import Iterator

import pytest

from smtpd_core.mda import message
from smtpd_core.mda.message import Message, write_all


@pytest.fixture
def file() -> Iterator[int]:
    with tempfile.TemporaryFile() as opened:
        yield opened.fileno()


@pytest.mark.parametrize("size", [0, 1, message.CHUNK - 1, message.CHUNK, 2 * message.CHUNK + 5])
def test_it_is_read_whole_and_more_than_once(file: int, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    os.write(file, body[:size])
    text = Message(b"P: x\n", file)
    for _ in range(2):
        assert b"".join(text.chunks()) == b"P: x\n" + body[:size]
    assert b"".join(Message(b"", file).chunks()) == body[:size]


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (b"A: b\n\nbody\n\nx", b"P: x\nA: b\n\n"),
        (b"A: b\n", b"P: x\nA: b\n"),
        (b"\nbody", b"P: x\n\n"),
        (b"", b"P: x\n"),
    ],
)
def test_its_header_ends_at_the_empty_line(file: int, text: bytes, header: bytes) -> None:
    os.write(file, text)
    assert Message(b"P: x\n", file).header() == header


def test_an_empty_line_across_two_pieces_and_a_header_without_end(file: int) -> None:
    head = b"A: ".ljust(message.CHUNK - 1, b"x") + b"\n\nbody"
    os.write(file, head)
    assert Message(b"", file).header() == head[: message.CHUNK + 1]
    os.ftruncate(file, 0)
    os.pwrite(file, b"x" * (message.MAX_HEADER + message.CHUNK), 0)
    assert len(Message(b"", file).header()) == message.MAX_HEADER


def test_everything_is_written(file: int) -> None:
    write_all(file, b"x" * 200000)
    assert os.fstat(file).st_size == 200000
