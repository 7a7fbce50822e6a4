"""The compression around a stream: known by its first octets, undone without seeking.

gzip, xz, bzip2 and zstd are undone by the modules of this Python where it has them, else by the
programs of the host. Either way pieces of bounded size come out, in step with what is read; what
a cut or damaged stream still gives comes first, and the UnpackError after it.

Source: RFC 1952; RFC 8878; the .xz file format, section 2; bzip2(1), gzip(1), xz(1), zstd(1).
"""

from __future__ import annotations

import os
import sys

from smtpd_core.errors import FormatError
from smtpd_core.queue.unpack_program import DIRECTORIES, MAX_MEMORY, find_program, run_filter
from smtpd_core.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import BinaryIO, Optional, Protocol, Union
    from zlib import _Decompress

    class Decoder(Protocol):
        """What bz2, lzma and compression.zstd have in common: one decoder for one stream."""

        @property
        def eof(self) -> bool:
            """Whether the stream is complete."""

        @property
        def needs_input(self) -> bool:
            """Whether nothing more comes without more octets."""

        @property
        def unused_data(self) -> bytes:
            """What was given and lies behind the end of the stream."""

        def decompress(self, data: bytes, max_length: int = -1) -> bytes:
            """Take octets, give at most so many."""


MAX_PIECE = 1 << 18  # octets that come out of one step
_MAX_HEAD = 10  # octets that tell the compression: bzip2 needs most
_MAX_INPUT = 1 << 15  # octets that go into one step of gzip, or to a program
_SMALL_INPUT = 1 << 6  # into one step of the others: a step that fails takes its output with it

_GZIP = b"\x1f\x8b\x08"
_XZ = b"\xfd7zXZ\0"
_BZIP2 = b"BZh"
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # a block, or the end of an empty stream
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED = b"\x2a\x4d\x18"  # behind 0x50 to 0x5f: a frame with no content


class UnpackError(FormatError):
    """A stream that cannot be unpacked, or not further."""


class Stream:
    """Octets after decompression. kind: gzip, xz, bzip2, zstd, or "" when there is none."""

    __slots__ = ("_failure", "_piece", "_pieces", "_position", "kind")

    def __init__(self, kind: str, pieces: Generator[bytes, None, None]) -> None:
        self.kind = kind
        self._pieces = pieces
        self._piece = b""
        self._position = 0
        self._failure: Optional[UnpackError] = None

    def read(self, count: int) -> bytes:
        """Give up to count octets, at least one before the end, b"" there.

        Raises UnpackError after the last octet of a stream that is cut or damaged, each time.
        """
        if self._position == len(self._piece) and not self._advance():
            return b""
        start = self._position
        octets = self._piece[start : start + count]
        self._position = start + len(octets)
        return octets

    def peek(self, count: int) -> bytes:
        """Give the next octets without taking them: fewer than count where the stream ends."""
        rest = self._piece[self._position :]
        try:
            while len(rest) < count and self._advance():
                rest += self._piece
        except UnpackError:
            pass  # reading comes to it
        self._piece = rest
        self._position = 0
        return rest[:count]

    def drain(self, limit: int) -> int:
        """Read on without giving: what follows an archive, and the checksum over all of it.

        Returns the octets passed over, about limit at most. Raises UnpackError, as read.
        """
        passed = 0
        while passed < limit:
            octets = self.read(MAX_PIECE)
            if not octets:
                break
            passed += len(octets)
        return passed

    def close(self) -> None:
        """Give up what is left; ends the program that unpacks, if there is one."""
        self._pieces.close()
        self._piece = b""
        self._position = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _advance(self) -> bool:
        """Fetch the next piece that is not empty; False at the end."""
        if self._failure is not None:
            raise self._failure
        self._position = 0
        self._piece = b""
        try:
            for piece in self._pieces:
                if piece:
                    self._piece = piece
                    return True
        except UnpackError as failure:
            self._failure = failure
            raise
        return False


def open_stream(
    source: Union[int, BinaryIO],
    *,
    programs_only: bool = False,
    directories: tuple[str, ...] = DIRECTORIES,
) -> Stream:
    """Open what a descriptor or a file holds from here on; it stays the caller's to close.

    With programs_only the host's programs work even where this Python could. Raises UnpackError
    when the first octets cannot be read, or neither Python nor the host knows the compression.
    """
    inlet = _Inlet(source)
    kind = _kind(inlet.peek(_MAX_HEAD))
    if not kind:
        return Stream(kind, _copy(inlet))
    pieces = None if programs_only else _decoding(kind, inlet)
    if pieces is None:
        path = find_program(kind, directories)
        if path is None:
            raise UnpackError(f"this is compressed with {kind}: to read it, install {kind}")
        pieces = _running(kind, path, inlet)
    return Stream(kind, pieces)


def _kind(head: bytes) -> str:
    """Name the compression a stream begins with; "" for none."""
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_XZ):
        return "xz"
    if head.startswith(_ZSTD) or (head[1:4] == _ZSTD_SKIPPED and head[0] >> 4 == 5):
        return "zstd"
    if head.startswith(_BZIP2) and head[3:4].isdigit() and head[4:10] in _BZIP2_BLOCKS:
        return "bzip2"
    return ""


class _Inlet:
    """The compressed octets: read in turn, and put back when too many were taken."""

    __slots__ = ("_back", "_fd", "_file", "offset")

    def __init__(self, source: Union[int, BinaryIO]) -> None:
        self._fd = source if isinstance(source, int) else -1
        self._file = None if isinstance(source, int) else source
        self._back = b""
        self.offset = 0  # octets taken

    def take(self, count: int) -> bytes:
        """Give up to count octets, b"" at the end; raises UnpackError when reading fails."""
        if self._back:
            octets = self._back[:count]
            self._back = self._back[count:]
        else:
            try:
                octets = self._fetch(count)
            except OSError as error:
                reason = f"cannot read past octet {self.offset}: {error.strerror or error}"
                raise UnpackError(reason) from None
        self.offset += len(octets)
        return octets

    def put_back(self, octets: bytes) -> None:
        """Make octets the next to be taken; they were taken last."""
        self._back = octets + self._back
        self.offset -= len(octets)

    def peek(self, count: int) -> bytes:
        """Give the next octets without taking them: fewer than count only at the end."""
        head = b""
        while len(head) < count:
            piece = self.take(count - len(head))
            if not piece:
                break
            head += piece
        self.put_back(head)
        return head

    def _fetch(self, count: int) -> bytes:
        if self._file is not None:
            return self._file.read(count)
        try:
            return os.read(self._fd, count)
        except BlockingIOError:  # a descriptor shared with a program that wants it so
            import select

            select.select([self._fd], [], [])
            return os.read(self._fd, count)


def _copy(inlet: _Inlet) -> Generator[bytes, None, None]:
    octets = inlet.take(MAX_PIECE)
    while octets:
        yield octets
        octets = inlet.take(MAX_PIECE)


def _decoding(kind: str, inlet: _Inlet) -> Optional[Generator[bytes, None, None]]:
    """Begin to decompress in this process; None when this Python lacks the module."""
    try:
        if kind == "gzip":
            import zlib  # noqa: F401  (_inflate imports it again; here it may be missing)

            return _inflate(inlet)
        if kind == "xz":
            from lzma import FORMAT_XZ, LZMADecompressor, LZMAError

            return _decode(kind, inlet, lambda: LZMADecompressor(FORMAT_XZ, MAX_MEMORY), LZMAError)
        if kind == "bzip2":
            from bz2 import BZ2Decompressor

            return _decode(kind, inlet, BZ2Decompressor, OSError)
        if kind == "zstd" and sys.version_info >= (3, 14):
            from compression.zstd import ZstdDecompressor, ZstdError

            return _decode(kind, inlet, ZstdDecompressor, ZstdError)
    except ImportError:  # on Debian's python3-minimal, or where a C library was missing
        pass
    return None


def _inflate(inlet: _Inlet) -> Generator[bytes, None, None]:
    """Undo gzip: one member after another."""
    import zlib

    while _follows("gzip", inlet):
        decoder = zlib.decompressobj(31)
        octets = b""
        piece = b""
        while not decoder.eof:
            # Without new octets, a full piece may not have been all of the old ones.
            octets = octets or inlet.take(_MAX_INPUT)
            if not octets and len(piece) < MAX_PIECE:
                raise UnpackError(f"gzip: cut at octet {inlet.offset}")
            before = decoder.copy()
            try:
                piece = decoder.decompress(octets, MAX_PIECE)
            except zlib.error as error:
                yield _salvage(before, octets)
                raise _damaged("gzip", inlet, error) from None
            octets = decoder.unconsumed_tail
            yield piece
        inlet.put_back(decoder.unused_data)


def _salvage(decoder: _Decompress, octets: bytes) -> bytes:
    """Give what comes before the damage: what the most octets that can be taken make."""
    import zlib

    good, bad = 0, len(octets)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            decoder.copy().decompress(octets[:middle], MAX_PIECE)
            good = middle
        except zlib.error:
            bad = middle
    return decoder.decompress(octets[:good], MAX_PIECE)


def _decode(
    kind: str,
    inlet: _Inlet,
    new_decoder: Callable[[], Decoder],
    error_class: type[Exception],
) -> Generator[bytes, None, None]:
    """Undo xz, bzip2 or zstd: one stream after another."""
    while _follows(kind, inlet):
        decoder = new_decoder()
        taken = b""
        position = 0
        while not decoder.eof:
            if decoder.needs_input and position >= len(taken):
                taken = inlet.take(_MAX_INPUT)
                position = 0
                if not taken:
                    raise UnpackError(f"{kind}: cut at octet {inlet.offset}")
            octets = b""
            if decoder.needs_input:
                octets = taken[position : position + _SMALL_INPUT]
                position += _SMALL_INPUT
            try:
                piece = decoder.decompress(octets, MAX_PIECE)
            except error_class as error:
                inlet.put_back(taken[position:])
                raise _damaged(kind, inlet, error) from None
            yield piece
        inlet.put_back(decoder.unused_data + taken[position:])


def _follows(kind: str, inlet: _Inlet) -> bool:
    """Tell whether another stream of a kind follows, behind zeros that fill up a tape block.

    Raises UnpackError when something else does.
    """
    octets = inlet.take(_MAX_INPUT)
    while octets and not octets.strip(b"\0"):
        octets = inlet.take(_MAX_INPUT)
    inlet.put_back(octets.lstrip(b"\0"))
    head = inlet.peek(_MAX_HEAD)
    if head and _kind(head) != kind:
        raise UnpackError(f"{kind}: the stream ends at octet {inlet.offset}, other octets follow")
    return bool(head)


def _damaged(kind: str, inlet: _Inlet, error: Exception) -> UnpackError:
    """Compose the error for what a module refused."""
    reason = str(error)
    if "emory usage limit" in reason or "too much memory" in reason:
        return UnpackError(f"{kind}: unpacking takes more than {MAX_MEMORY >> 20} MiB of memory")
    return UnpackError(f"{kind}: damaged before octet {inlet.offset} ({escape(reason)})")


def _running(kind: str, path: str, inlet: _Inlet) -> Generator[bytes, None, None]:
    """Let a program of the host undo a compression."""
    try:
        failure = yield from run_filter([kind, "-dc"], path, lambda: inlet.take(_MAX_INPUT))
    except OSError as error:
        raise UnpackError(f"cannot run {path}: {error.strerror}") from None
    if failure:
        raise UnpackError(f"{path} failed before octet {inlet.offset} ({failure})")
