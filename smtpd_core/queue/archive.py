"""A spool in a tar archive, read as a stream and never unpacked to disk.

An archive has its members in whatever order the file system had them, so that all envelopes are
kept in memory, as they are stored, until the last is read, and then given in the order of their
ids. What is kept is bounded: where there is more, the listing goes on with what was kept first,
and says so. Of two members with one path the later counts, as when unpacking.
"""

from __future__ import annotations

import os

from smtpd_core import ids, text
from smtpd_core.errors import AccessError, FormatError
from smtpd_core.queue import layout, tar, unpack
from smtpd_core.queue.envelope import ENVELOPE_OCTETS_MAX
from smtpd_core.queue.offline import HEAD_OCTETS_MAX
from smtpd_core.queue.sources import Item, Unit, Unreadable
from smtpd_core.queue.tar_header import BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Optional, Union

KEPT_OCTETS_MAX = 512 << 20  # of envelopes kept for sorting, with what it costs to keep them
_ITEM_OCTETS = 700  # what keeping one item costs beside its octets
_PIECE = 1 << 16
_TRAILER_OCTETS_MAX = 64 << 20  # what is read behind the end of an archive, mostly padding


def begins_archive(descriptor: int) -> bool:
    """Tell whether an open file is a tar archive, compressed or not; moves its position."""
    try:
        with unpack.open_stream(descriptor) as stream:
            return tar.looks_like_tar(stream.peek(BLOCK))
    except FormatError:
        return False


class ArchiveSource:
    """A spool, or any part of one, in an archive."""

    parallel = False

    def __init__(self, path: str, descriptor: int) -> None:
        """Take over a descriptor at its beginning; `-` as path is standard input."""
        self.path = "standard input" if path == "-" else path
        self._descriptor = descriptor
        self._begun = False

    def _members(self) -> Iterator[Union[tar.Member, tar.Damage]]:
        """Start from the beginning; raises AccessError where that cannot be done twice."""
        if self._begun:
            try:
                os.lseek(self._descriptor, 0, os.SEEK_SET)
            except OSError:
                raise AccessError(f"{self.path}: it can be read only once") from None
        self._begun = True
        with unpack.open_stream(self._descriptor) as stream:
            yield from tar.members(stream.read)
            stream.drain(_TRAILER_OCTETS_MAX)  # a checksum at the end is worth reading

    def units(self, buckets: Iterable[str]) -> list[Unit]:
        """Give one unit for the whole archive, which names the buckets wanted."""
        return [Unit("archive", tuple(buckets))]

    def walk(self, unit: Unit, details: bool) -> Iterator[Union[Item, Unreadable]]:  # noqa: ARG002
        """Give what the archive holds of the wanted buckets, by message and envelope id."""
        kept: dict[str, Union[Item, Unreadable]] = {}
        messages = _Messages()
        octets = 0
        recognised = False
        for item in self._items(unit.names, messages):
            recognised = recognised or not isinstance(item, Unreadable)
            kept[item.path] = item
            octets += _ITEM_OCTETS + (len(item.octets) if isinstance(item, Item) else 0)
            if octets > KEPT_OCTETS_MAX:
                yield Unreadable(self.path, "too many envelopes to sort: more follow behind these")
                yield from messages.complete(kept)
                kept.clear()
                octets = 0
        if not recognised and not messages.seen:
            yield Unreadable(self.path, "no spool of OpenSMTPD is in this archive")
        yield from messages.complete(kept)
        yield from messages.judge(unit.names)

    def walk_message(self, msgid: int, details: bool) -> Iterator[Union[Item, Unreadable]]:  # noqa: ARG002
        """Give nothing: an archive has no places, only members."""
        return iter(())

    def _items(
        self, buckets: Iterable[str], messages: _Messages
    ) -> Iterator[Union[Item, Unreadable]]:
        wanted = frozenset(buckets)
        try:
            for member in self._members():
                if isinstance(member, tar.Damage):
                    yield Unreadable(self.path, f"octet {member.offset}: {member.reason}")
                    continue
                if member.kind == "directory":
                    continue
                path = text.decode(member.name)
                place = layout.find_place(path)
                if place is None or place.bucket not in wanted:
                    continue
                item = self._take(member, path, place, messages)
                if item is not None:
                    yield item
        except FormatError as error:
            yield Unreadable(self.path, str(error))

    def _take(
        self, member: tar.Member, path: str, place: layout.Place, messages: _Messages
    ) -> Optional[Union[Item, Unreadable]]:
        shown = f"{self.path}: {path}"
        if member.kind != "file":
            return Unreadable(shown, _KINDS.get(member.kind, "not a regular file"))
        if place.kind == "message":
            messages.note(path, place, member)
            if place.bucket not in ("temporary", "purge") or place.name == layout.MESSAGE:
                return None
            item = Item("body", shown, place.bucket, place.msgid << 32, b"")
            item.message_size = member.size
        elif place.kind == "offline":
            item = Item("offline", shown, place.bucket, 0, member.read(HEAD_OCTETS_MAX))
            item.message_size = max(0, member.size - item.octets.find(b"\n") - 1)
        else:
            evpid = layout.envelope_of(place.name, place.msgid)[0]
            octets = member.read(ENVELOPE_OCTETS_MAX + 1)
            item = Item(place.kind, shown, place.bucket, evpid, octets)
            messages.note_envelope(path, place)
        item.mtime = member.mtime
        item.size = member.size
        item.notes = tuple(place.notes)
        return item

    def open_message(self, msgid: int, buckets: Iterable[str]) -> Optional[ArchiveBody]:
        """Find the body of a message and open it there; None when there is none."""
        wanted = frozenset(buckets)
        for member in self._members():
            if isinstance(member, tar.Damage) or member.kind != "file":
                continue
            path = text.decode(member.name)
            place = layout.find_place(path)
            if place is None or place.kind != "message" or place.bucket not in wanted:
                continue
            if place.msgid == msgid:
                return ArchiveBody(f"{self.path}: {path}", member.read)
        return None


_KINDS = {
    "symlink": "a symbolic link: not followed",
    "hardlink": "a hard link to another member: not followed",
    "fifo": "a FIFO",
    "device": "a device",
    "sparse": "a file with holes: not read",
}


class ArchiveBody:
    """The body of a message in an archive, which can be read once; see sources.StoredBody."""

    __slots__ = ("_head", "_read", "path")

    def __init__(self, path: str, read: Callable[[int], bytes]) -> None:
        """Read through the member that is the body."""
        self.path = path
        self._read = read
        self._head = read(_PIECE)

    def peek(self) -> bytes:
        """Give the first octets, and stay at the beginning."""
        return self._head[:2]

    def read(self, size: int) -> bytes:
        """Read at most so many octets; none at the end."""
        if self._head:
            octets, self._head = self._head[:size], self._head[size:]
            return octets
        try:
            return self._read(size)
        except FormatError as error:
            raise AccessError(f"{self.path}: {error}") from None

    def seekable(self) -> bool:
        """Say no: a stream does not turn back."""
        return False

    def seek(self, offset: int) -> int:
        """Refuse."""
        raise AccessError(f"{self.path}: it can be read only once, not from octet {offset} again")

    def close(self) -> None:
        """Leave the archive open, for its source."""


class _Messages:
    """Which messages have a body and which have envelopes, by the directory they lie in."""

    __slots__ = ("_bodies", "_envelopes", "seen")

    def __init__(self) -> None:
        self._bodies: dict[str, tuple[int, str]] = {}  # directory: size, bucket
        self._envelopes: dict[str, str] = {}  # directory: bucket
        self.seen = False

    def note(self, path: str, place: layout.Place, member: tar.Member) -> None:
        """Take note of a body."""
        self.seen = True
        if place.name == layout.MESSAGE:
            self._bodies[_directory(path)] = (member.size, place.bucket)

    def note_envelope(self, path: str, place: layout.Place) -> None:
        """Take note of an envelope."""
        self._envelopes[_directory(path)] = place.bucket

    def complete(
        self, kept: dict[str, Union[Item, Unreadable]]
    ) -> Iterator[Union[Item, Unreadable]]:
        """Give what was kept, in order, with the sizes of the messages."""
        for key in sorted(kept, key=lambda key: (_evpid(kept[key]), key)):
            item = kept[key]
            if isinstance(item, Item) and item.kind in ("envelope", "stray"):
                directory = _directory(item.path.partition(": ")[2])
                item.message_size = self._bodies.get(directory, (-1, ""))[0]
            yield item

    def judge(self, buckets: Iterable[str]) -> Iterator[Unreadable]:
        """Say which messages lack a body, are empty, or have no envelope; as a walk does."""
        wanted = [bucket for bucket in buckets if bucket in ("queue", "corrupt")]
        for directory, bucket in sorted(self._envelopes.items()):
            if directory not in self._bodies and bucket in wanted:
                yield _message(directory, "the message of these envelopes is missing")
        for directory, (size, bucket) in sorted(self._bodies.items()):
            if bucket not in wanted:
                continue
            if directory not in self._envelopes:
                yield _message(directory, f"a message of {size} octets without any envelope")
            elif size == 0:
                yield _message(directory, "the message of these envelopes is empty")


def _evpid(item: Union[Item, Unreadable]) -> int:
    return item.evpid if isinstance(item, Item) else ids.EVPID_MAX


def _directory(path: str) -> str:
    directory = path.rpartition("/")[0]
    return directory.removesuffix("/" + layout.ENVELOPES_521)


def _message(directory: str, reason: str) -> Unreadable:
    return Unreadable(f"{directory}/{layout.MESSAGE}", reason)
