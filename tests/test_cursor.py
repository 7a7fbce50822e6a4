"""Bounded reading of binary fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.cursor import Cursor, CursorError


def test_fields_are_read_in_network_order() -> None:
    cursor = Cursor(bytes(range(1, 17)))
    assert cursor.u8() == 0x01
    assert cursor.u16() == 0x0203
    assert cursor.u32() == 0x04050607
    assert cursor.take(1) == b"\x08"
    assert cursor.u64() == 0x090A0B0C0D0E0F10
    cursor.finish()


def test_a_part_keeps_the_positions_of_the_whole() -> None:
    cursor = Cursor(b"abcdef", 1)
    part = cursor.part(3)
    assert (part.position, part.end, cursor.position) == (1, 4, 4)
    assert part.take(3) == b"bcd"
    with pytest.raises(CursorError):
        part.take(1)
    assert cursor.take(2) == b"ef"


def test_a_refused_read_moves_nothing() -> None:
    cursor = Cursor(b"abc")
    for count in (4, -1):
        with pytest.raises(CursorError):
            cursor.take(count)
    with pytest.raises(CursorError):
        cursor.u32()
    with pytest.raises(CursorError, match="3 octets left over"):
        cursor.finish()
    assert cursor.take(3) == b"abc"


@pytest.mark.parametrize(("position", "end"), [(-1, None), (4, None), (0, 4), (2, 1)])
def test_a_range_outside_is_refused(position: int, end: int) -> None:
    with pytest.raises(CursorError):
        Cursor(b"abc", position, end)


@given(st.binary(max_size=40), st.lists(st.integers(-2, 12), max_size=12))
def test_reads_never_leave_the_octets(octets: bytes, counts: list[int]) -> None:
    cursor = Cursor(octets)
    taken = b""
    for count in counts:
        try:
            taken += cursor.take(count)
        except CursorError:
            assert count < 0 or count > cursor.remaining
    assert octets.startswith(taken)
    assert cursor.remaining == len(octets) - len(taken)
