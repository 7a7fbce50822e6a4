"""Frames: what is written is read, whatever the cuts, and nothing else is."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.ipc.frames import (
    HEADER_OCTETS,
    MAX_PAYLOAD,
    Frame,
    FrameError,
    FrameReader,
    encode_frame,
)

FRAMES = st.builds(
    Frame,
    st.integers(1, 0xFFFF),
    st.binary(max_size=200),
    st.integers(1, 0xFFFFFFFF),
    is_answer=st.booleans(),
    has_descriptor=st.booleans(),
)


def read_all(reader: FrameReader) -> list[Frame]:
    return list(iter(reader.next_frame, None))


@given(st.lists(FRAMES, max_size=5), st.integers(1, 50))
def test_same_frames_however_the_octets_arrive(given_frames: list[Frame], step: int) -> None:
    octets = b"".join(map(encode_frame, given_frames))
    reader = FrameReader()
    found = []
    for start in range(0, len(octets), step):
        reader.feed(octets[start : start + step])
        found += read_all(reader)
    assert found == given_frames


@given(st.binary(max_size=100))
def test_any_octets_give_frames_or_the_error(octets: bytes) -> None:
    reader = FrameReader()
    reader.feed(octets)
    try:
        read_all(reader)
    except FrameError:
        pass


def test_layout() -> None:
    assert encode_frame(Frame(7, b"ab", 9, is_answer=True)) == bytes.fromhex(
        "00000002 0007 0002 00000009 6162"
    )


@pytest.mark.parametrize(
    "header",
    [
        (MAX_PAYLOAD + 1, 1, 0, 0),
        (0, 0, 0, 0),
        (0, 1, 4, 0),
        (0, 1, 2, 0),
    ],
    ids=["too long", "no type", "unknown mark", "answer to nothing"],
)
def test_refused(header: tuple[int, int, int, int]) -> None:
    reader = FrameReader()
    reader.feed(struct.pack("!IHHI", *header))
    with pytest.raises(FrameError):
        reader.next_frame()


@pytest.mark.parametrize(
    "frame",
    [Frame(1, bytes(MAX_PAYLOAD + 1)), Frame(0, b""), Frame(1, b"", is_answer=True)],
    ids=["too long", "no type", "answer to nothing"],
)
def test_never_written(frame: Frame) -> None:
    with pytest.raises(LocalError):
        encode_frame(frame)


def test_the_longest_is_read() -> None:
    reader = FrameReader()
    octets = encode_frame(Frame(1, bytes(MAX_PAYLOAD)))
    reader.feed(octets[:HEADER_OCTETS])
    assert reader.wanted == MAX_PAYLOAD
    assert reader.next_frame() is None
    reader.feed(octets[HEADER_OCTETS:])
    frame = reader.next_frame()
    assert frame is not None
    assert len(frame.payload) == MAX_PAYLOAD
