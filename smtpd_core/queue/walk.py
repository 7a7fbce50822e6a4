"""Walk the directories of a spool and read its objects, without changing anything.

The spool may be hostile or may be changing meanwhile. Every directory is opened below the
descriptor of its parent and never through a link; only what the directory itself calls a regular
file is opened, without blocking and without becoming a controlling terminal, so that neither a
FIFO nor a device can hold us up. Nothing is written, locked or stamped: times of access stay as
they are wherever the system lets us say so (O_NOATIME is for the owner of a file and for root).
All is a stream: memory does not grow with the spool, only with its largest directory.
"""

from __future__ import annotations

import os

from smtpd_core import ids
from smtpd_core.queue import layout
from smtpd_core.queue.access import (
    DIRECTORY_FLAGS,
    FILE_FLAGS,
    describe,
    entries_of,
    entry_name,
    is_directory,
    is_file,
    open_below,
    open_file,
    why,
)
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX, OFFLINE_HEAD_OCTETS_MAX
from smtpd_core.queue.sources import Item, Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional, Union

_FIRST_READ = 8192  # holds all but the strangest envelopes


class Walk:
    """One walk through a unit: what all its steps share."""

    __slots__ = ("bucket", "details", "path")

    def __init__(self, path: str, bucket: str, details: bool) -> None:
        """Start at a directory; with details, times and sizes are looked up."""
        self.path = path
        self.bucket = bucket
        self.details = details

    def queue_bucket(self, fd: int, name: str) -> Iterator[Union[Item, Unreadable]]:
        """Walk one of the directories of queue/."""
        if layout.is_bucket_name(name):
            yield from self.messages(fd, self.path, name)
        elif ids.is_msgid_name(name):
            yield Unreadable(self.path, layout.NO_BUCKET)
            yield from self.message(fd, layout.message_of(name)[0], self.path)
        else:
            yield Unreadable(self.path, layout.FOREIGN)
            yield from self.messages(fd, self.path, "")

    def messages(self, fd: int, path: str, sub: str) -> Iterator[Union[Item, Unreadable]]:
        """Walk a directory that holds those of messages; `sub` is its name below queue/."""
        try:
            entries = entries_of(fd)
        except OSError as error:
            yield Unreadable(path, why(error))
            return
        for entry in entries:
            below = f"{path}/{entry.name}"
            if not is_directory(entry):
                yield from self._outside(fd, entry, below)
                continue
            try:
                directory = open_below(entry.name, DIRECTORY_FLAGS, fd)
            except OSError as error:
                yield Unreadable(below, why(error))
                continue
            try:
                if self.bucket == "purge" and entry.name.isdigit() and not sub:
                    yield from self.messages(directory, below, entry.name)
                    continue
                msgid, wrong = layout.message_of(entry.name)
                if self.bucket == "queue" and sub and msgid and not wrong:
                    wrong = layout.wrong_bucket(msgid, sub)
                if wrong:
                    yield Unreadable(below, wrong)
                yield from self.message(directory, msgid, below)
            finally:
                os.close(directory)

    def _outside(
        self, fd: int, entry: os.DirEntry[str], path: str
    ) -> Iterator[Union[Item, Unreadable]]:
        """Give a file that lies where the directories of messages are."""
        msgid = layout.message_of(entry.name)[0]
        if not is_file(entry):
            yield Unreadable(path, describe(entry))
        elif msgid and self.bucket in ("temporary", "purge"):
            yield self._body(entry, path, msgid)
        else:
            yield self.stray(fd, entry.name, path)

    def stray(self, fd: int, name: str, path: str) -> Union[Item, Unreadable]:
        """Read a file that lies outside of the directory of a message."""
        item = self._read(fd, name, path, 0, -1)
        if isinstance(item, Item):
            item.kind = "stray"
            item.notes = item.notes or (layout.OUTSIDE,)
        return item

    def _body(self, entry: os.DirEntry[str], path: str, msgid: int) -> Item:
        item = Item("body", path, self.bucket, msgid << 32, b"")
        item.size = item.message_size = _size(entry)
        item.mtime = _mtime(entry)
        return item

    def message(self, fd: int, msgid: int, path: str) -> Iterator[Union[Item, Unreadable]]:
        """Walk the directory of one message; the id is 0 when its name is none."""
        body = None
        names: list[str] = []
        odd: list[os.DirEntry[str]] = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.name == layout.MESSAGE:
                        body = entry
                    elif is_file(entry):
                        names.append(entry.name)
                    else:
                        odd.append(entry)
        except OSError as error:
            yield Unreadable(path, why(error))
            return
        names.sort()
        found = bool(names)
        size = -1 if body is None or not is_file(body) else _size(body)
        for envelope in names:
            yield self._read(fd, envelope, f"{path}/{envelope}", msgid, size)
        if found and size > 0 and not odd:
            return  # nothing unusual, as nearly always
        odd.sort(key=entry_name)
        named = any(map(ids.is_evpid_name, names))
        for item in self._odd(fd, odd, path, msgid, size):
            found = True
            named = named or (isinstance(item, Item) and item.kind == "envelope")
            yield item
        where = f"{path}/{layout.MESSAGE}"
        reason = self._judge(body, size, found, named)
        if reason is not None:
            yield Unreadable(where, reason)
        elif body is not None and not found:
            yield self._body(body, where, msgid)

    def _odd(
        self, fd: int, odd: list[os.DirEntry[str]], path: str, msgid: int, size: int
    ) -> Iterator[Union[Item, Unreadable]]:
        """Give what is no file in the directory of a message; 5.2.1 has its envelopes there."""
        for entry in odd:
            if entry.name == layout.ENVELOPES_521 and is_directory(entry):
                yield from self._envelopes_521(fd, f"{path}/{entry.name}", msgid, size)
            else:
                yield Unreadable(f"{path}/{entry.name}", describe(entry))

    def _judge(
        self, body: Optional[os.DirEntry[str]], size: int, found: bool, named: bool
    ) -> Optional[str]:
        """Say what is wrong with a message that has files, and perhaps one named as an envelope."""
        if body is None:
            return layout.WITHOUT_BODY if named and self.bucket in layout.COMPLETE else None
        if not is_file(body):
            return describe(body)
        if found:
            return None if size else layout.EMPTY_BODY
        return layout.without_envelope(size) if self.bucket in layout.COMPLETE else None

    def _envelopes_521(
        self, parent: int, path: str, msgid: int, size: int
    ) -> Iterator[Union[Item, Unreadable]]:
        try:
            fd = open_below(layout.ENVELOPES_521, DIRECTORY_FLAGS, parent)
        except OSError as error:
            yield Unreadable(path, why(error))
            return
        try:
            for entry in entries_of(fd):
                below = f"{path}/{entry.name}"
                if not is_file(entry):
                    yield Unreadable(below, describe(entry))
                    continue
                yield self._read(fd, entry.name, below, msgid, size)
        except OSError as error:
            yield Unreadable(path, why(error))
        finally:
            os.close(fd)

    def _read(
        self, parent: int, name: str, path: str, msgid: int, message_size: int
    ) -> Union[Item, Unreadable]:
        """Read one envelope, or what may be one."""
        evpid, wrong = layout.envelope_of(name, msgid)
        try:
            fd = open_below(name, FILE_FLAGS, parent)
            try:
                octets = os.read(fd, _FIRST_READ)
                if len(octets) == _FIRST_READ:
                    octets += _read_rest(fd, ENVELOPE_OCTETS_MAX + 1 - len(octets))
                status = os.fstat(fd) if self.details else None
            finally:
                os.close(fd)
        except OSError as error:
            return Unreadable(path, why(error))
        item = Item("envelope", path, self.bucket, evpid, octets)
        item.message_size = message_size
        if status is not None:
            item.mtime = int(status.st_mtime)
            item.size = status.st_size
        if wrong:
            item.kind = "envelope" if ids.is_evpid_name(name) else "stray"
            item.notes = (wrong,)
        return item

    def offline(self, fd: int, path: str, depth: int) -> Iterator[Union[Item, Unreadable]]:
        """Walk offline/: its files, and in 5.7 one level of directories."""
        try:
            entries = entries_of(fd)
        except OSError as error:
            yield Unreadable(path, why(error))
            return
        for entry in entries:
            below = f"{path}/{entry.name}"
            if is_directory(entry) and depth:
                try:
                    directory = open_below(entry.name, DIRECTORY_FLAGS, fd)
                except OSError as error:
                    yield Unreadable(below, why(error))
                    continue
                try:
                    yield from self.offline(directory, below, depth - 1)
                finally:
                    os.close(directory)
            elif is_file(entry):
                yield self._offline_file(fd, entry.name, below)
            else:
                yield Unreadable(below, describe(entry))

    def _offline_file(self, parent: int, name: str, path: str) -> Union[Item, Unreadable]:
        try:
            fd = open_file(name, parent)
            try:
                status = os.fstat(fd)
                octets = _read_rest(fd, OFFLINE_HEAD_OCTETS_MAX)
            finally:
                os.close(fd)
        except OSError as error:
            return Unreadable(path, why(error))
        item = Item("offline", path, self.bucket, 0, octets)
        item.mtime = int(status.st_mtime)
        item.size = status.st_size
        item.message_size = max(0, status.st_size - octets.find(b"\n") - 1)
        return item


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return -1


def _mtime(entry: os.DirEntry[str]) -> int:
    try:
        return int(entry.stat(follow_symlinks=False).st_mtime)
    except OSError:
        return 0


def _read_rest(fd: int, limit: int) -> bytes:
    """Read to the end of a file, or at most so many octets."""
    pieces = []
    while limit > 0:
        piece = os.read(fd, min(limit, 65536))
        if not piece:
            break
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)
