"""A spool in a tar archive, read as a stream and never unpacked to disk.

An archive has its members in whatever order the file system had them, so that all envelopes are
kept in memory, as they are stored, until the last is read, and then given in order. What is kept
is bounded: where there is more, the listing goes on with what was kept first, and says so; from
there on nothing is called missing, since it may be on the other side. Of two members with one path
the later counts, as when unpacking.

The module is longer than others: what is kept, and how it is given back as a walk through a
directory would give it, is one rule with the walk that keeps it.
"""

from __future__ import annotations

import os
import sys

from smtpd_core import ids, text
from smtpd_core.errors import AccessError, FormatError
from smtpd_core.queue import layout, tar, unpack
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX, OFFLINE_HEAD_OCTETS_MAX
from smtpd_core.queue.sources import Item, Unit, Unreadable
from smtpd_core.queue.tar_header import BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Optional, Union

KEPT_OCTETS_MAX = 512 << 20  # of memory for what is kept for sorting, but for one member more
_ITEM_OCTETS = 1200  # what keeping one item or message costs beside its octets and its path
_SPOOLS_MAX = 1000  # past these, what lies in no spool is not told from what does
_BARE_MAX = 1000  # bodies, and envelopes, outside of named directories that are matched
_FILE, _ODD, _BODY = "0", "1", "2"  # in a message: its files, what is none, then its body
_PIECE = 1 << 16
_TRAILER_OCTETS_MAX = 64 << 20  # what is read behind the end of an archive, mostly padding


def begins_archive(descriptor: int) -> bool:
    """Tell whether an open file is a tar archive, compressed or not; moves its position."""
    try:
        with unpack.open_stream(descriptor) as stream:
            if stream.kind not in ("", "gzip"):
                return True  # no envelope is stored so; reading it will say what is wrong
            return tar.looks_like_tar(stream.peek(BLOCK))
    except unpack.UnpackError:
        return True  # what would unpack it is not installed


class ArchiveSource:
    """A spool, or any part of one, in an archive."""

    parallel = False
    on_read: Optional[Callable[[], None]] = None

    def __init__(self, path: str, descriptor: int, kept_max: int = KEPT_OCTETS_MAX) -> None:
        """Take over a descriptor at its beginning; `-` as path is standard input."""
        self.path = "standard input" if path == "-" else path
        self._descriptor = descriptor
        self._kept_max = kept_max
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
        """Give what the archive holds of the wanted buckets, in the order of a directory's walk."""
        kept = _Kept(self.path, unit.names)
        for damage in self._take_members(kept, frozenset(unit.names)):
            if damage is not None:
                yield damage
            elif kept.octets > self._kept_max:
                yield Unreadable(self.path, "too many envelopes to sort: more follow behind these")
                kept.cut = True
                kept.judge()
                yield from kept.release()
        kept.judge()
        yield from kept.release()
        if not kept.seen:
            yield Unreadable(self.path, "no spool of OpenSMTPD is in this archive")

    def walk_message(self, msgid: int, details: bool) -> Iterator[Union[Item, Unreadable]]:  # noqa: ARG002
        """Give nothing: an archive has no places, only members."""
        return iter(())

    def _take_members(self, kept: _Kept, wanted: frozenset[str]) -> Iterator[Optional[Unreadable]]:
        """Keep what belongs to the wanted buckets; give a turn after each, and what is damaged."""
        try:
            for member in self._members():
                if self.on_read is not None:
                    self.on_read()
                if isinstance(member, tar.Damage):
                    yield Unreadable(self.path, f"octet {member.offset}: {member.reason}")
                    continue
                path = text.decode(member.name)
                # A directory counts for its name alone: what is wrong on the way to a file in it.
                place = layout.find_place(path + "/-" if member.kind == "directory" else path)
                kept.seen = kept.seen or place is not None
                if place is None and member.kind == "file" and "queue" in wanted:
                    kept.take_bare(path, member.size)
                    yield None
                if place is not None and place.bucket in wanted:
                    kept.take(member, place)
                    yield None
        except FormatError as error:
            yield Unreadable(self.path, str(error))

    def open_message(self, msgid: int, buckets: Iterable[str]) -> Optional[ArchiveBody]:
        """Find the body of a message and open it there; None when there is none."""
        wanted = frozenset(buckets)
        damage = ""
        bare = _Bare(msgid)
        members = self._members()
        try:
            for member in members:
                if isinstance(member, tar.Damage):
                    damage = damage or f"octet {member.offset}: {member.reason}"
                    continue
                path = text.decode(member.name)
                if member.kind == "file" and (
                    _is_body(path, msgid, wanted) or ("queue" in wanted and bare.is_body(path))
                ):
                    return ArchiveBody(f"{self.path}: {path}", member.read, members)
            if bare.directory is not None:
                return self._open_bare(bare.directory)
        except FormatError as error:
            damage = damage or str(error)
        if damage:  # where the message may have been
            raise AccessError(f"{self.path}: {damage}")
        return None

    def _open_bare(self, directory: str) -> Optional[ArchiveBody]:
        """Open the body in a directory that an envelope behind it has told the message of."""
        members = self._members()
        for member in members:
            if isinstance(member, tar.Member) and member.kind == "file":
                path = text.decode(member.name)
                if path.endswith(layout.MESSAGE) and layout.bare_directory(path) == directory:
                    return ArchiveBody(f"{self.path}: {path}", member.read, members)
        return None


def _is_body(path: str, msgid: int, wanted: frozenset[str]) -> bool:
    """Tell the body of a message by where it lies."""
    place = layout.find_place(path)
    if place is None or place.kind != layout.MESSAGE or place.bucket not in wanted:
        return False
    return place.msgid == msgid


class _Bare:
    """Finds the body of one message where no directory has its name, but an envelope beside it."""

    __slots__ = ("_bodies", "_msgid", "_owned", "directory")

    def __init__(self, msgid: int) -> None:
        self._msgid = msgid
        self._bodies: set[str] = set()  # directories with a body
        self._owned: set[str] = set()  # directories with an envelope of the message
        self.directory: Optional[str] = None  # where both were found, the envelope behind

    def is_body(self, path: str) -> bool:
        """Take the path of a file; tell whether it is the body."""
        directory = layout.bare_directory(path)
        if directory is None:
            return False
        name = path.rpartition("/")[2]
        if name == layout.MESSAGE:
            if directory in self._owned:
                return True
            if len(self._bodies) < _BARE_MAX:
                self._bodies.add(directory)
        elif layout.envelope_of(name, 0)[0] >> 32 == self._msgid:
            if directory in self._bodies:
                self.directory = directory
            if len(self._owned) < _BARE_MAX:
                self._owned.add(directory)
        return False


_KINDS = {
    "symlink": "a symbolic link: not followed",
    "hardlink": "a hard link to another member: not followed",
    "fifo": "a FIFO: not opened",
    "device": "a device: not opened",
    "sparse": "a file with holes: not read",
}


class ArchiveBody:
    """The body of a message in an archive, which can be read once; see sources.StoredBody."""

    __slots__ = ("_archive", "_head", "_read", "path")

    def __init__(self, path: str, read: Callable[[int], bytes], archive: Iterator[object]) -> None:
        """Read through the member that is the body, while the walk of its archive is held."""
        self.path = path
        self._archive = archive  # which closes the stream when nobody holds it any more
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


class _Message:
    """What is known of a message when all its members were seen."""

    __slots__ = ("bucket", "found", "msgid", "mtime", "named", "odd", "shown", "size")

    def __init__(self, place: layout.Place, shown: str) -> None:
        self.bucket = place.bucket
        self.msgid = place.msgid
        self.shown = shown  # the path of its body
        self.size = -1  # of the body; -1 when there is none
        self.mtime = 0
        self.odd = ""  # what stands in place of the body
        self.found = False  # whether there is anything else
        self.named = False  # whether a file is named as an envelope


class _Kept:
    """What was found in an archive, until it can be given in order.

    The order is that of a walk through directories: it must not matter to an operator which of
    the two is listed. A key spells it: the spool, the bucket, then each part of the path behind a
    digit, which puts what is no file behind the files of its message.
    """

    __slots__ = (
        "_bare",
        "_items",
        "_messages",
        "_path",
        "_ranks",
        "_spools",
        "cut",
        "octets",
        "seen",
    )

    def __init__(self, path: str, buckets: tuple[str, ...]) -> None:
        self._path = path
        self._ranks = {bucket: str(rank) for rank, bucket in enumerate(buckets)}
        self._items: dict[str, tuple[Union[Item, Unreadable], str]] = {}  # with its message's key
        self._messages: dict[str, _Message] = {}
        self._spools: set[str] = set()  # those in which something is as daemons leave it
        self._bare: dict[str, int] = {}  # sizes of bodies in directories without a message's name
        self.octets = 0
        self.cut = False  # whether some of it was given before the end
        self.seen = False  # whether anything belongs to a spool at all

    def take(self, member: tar.Member, place: layout.Place) -> None:
        """Keep one member, and what is wrong with the directories on the way to it."""
        message = self._message(place)
        for depth, reason in place.wrong:
            self._keep_directory(place, depth, reason)
        if member.kind == "directory" or place.kind == "hidden":
            return
        shown = self._shown(place.parts)
        is_body = message is not None and place.kind == layout.MESSAGE
        if member.kind != "file":
            reason = _KINDS.get(member.kind, "not a regular file")
            if message is not None and is_body:
                message.odd = reason
            else:
                self._keep(place, _ODD, Unreadable(shown, reason))
            return
        if message is not None and is_body:
            message.size, message.mtime, message.odd = member.size, member.mtime, ""
        else:
            self._keep(place, _FILE, _item(member, place, shown))
        if message is not None and place.kind == "envelope":
            message.named = True
        as_left = place.kind in ("envelope", layout.MESSAGE) and not place.notes and not place.wrong
        if as_left and len(self._spools) < _SPOOLS_MAX:
            self._spools.add("/".join(place.parts[: place.spool]))

    def take_bare(self, path: str, size: int) -> None:
        """Keep the size of a body that may belong to envelopes beside it, wherever that is."""
        directory = layout.bare_directory(path)
        if directory is not None and path.endswith(layout.MESSAGE):
            self._bare[directory] = size
            self.octets += _ITEM_OCTETS + sys.getsizeof(directory)

    def _keep_directory(self, place: layout.Place, depth: int, reason: str) -> None:
        """Keep what is wrong with a directory."""
        parts = place.parts[:depth]
        message = self._message(place)
        if message is not None and parts[place.message :] == [layout.MESSAGE]:
            message.odd = reason
            return
        way = layout.Place(place.bucket, parts, place.spool)
        way.message = place.message if depth > place.message else 0
        self._keep(way, _ODD, Unreadable(self._shown(parts), reason))

    def _keep(self, place: layout.Place, kind: str, item: Union[Item, Unreadable]) -> None:
        """Keep something; of two with one path the later counts."""
        of_message = ""
        message = self._message(place)
        if message is not None:
            message.found = True
            of_message = self._key(place, place.message)
        key = self._key(place, len(place.parts), kind)
        other = self._key(place, len(place.parts), _ODD if kind == _FILE else _FILE)
        if other != key:
            self._items.pop(other, None)
        self._items[key] = item, of_message
        self.octets += _ITEM_OCTETS + sys.getsizeof(key) + sys.getsizeof(item.path)
        self.octets += len(item.octets) if isinstance(item, Item) else 0

    def _message(self, place: layout.Place) -> Optional[_Message]:
        """Give the message that a file belongs to."""
        if not place.message:
            return None
        key = self._key(place, place.message)
        message = self._messages.get(key)
        if message is None:
            body = [*place.parts[: place.message], layout.MESSAGE]
            message = self._messages[key] = _Message(place, self._shown(body))
            self.octets += _ITEM_OCTETS + sys.getsizeof(key) + sys.getsizeof(message.shown)
        return message

    def _shown(self, parts: list[str]) -> str:
        return f"{self._path}: {'/'.join(parts)}"

    def _key(self, place: layout.Place, depth: int, kind: str = _ODD) -> str:
        """Spell the place of so many parts of a path in the order."""
        keys = [_ODD + part for part in place.parts[place.spool : depth]]
        if place.message and depth == place.message + 1:
            keys[-1] = kind + place.parts[depth - 1]
        return "\0".join(["/".join(place.parts[: place.spool]), self._ranks[place.bucket], *keys])

    def judge(self) -> None:
        """Say which messages lack a body, are empty, or have no envelope; as a walk does."""
        for key, message in self._messages.items():
            judged = _judge(message, self.cut)
            if judged is not None:
                self._items[f"{key}\0{_BODY}"] = judged, key

    def release(self) -> Iterator[Union[Item, Unreadable]]:
        """Give what was kept, in order, with the sizes of the messages, and forget it.

        Where there is a spool, whatever else has directories of such names is left out.
        """
        layouts = self._layouts()
        ordered = []
        for key, (item, of_message) in self._items.items():
            spool = key.partition("\0")[0]
            if 0 < len(self._spools) < _SPOOLS_MAX and spool not in self._spools:
                continue
            if of_message and layouts.get(spool) == "5.2.1":  # by message, not by bucket
                *head, bucket, name = of_message.split("\0")
                key = "\0".join([*head, name, bucket]) + key[len(of_message) :]  # noqa: PLW2901
            if isinstance(item, Item) and of_message and item.kind != "body":
                item.message_size = self._messages[of_message].size
            elif isinstance(item, Item) and self._bare and item.kind == "envelope":
                directory = layout.bare_directory(item.path[len(self._path) + 2 :])
                if directory is not None:
                    item.message_size = self._bare.get(directory, -1)
            ordered.append((key, item))
        ordered.sort(key=_order)
        self._items.clear()
        self._messages.clear()
        self._bare.clear()
        self.octets = 0
        for _, item in ordered:
            yield item

    def _layouts(self) -> dict[str, str]:
        """Tell the layout of each spool from the first message that shows it."""
        layouts: dict[str, str] = {}
        for key in sorted(self._messages):
            spool, *way = key.split("\0")
            bucket, name = "".join(way[-2:-1])[1:], way[-1][1:]
            if spool not in layouts and layout.is_bucket_name(bucket) and ids.is_msgid_name(name):
                if name[:2] == bucket:
                    layouts[spool] = "5.3"
                elif name[6:] == bucket:
                    layouts[spool] = "5.2.1"
        return layouts


def _order(keyed: tuple[str, Union[Item, Unreadable]]) -> str:
    return keyed[0]


def _item(member: tar.Member, place: layout.Place, shown: str) -> Item:
    """Make an item of a file, by what its place says it is."""
    if place.kind == layout.MESSAGE:  # on its own, in temporary/
        item = Item("body", shown, place.bucket, place.msgid << 32, b"")
        item.message_size = member.size
    elif place.kind == "offline":
        item = Item("offline", shown, place.bucket, 0, member.read(OFFLINE_HEAD_OCTETS_MAX))
        item.message_size = max(0, member.size - item.octets.find(b"\n") - 1)
    else:
        evpid = layout.envelope_of(place.name, place.msgid)[0]
        octets = member.read(ENVELOPE_OCTETS_MAX + 1)
        item = Item(place.kind, shown, place.bucket, evpid, octets)
    item.mtime = member.mtime
    item.size = member.size
    item.notes = tuple(place.notes)
    return item


def _judge(message: _Message, cut: bool) -> Optional[Union[Item, Unreadable]]:
    """Say what is wrong with a message as a whole; give its body when it stands for it.

    Where some of it may have been cut off nothing is said to be missing.
    """
    complete = message.bucket in layout.COMPLETE
    if message.odd:
        return Unreadable(message.shown, message.odd)
    if message.size < 0:
        missing = message.named and complete and not cut
        return Unreadable(message.shown, layout.WITHOUT_BODY) if missing else None
    if message.found:
        return None if message.size else Unreadable(message.shown, layout.EMPTY_BODY)
    if complete:
        reason = layout.without_envelope(message.size)
        return None if cut else Unreadable(message.shown, reason)
    item = Item("body", message.shown, message.bucket, message.msgid << 32, b"")
    item.mtime = message.mtime
    item.size = item.message_size = message.size
    return item
