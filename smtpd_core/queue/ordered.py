"""A set of ids in their order, cheap to change in the middle."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_MAX = 512  # a longer one is split: inserting moves at most so many references


class OrderedIds:
    """Ids in ascending order, in chunks; each operation is logarithmic but for a short move."""

    __slots__ = ("_chunks", "_firsts")

    def __init__(self) -> None:
        """Start empty."""
        self._chunks: list[list[int]] = []
        self._firsts: list[int] = []  # the first id of each chunk

    def add(self, number: int) -> None:
        """Add an id that is not in the set yet."""
        if not self._chunks:
            self._chunks.append([number])
            self._firsts.append(number)
            return
        index = max(0, bisect_right(self._firsts, number) - 1)
        chunk = self._chunks[index]
        chunk.insert(bisect_left(chunk, number), number)
        self._firsts[index] = chunk[0]
        if len(chunk) > _CHUNK_MAX:
            half = chunk[_CHUNK_MAX // 2 :]
            del chunk[_CHUNK_MAX // 2 :]
            self._chunks.insert(index + 1, half)
            self._firsts.insert(index + 1, half[0])

    def remove(self, number: int) -> None:
        """Remove an id that is in the set."""
        index = bisect_right(self._firsts, number) - 1
        chunk = self._chunks[index]
        del chunk[bisect_left(chunk, number)]
        if chunk:
            self._firsts[index] = chunk[0]
        else:
            del self._chunks[index], self._firsts[index]

    def between(self, start: int, end: int) -> Iterator[int]:
        """Give the ids from start up to, not including, end; the set may change meanwhile."""
        while self._chunks:
            index = max(0, bisect_right(self._firsts, start) - 1)
            chunk = self._chunks[index]
            position = bisect_left(chunk, start)
            if position == len(chunk):
                index += 1
                if index == len(self._chunks):
                    return
                chunk, position = self._chunks[index], 0
            number = chunk[position]
            if number >= end:
                return
            yield number
            start = number + 1
