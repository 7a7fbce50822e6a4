"""Files with holes in tar archives: the four forms of their map, and reading them whole again.

Source: GNU tar manual, "Storing Sparse Files": old GNU format, PAX formats 0.0, 0.1 and 1.0.
"""

from __future__ import annotations

from smtpd_core.errors import FormatError
from smtpd_core.queue.tar_header import parse_decimal, parse_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RUNS = 1 << 16  # runs of data in one file; its map is kept while the file is read
MAX_SPARSE = 1 << 30  # octets of one file: holes cost nothing to claim, and no mail has so many

SPARSE_NAME = b"GNU.sparse.name"
SPARSE_MAP = b"GNU.sparse.map"
SPARSE_SIZE = b"GNU.sparse.size"  # of the whole file, where the map is among the records
SPARSE_REALSIZE = b"GNU.sparse.realsize"  # of the whole file, where the map is before the data


class SparseFile:
    """The octets of a file with holes: those stored, and zeros between them."""

    __slots__ = ("_position", "_read_stored", "_runs", "size")

    def __init__(self, numbers: list[int], size: int, stored: int) -> None:
        """Take a map: pairs of place and length, for a file of some size and octets stored.

        Raises ValueError unless the runs follow each other, fill what is stored, and fit the size.
        """
        self._runs: list[tuple[int, int]] = []  # start and end, the next one last
        self._position = 0
        self.size = size
        reached = 0
        for start, length in zip(numbers[::2], numbers[1::2]):
            if length:
                if start < reached or length < 0:
                    raise ValueError("runs of data that overlap")
                reached = start + length
                stored -= length
                self._runs.append((start, reached))
        if len(numbers) % 2 or stored or not reached <= size <= MAX_SPARSE:
            raise ValueError("runs of data that do not fit")
        self._runs.reverse()

    def read(self, count: int, read_stored: Callable[[int], bytes]) -> bytes:
        """Give the next octets; read_stored gives those in the archive, and raises when cut."""
        pieces: list[bytes] = []
        count = min(count, self.size - self._position)
        while count > 0:
            start, end = self._runs[-1] if self._runs else (self.size, self.size)
            if self._position < start:
                piece = bytes(min(count, start - self._position))
            else:
                try:
                    piece = read_stored(min(count, end - self._position))
                except FormatError:
                    if pieces:
                        break  # the next call raises it again
                    raise
            pieces.append(piece)
            count -= len(piece)
            self._position += len(piece)
            if self._runs and self._position == end:
                self._runs.pop()
        return b"".join(pieces)


def header_map(block: bytes, next_block: Callable[[], bytes]) -> tuple[list[int], int]:
    """Read map and size in an old GNU header: four runs, then blocks with 21 each.

    Raises ValueError; all blocks of the map are taken before.
    """
    fields = [block[386:482]]
    size = block[483:495]
    more = block[482]
    while more:
        block = next_block()
        if len(fields) <= MAX_RUNS // 21:  # a longer map is cut: it does not fill what is stored
            fields.append(block[:504])
        more = block[504]
    octets = b"".join(fields)
    starts = range(0, len(octets), 12)
    return [parse_number(octets[start : start + 12]) for start in starts], parse_number(size)


def record_map(
    records: dict[bytes, bytes], read_stored: Callable[[int], bytes]
) -> tuple[list[int], int]:
    """Read map and size from pax records, or the map that stands before the data.

    That is a count and the numbers, a line each, filled up to whole blocks. Raises ValueError.
    """
    if SPARSE_MAP in records:
        numbers = records[SPARSE_MAP].split(b",")
        return list(map(parse_decimal, numbers)), parse_decimal(records.get(SPARSE_SIZE, b""))
    text = read_stored(512)
    count = parse_decimal(text.partition(b"\n")[0])
    if count > MAX_RUNS:
        raise ValueError("too many runs")
    pieces = [text]
    lines = text.count(b"\n")
    while lines <= 2 * count and text:
        text = read_stored(512)
        lines += text.count(b"\n")
        pieces.append(text)
    numbers = b"".join(pieces).split(b"\n")[1 : 2 * count + 1]
    return list(map(parse_decimal, numbers)), parse_decimal(records[SPARSE_REALSIZE])
