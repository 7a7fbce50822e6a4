"""A bounded reader of binary fields in network order: no read ever leaves the octets given."""

from __future__ import annotations

from smtpd_core.errors import FormatError

TYPE_CHECKING = False  # typing costs 7 ms at run time; checkers know this name
if TYPE_CHECKING:
    from typing import Optional


class CursorError(FormatError):
    """A field that reaches past the end of its octets, or octets left over."""


class Cursor:
    """A position in octets, moving forward field by field up to a fixed end."""

    __slots__ = ("end", "octets", "position")

    def __init__(self, octets: bytes, position: int = 0, end: Optional[int] = None) -> None:
        """Read octets[position:end]; CursorError when that is no part of the octets."""
        self.octets = octets
        self.end = len(octets) if end is None else end
        self.position = position
        if not 0 <= position <= self.end <= len(octets):
            raise CursorError(f"octets {position} to {self.end} of {len(octets)}")

    @property
    def remaining(self) -> int:
        """How many octets are left."""
        return self.end - self.position

    def take(self, count: int) -> bytes:
        """Give the next octets, exactly so many."""
        if not 0 <= count <= self.end - self.position:
            raise CursorError(
                f"{count} octets wanted at octet {self.position}, {self.remaining} are left"
            )
        start = self.position
        self.position = start + count
        return self.octets[start : self.position]

    def u8(self) -> int:
        """Give the next octet as a number."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Give the next two octets as a number."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Give the next four octets as a number."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Give the next eight octets as a number."""
        return int.from_bytes(self.take(8), "big")

    def part(self, count: int) -> Cursor:
        """Step over the next octets and give a cursor bounded to them, positions unchanged."""
        start = self.position
        self.take(count)
        return Cursor(self.octets, start, self.position)

    def finish(self) -> None:
        """Raise CursorError unless everything was read."""
        if self.position != self.end:
            raise CursorError(f"{self.remaining} octets left over at octet {self.position}")
