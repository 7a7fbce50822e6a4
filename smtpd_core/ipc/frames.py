"""Frames between the roles: a header of twelve octets, then a payload of bounded length.

    u32 length of the payload | u16 type | u16 marks | u32 serial        network order

A serial ties an answer to its request and is 0 in a message that wants none. A frame marked
DESCRIPTOR comes with one open file, sent beside its first octet. This is between processes of
one start of one program: no version, no negotiation, and nobody else's format.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional

from smtpd_core.errors import FormatError, LocalError

MAX_PAYLOAD = 1 << 20  # a small body or a batch of envelopes; what is larger goes by descriptor
DESCRIPTOR = 1
ANSWER = 2
_MARKS = DESCRIPTOR | ANSWER
MAX_SERIAL = 0xFFFFFFFF
MAX_TYPE = 0xFFFF
_HEADER = struct.Struct("!IHHI")
HEADER_OCTETS = _HEADER.size


class FrameError(FormatError):
    """Octets that are no frame of ours: the peer cannot be understood any more."""


class Frame(NamedTuple):
    """One frame; with a serial it is a request, or with is_answer the answer to it."""

    type: int
    payload: bytes
    serial: int = 0
    is_answer: bool = False
    has_descriptor: bool = False


def encode_frame(frame: Frame) -> bytes:
    """Give the octets of a frame. Raises LocalError for one that nobody would accept."""
    if len(frame.payload) > MAX_PAYLOAD:
        raise LocalError(f"a payload of {len(frame.payload)} octets")
    if not 0 < frame.type <= MAX_TYPE or not 0 <= frame.serial <= MAX_SERIAL:
        raise LocalError(f"a frame of type {frame.type}, serial {frame.serial}")
    if frame.is_answer and not frame.serial:
        raise LocalError("an answer to nothing")
    marks = (DESCRIPTOR if frame.has_descriptor else 0) | (ANSWER if frame.is_answer else 0)
    return _HEADER.pack(len(frame.payload), frame.type, marks, frame.serial) + frame.payload


class FrameReader:
    """Cuts octets into frames; holds no more than one frame beyond what was fed last."""

    __slots__ = ("_buffer", "_position")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0

    def feed(self, octets: bytes) -> None:
        """Take what was received."""
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += octets

    def next_frame(self) -> Optional[Frame]:
        """Give the next whole frame, or None. Raises FrameError when there can be none."""
        if len(self._buffer) - self._position < HEADER_OCTETS:
            return None
        length, kind, marks, serial = _HEADER.unpack_from(self._buffer, self._position)
        if length > MAX_PAYLOAD:
            raise FrameError(f"a frame of {length} octets")
        if not kind or marks & ~_MARKS or (marks & ANSWER and not serial):
            raise FrameError(f"a frame of type {kind}, marks {marks:#x}, serial {serial}")
        start = self._position + HEADER_OCTETS
        if len(self._buffer) < start + length:
            return None
        self._position = start + length
        return Frame(
            kind,
            bytes(self._buffer[start : self._position]),
            serial,
            is_answer=bool(marks & ANSWER),
            has_descriptor=bool(marks & DESCRIPTOR),
        )

    @property
    def wanted(self) -> int:
        """How many octets are needed before next_frame can give anything: at least 1."""
        held = len(self._buffer) - self._position
        if held < HEADER_OCTETS:
            return HEADER_OCTETS - held
        (length,) = struct.unpack_from("!I", self._buffer, self._position)
        return max(1, HEADER_OCTETS + min(int(length), MAX_PAYLOAD) - held)
