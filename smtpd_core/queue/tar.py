"""Tar archives as a stream: one member after another, nothing unpacked, nothing sought.

An archive is a row of blocks of 512 octets: a header, the octets of its member filled up to whole
blocks, the next header, and so on until two blocks of zeros. What does not fit a header travels
in members of its own before it: GNU long names (`L`, `K`), pax records (`x` for the next member,
`g` for all that follow). Only the checksum of a header tells it from other octets, so it is also
what finds the next member again behind damage.

What can be survived is a Damage among the members; what cannot, a TarError. A file stored with
holes is put together again and looks like any other: archives made with `tar -S` on file systems
that compress or allocate late hold even small files so.

The walk, its place among the octets and the members it gives share one state: one module.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar
manual, "Basic Tar Format", "GNU Extensions to the Archive Format", "Storing Sparse Files".
"""

from __future__ import annotations

import struct

from smtpd_core.errors import FormatError, LocalError
from smtpd_core.queue.tar_header import (
    BLOCK,
    is_header,
    parse_number,
    parse_pax,
    parse_seconds,
)
from smtpd_core.queue.tar_sparse import (
    SPARSE_MAP,
    SPARSE_NAME,
    SPARSE_REALSIZE,
    SparseFile,
    header_map,
    record_map,
)
from smtpd_core.text import decode, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Optional, Union

MAX_EXTENSION = 1 << 20  # octets of one long name or pax header; real ones have some hundreds
MAX_SIZE = (1 << 63) - 1  # what a file offset holds
MAX_RESYNC = 1 << 26  # octets searched for the next header: more than a mail that servers accept
_MAX_OWNERS = 1024  # remembered combinations of mode and owner; an archive has a handful
_CHUNK = 1 << 18  # octets asked from the source at once

# name; mode, uid, gid; mtime; type; linkname; prefix, which is one in ustar only
_HEADER = struct.Struct("100s24s12x12s8xc100s88x155s12x")
_MAGIC = slice(257, 263)
_USTAR = b"ustar\0"
_ZEROS = bytes(BLOCK)

_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",  # contiguous, on systems that made a difference
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "device",
    b"4": "device",
    b"5": "directory",
    b"6": "fifo",
    b"D": "directory",  # of a GNU incremental dump: a list of names follows
    b"S": "sparse",
}
_WITHOUT_OCTETS = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))  # whatever their size says
_LONG = {b"L": b"path", b"K": b"linkpath"}  # GNU headers that say the same as a pax record
_EXTENSIONS = frozenset((*_LONG, b"x", b"g", b"X"))


class TarError(FormatError):
    """An archive that cannot be read, or not further."""


class Damage:
    """Something in an archive that is wrong and was passed over; offset is where it begins."""

    __slots__ = ("offset", "reason")

    def __init__(self, offset: int, reason: str) -> None:
        self.offset = offset
        self.reason = reason


class Member:
    """One member. Kinds: file directory symlink hardlink fifo device sparse other.

    name and linkname are the octets stored; size is 0 for kinds without octets; mtime is in whole
    seconds; mode has permission bits only; offset is where the header stands. "sparse" is a file
    with holes whose map cannot be trusted: reading it raises TarError.
    """

    __slots__ = (
        "_archive",
        "gid",
        "holes",
        "kind",
        "linkname",
        "mode",
        "mtime",
        "name",
        "offset",
        "size",
        "uid",
    )

    name: bytes
    linkname: bytes
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int

    def __init__(self, archive: _Archive, offset: int) -> None:
        self._archive = archive
        self.holes: Optional[SparseFile] = None
        self.offset = offset

    def read(self, count: int) -> bytes:
        """Give the next octets: count of them while there are so many, b"" past the last one.

        Where the source ends early or fails, gives what is there first. Raises TarError then,
        and for the kind "sparse"; LocalError once the next member was asked for.
        """
        if self._archive.current is not self:
            raise LocalError("a member of an archive is read before the next one is asked for")
        if self.kind == "sparse":
            raise TarError(f"{_shown(self.name)}: its map of holes is damaged")
        if self.holes is not None:
            return self.holes.read(count, self._archive.read_stored)
        return self._archive.read_stored(count)

    def read_all(self, limit: int) -> bytes:
        """Give all octets not read yet; raises TarError when the size passes limit, or as read."""
        if self.size > limit:
            raise TarError(f"{_shown(self.name)}: {self.size} octets, more than {limit}")
        octets = self.read(self.size)
        if len(octets) == self.size:
            return octets
        pieces = [octets]
        while octets:  # ends with the member, or raises where it is cut
            octets = self.read(self.size)
            pieces.append(octets)
        return b"".join(pieces)


def members(read: Callable[[int], bytes]) -> Iterator[Union[Member, Damage]]:
    """Walk an archive; read(n) gives up to n octets, b"" at the end; once it raised, always.

    Stops at the end marker and does not ask for what follows. Raises TarError when the archive
    is cut inside a member, holds no header at all, or none within MAX_RESYNC behind damage;
    lets pass what read raises.
    """
    return _Archive(read).walk()


def looks_like_tar(head: bytes) -> bool:
    """Tell whether the first 512 octets of a file begin an archive, perhaps an empty one."""
    return is_header(head[:BLOCK]) or head[:BLOCK] == _ZEROS


class _Archive:
    """The place reached in an archive, and what earlier headers said about later members."""

    __slots__ = (
        "_base",
        "_buffer",
        "_damages",
        "_ended",
        "_global",
        "_next",
        "_owners",
        "_padding",
        "_position",
        "_read",
        "_seen",
        "current",
        "left",
    )

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._base = 0  # offset of the buffer in the archive
        self._position = 0  # in the buffer
        self.current: Optional[Member] = None
        self.left = 0  # stored octets of the current member not taken yet
        self._padding = 0  # octets between them and the next header
        self._next: dict[bytes, bytes] = {}  # pax records for the next member
        self._global: dict[bytes, bytes] = {}  # and for all members
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._damages: list[Damage] = []  # not given out yet
        self._seen = False  # a header was
        self._ended = False

    def walk(self) -> Iterator[Union[Member, Damage]]:
        """Give members, and before each the damages found on the way to it."""
        while not self._ended:
            try:
                member = self._step()
            except FormatError:
                yield from self._damages
                raise
            if self._damages:
                damages, self._damages = self._damages, []
                yield from damages
            if member is not None:
                self.current = member
                yield member

    def read_stored(self, count: int) -> bytes:
        """Take octets of the current member; TarError when there should be some and are none."""
        count = min(count, self.left)
        start = self._position
        end = start + count
        if start < end <= len(self._buffer):
            self._position = end
            self.left -= count
            return self._buffer[start:end]
        pieces: list[bytes] = []
        while count > 0:
            try:
                if self._position == len(self._buffer) and not self._refill():
                    break
            except FormatError:
                if pieces:
                    break  # what came before it is worth having
                raise
            piece = self._buffer[self._position : self._position + count]
            self._position += len(piece)
            self.left -= len(piece)
            count -= len(piece)
            pieces.append(piece)
        if count > 0 and not pieces:
            raise self._cut()
        return b"".join(pieces)

    def _refill(self) -> bool:
        """Put the next octets of the source in place of those taken; False at its end."""
        self._base += len(self._buffer)
        self._buffer = b""
        self._position = 0
        self._buffer = self._read(_CHUNK)
        return bool(self._buffer)

    def _block(self) -> bytes:
        """Give the next block; a shorter one only at the end of the source."""
        start = self._position
        block = self._buffer[start : start + BLOCK]
        self._position = start + len(block)
        while len(block) < BLOCK and self._refill():
            piece = self._buffer[: BLOCK - len(block)]
            self._position = len(piece)
            block += piece
        return block

    def _skip(self, count: int) -> int:
        """Pass over octets; give how many of them the source did not have."""
        room = len(self._buffer) - self._position
        while count > room:
            count -= room
            if not self._refill():
                return count
            room = len(self._buffer)
        self._position += count
        return 0

    def _cut(self) -> TarError:
        """Compose the error for an archive that ends inside what is being read."""
        end = self._base + len(self._buffer)
        if self.current is None:
            return TarError(f"the archive is cut at octet {end}, inside a header")
        name = _shown(self.current.name)
        return TarError(f"the archive is cut at octet {end}, inside member {name}")

    def _report(self, offset: int, reason: str) -> None:
        self._damages.append(Damage(offset, reason))

    def _step(self) -> Optional[Member]:
        """Read one header; None when it is no member's own, or there is none any more."""
        if self.left or self._padding:
            # Where only padding is missing, no member is hurt; but the next header is missing.
            if self._skip(self.left + self._padding) > self._padding:
                raise self._cut()
            self.left = self._padding = 0
        self.current = None
        offset = self._base + self._position
        block = self._block()
        if not is_header(block):
            offset, block = self._search_header(offset, block)
            if not block:
                self._end(offset)
                return None
        self._seen = True
        try:
            size = parse_number(block[124:136])
        except ValueError:
            size = -1
        if not 0 <= size <= MAX_SIZE:
            self._next = {}
            self._report(offset, "a header whose size is not a number of octets")
            return None
        flag = block[156:157]
        if flag in _EXTENSIONS:
            self._extension(flag, size, offset)
            return None
        return self._member(block, size, offset)

    def _search_header(self, start: int, block: bytes) -> tuple[int, bytes]:
        """Find the header behind a block that is none; b"" in its place when there is none.

        All that is passed over is reported, but not a whole end marker.
        """
        offset = start
        reason = "a single block of zeros" if block == _ZEROS else "no header, or a damaged one"
        zeros = 0  # octets of a block of zeros just before this one
        while len(block) == BLOCK and not is_header(block):
            if zeros and block == _ZEROS:
                self._report_passed(start, offset - zeros, reason)
                return offset - zeros, b""
            zeros = BLOCK if block == _ZEROS else 0
            offset += BLOCK
            if offset - start > MAX_RESYNC:
                raise TarError(f"octet {start}: {reason}, and none in {MAX_RESYNC} octets")
            block = self._block()
        if len(block) == BLOCK:
            self._report_passed(start, offset, reason)
            return offset, block
        end = offset + len(block)
        if not block.strip(b"\0"):
            self._report_passed(start, offset - zeros, reason)
        elif offset == start:
            raise self._cut()
        else:
            self._report_passed(start, end, reason)
        self._report(end, "the archive ends without its end marker: there may have been more")
        return end, b""

    def _report_passed(self, start: int, end: int, reason: str) -> None:
        if end > start:
            self._report(start, f"{reason}: {end - start} octets passed over")

    def _end(self, offset: int) -> None:
        """Note that no header follows; TarError when there is something, but never was one."""
        self._ended = True
        if self._next:
            self._report(offset, "a header that describes a member, and no member")
        if self._damages and not self._seen:
            self._damages.clear()
            raise TarError("not a tar archive: it holds no header")

    def _extension(self, flag: bytes, size: int, offset: int) -> None:
        """Take in what a header says about the next member, or about all that follow."""
        self.left = size
        self._padding = -size % BLOCK
        if size > MAX_EXTENSION:
            self._report(offset, f"{size} octets about the next member: passed over")
            return
        octets = self.read_stored(size)
        if self.left:
            raise self._cut()
        if flag in _LONG:
            self._next[_LONG[flag]] = octets.partition(b"\0")[0]
            return
        records, problem = parse_pax(octets)
        (self._global if flag == b"g" else self._next).update(records)
        if problem:
            self._report(offset, f"pax header: {problem}")

    def _member(self, block: bytes, size: int, offset: int) -> Member:
        """Make a member from its header and from what was said about it before."""
        name, owner, mtime, flag, linkname, prefix = _HEADER.unpack(block)
        member = Member(self, offset)
        name = name.partition(b"\0")[0]
        if prefix[0] and block[_MAGIC] == _USTAR:
            name = prefix.partition(b"\0")[0] + b"/" + name
        member.name = name
        member.linkname = linkname.partition(b"\0")[0] if linkname[0] else b""
        member.mode, member.uid, member.gid = self._owners.get(owner) or self._owner(owner, offset)
        try:
            member.mtime = parse_number(mtime)
        except ValueError:
            member.mtime = 0
            self._report(offset, f"{_shown(name)}: its time is not a number")
        records = self._next
        if records or self._global:
            records = {**self._global, **records}
            self._next = {}
            size = _amend(member, records, size)
        member.kind = _KINDS.get(flag, "other")
        if member.kind == "file" and member.name[-1:] == b"/":
            member.kind = "directory"  # version 7 had no type for it
            size = 0
        elif flag in _WITHOUT_OCTETS:
            size = 0
        member.size = self.left = size
        self._padding = -size % BLOCK
        if flag == b"S" or (
            member.kind == "file" and (SPARSE_MAP in records or SPARSE_REALSIZE in records)
        ):
            self._open_holes(member, block, records)
        return member

    def _owner(self, octets: bytes, offset: int) -> tuple[int, int, int]:
        """Read mode, uid and gid; what is no number is reported, and 0."""
        numbers = []
        for start in (0, 8, 16):
            try:
                numbers.append(parse_number(octets[start : start + 8]))
            except ValueError:
                numbers.append(0)
                self._report(offset, "a mode or an owner that is not a number")
        if len(self._owners) >= _MAX_OWNERS:
            self._owners.clear()
        owner = self._owners[octets] = (numbers[0] & 0o7777, numbers[1], numbers[2])
        return owner

    def _open_holes(self, member: Member, block: bytes, records: dict[bytes, bytes]) -> None:
        """Read the map of a file with holes, after which it is a file like others."""
        try:
            if block[156:157] == b"S":
                numbers, size = header_map(block, self._whole_block)
            else:
                numbers, size = record_map(records, self.read_stored)
            member.holes = SparseFile(numbers, size, self.left)
        except FormatError:
            raise  # the source ends here, or fails
        except ValueError:
            member.kind = "sparse"
            self._report(member.offset, f"{_shown(member.name)}: its map of holes is damaged")
        else:
            member.kind = "file"
            member.size = size

    def _whole_block(self) -> bytes:
        block = self._block()
        if len(block) < BLOCK:
            raise self._cut()
        return block


def _amend(member: Member, records: dict[bytes, bytes], size: int) -> int:
    """Put pax records in place of what the header said; give the size stored."""
    member.name = records.get(SPARSE_NAME) or records.get(b"path") or member.name
    member.linkname = records.get(b"linkpath") or member.linkname
    for key, value in records.items():
        if not value:
            continue
        if key == b"mtime":
            member.mtime = parse_seconds(value)
        elif key == b"uid":
            member.uid = int(value)
        elif key == b"gid":
            member.gid = int(value)
        elif key == b"size":
            size = int(value)
    return size


def _shown(name: bytes) -> str:
    """Spell a name so that it can stand in a sentence for a terminal."""
    return escape(decode(name))
