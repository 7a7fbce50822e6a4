"""A stored message, with what is put before it at delivery."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 65536  # octets read at once
MAX_HEADER = 1 << 20  # octets of a message that are searched for header fields


class Message:
    """What one delivery delivers: octets, then a file from its beginning.

    Reading moves no position: a descriptor that came from another process shares its own.
    """

    def __init__(self, prefix: bytes, descriptor: int) -> None:
        self.prefix = prefix
        self.descriptor = descriptor

    def chunks(self) -> Iterator[bytes]:
        """Give the message in pieces."""
        if self.prefix:
            yield self.prefix
        position = 0
        while True:
            chunk = os.pread(self.descriptor, CHUNK, position)
            if not chunk:
                return
            position += len(chunk)
            yield chunk

    def header(self) -> bytes:
        """Give the header section, its empty line included; no more than MAX_HEADER octets."""
        octets = b""
        for chunk in self.chunks():
            searched = max(len(octets) - 1, 0)
            octets += chunk
            end = octets.find(b"\n\n", searched)
            if end >= 0 or len(octets) >= MAX_HEADER:
                return octets[: end + 2 if end >= 0 else MAX_HEADER]
        return octets


def write_all(descriptor: int, octets: bytes) -> None:
    """Write everything; a regular file takes a part only where it is full or at its limit."""
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]
