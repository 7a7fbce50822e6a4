"""A spool in the file system: what part of one a directory is, and where its objects are."""

from __future__ import annotations

import errno
import os
import stat

from smtpd_core import ids
from smtpd_core.errors import AccessError
from smtpd_core.queue import layout
from smtpd_core.queue.access import (
    DIRECTORY_FLAGS,
    entries_of,
    is_directory,
    kind_of,
    open_below,
    open_file,
    why,
)
from smtpd_core.queue.sources import Item, Unit, Unreadable
from smtpd_core.queue.walk import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Optional, Union

# To pass through a directory that may not be listed.
_PASS_FLAGS = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC


class OpenBody:
    """The body of a message in a file; see sources.StoredBody."""

    __slots__ = ("_fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        """Take over a descriptor."""
        self._fd = fd
        self.path = path

    def peek(self) -> bytes:
        """Give the first octets, and stay at the beginning."""
        try:
            return os.pread(self._fd, 2, 0)
        except OSError as error:
            raise AccessError(f"{self.path}: {why(error)}") from None

    def read(self, size: int) -> bytes:
        """Read at most so many octets; none at the end. Raises AccessError."""
        try:
            return os.read(self._fd, size)
        except OSError as error:
            raise AccessError(f"{self.path}: {why(error)}") from None

    def seekable(self) -> bool:
        """Say yes: it is a regular file."""
        return True

    def seek(self, offset: int) -> int:
        """Continue at another place."""
        return os.lseek(self._fd, offset, os.SEEK_SET)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


class DirectorySource:
    """A spool, or a part of one, in the file system."""

    parallel = True
    on_read: Optional[Callable[[], None]] = None

    def __init__(self, path: str) -> None:
        """Open a directory and find out what part of a spool it is.

        Raises AccessError when it cannot be read, or is no part of a spool.
        """
        self.path = path
        refusal: Optional[OSError] = None
        try:
            self._fd = open_below(path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW, None)
        except OSError as error:
            refusal = error
            try:
                self._fd = os.open(path, _PASS_FLAGS)
            except OSError:
                raise AccessError(f"{path}: {why(error)}") from None
        self._shape = self._find_shape(refusal)

    def _find_shape(self, refusal: Optional[OSError]) -> str:
        """Tell a `spool`, one of its buckets, a `sub-bucket` of queue/, and a `message`.

        A spool is 0711: whoever owns its queue/ can pass through it, though not list it.
        """
        try:
            with os.scandir(self._fd) as entries:
                names = set()
                has_buckets = False
                for entry in entries:
                    names.add(entry.name)
                    if layout.is_bucket_name(entry.name):
                        has_buckets = has_buckets or is_directory(entry)
        except OSError as error:
            if self._has_queue():
                return "spool"
            raise AccessError(f"{self.path}: {why(refusal or error)}") from None
        own = os.path.basename(os.path.realpath(self.path))
        for shape, recognised in (
            ("spool", not names.isdisjoint(layout.BUCKETS)),
            (own, own in layout.BUCKETS),
            ("queue", has_buckets),
            ("message", any(_belongs_to_message(name) for name in names)),
            ("sub-bucket", any(map(ids.is_msgid_name, names)) or layout.is_bucket_name(own)),
            ("message", ids.is_msgid_name(own)),
        ):
            if recognised:
                return shape
        raise AccessError(f"{self.path}: not a spool of OpenSMTPD, nor a part of one")

    def _has_queue(self) -> bool:
        try:
            return stat.S_ISDIR(os.stat("queue", dir_fd=self._fd, follow_symlinks=False).st_mode)
        except OSError:
            return False

    def units(self, buckets: Iterable[str]) -> list[Unit]:
        """List the pieces to walk; raises AccessError when the source itself cannot be."""
        if self._shape == "message":
            return [Unit("message", ())]
        if self._shape == "sub-bucket":
            return [Unit("queue", ())]
        if self._shape != "spool":
            if self._shape == "queue":
                return self._queue_units(())
            return [Unit(self._shape, ())]
        units: list[Unit] = []
        for bucket in buckets:
            if bucket == "queue":
                units += self._queue_units(("queue",))
            elif self._exists(bucket):
                units.append(Unit(bucket, (bucket,)))
        return units

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # walking it will say what is wrong
        return True

    def _queue_units(self, names: tuple[str, ...]) -> list[Unit]:
        try:
            fd = self._descend(names)
            try:
                buckets = [entry.name for entry in entries_of(fd)]
                if _is_521(fd, buckets):
                    return _units_521(fd, names, buckets)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return []  # a daemon that never started left none
        except OSError as error:
            if names:
                return [Unit("queue", names)]  # walking it will say what is wrong
            raise AccessError(f"{self._path(names)}: {why(error)}") from None
        return [Unit("queue", (*names, bucket)) for bucket in buckets]

    def _is_whole_queue(self, unit: Unit) -> bool:
        """Tell the unit of a queue/ that could not be listed."""
        return self._shape == "spool" and unit.names == ("queue",)

    def _path(self, names: Iterable[str]) -> str:
        return "/".join([self.path.rstrip("/"), *names])

    def _descend(self, names: Iterable[str]) -> int:
        """Open a directory below the source, never through a link; raises OSError."""
        fd = os.dup(self._fd)
        for name in names:
            try:
                below = open_below(name, DIRECTORY_FLAGS, fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def walk(self, unit: Unit, details: bool) -> Iterator[Union[Item, Unreadable]]:
        """Give what a unit holds, by message id and then by envelope id."""
        path = self._path(unit.names)
        try:
            fd = self._descend(unit.names)
        except OSError as error:
            yield self._not_entered(unit, path, details, error)
            return
        if self._is_whole_queue(unit):
            yield from self._walk_queue(fd, unit, details)
            return
        walk = Walk(path, unit.bucket, details)
        try:
            if unit.bucket == "message":
                walk.bucket = "queue"
                yield from walk.message(
                    fd, layout.message_of(os.path.basename(os.path.realpath(path)))[0], path
                )
            elif unit.bucket == "queue" and layout.is_bucket_name("".join(unit.names[-2:-1])):
                yield from walk.message(fd, layout.message_of(unit.names[-1])[0], path)
            elif unit.bucket == "queue":
                name = os.path.basename(os.path.realpath(path))
                yield from walk.queue_bucket(fd, name)
            elif unit.bucket == "offline":
                yield from walk.offline(fd, path, 1)
            else:
                yield from walk.messages(fd, path, "")
        finally:
            os.close(fd)

    def _walk_queue(self, fd: int, unit: Unit, details: bool) -> Iterator[Union[Item, Unreadable]]:
        """Try once more to list queue/, and walk what is in it."""
        try:
            buckets = [entry.name for entry in entries_of(fd)]
        except OSError as error:
            yield Unreadable(self._path(unit.names), why(error))
            return
        finally:
            os.close(fd)
        for bucket in buckets:
            yield from self.walk(Unit("queue", (*unit.names, bucket)), details)

    def _not_entered(
        self, unit: Unit, path: str, details: bool, error: OSError
    ) -> Union[Item, Unreadable]:
        """Read what is a file and no directory; say why anything else cannot be entered."""
        try:
            parent = self._descend(unit.names[:-1])
            try:
                mode = os.stat(unit.names[-1], dir_fd=parent, follow_symlinks=False).st_mode
                if stat.S_ISREG(mode):
                    return Walk(path, unit.bucket, details).stray(parent, unit.names[-1], path)
            finally:
                os.close(parent)
        except (OSError, IndexError):
            return Unreadable(path, why(error))
        return Unreadable(path, why(error) if stat.S_ISDIR(mode) else kind_of(mode))

    def _refusal_of_queue(self) -> Optional[str]:
        """Say why queue/ of a spool cannot be entered; None when it can, or is not there."""
        if self._shape != "spool":
            return None
        try:
            os.close(self._descend(("queue",)))
        except FileNotFoundError:
            return None
        except OSError as error:
            try:
                mode = os.stat("queue", dir_fd=self._fd, follow_symlinks=False).st_mode
            except OSError:
                return why(error)
            is_usual = stat.S_ISDIR(mode) or stat.S_ISREG(mode)
            return why(error) if is_usual else kind_of(mode)
        return None

    def walk_message(self, msgid: int, details: bool) -> Iterator[Union[Item, Unreadable]]:
        """Give what queue/ holds of one message, where this release or 5.2.1 puts it."""
        refusal = self._refusal_of_queue()
        if refusal is not None:  # once, in the name of the message that may be there
            yield Unreadable(self._path(layout.message_path(msgid).split("/")), refusal)
            return
        for names in self._message_directories(msgid):
            try:
                fd = self._descend(names)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    yield Unreadable(self._path(names), why(error))
                continue
            try:
                path = self._path(names)
                yield from Walk(path, "queue", details).message(fd, msgid, path)
            finally:
                os.close(fd)

    def _message_directories(self, msgid: int) -> list[tuple[str, ...]]:
        paths = dict.fromkeys((layout.message_path(msgid), layout.message_path_521(msgid)))
        skipped = {"spool": 0, "queue": 1, "sub-bucket": 2}.get(self._shape)
        if skipped is None:
            return []
        return list(dict.fromkeys(tuple(path.split("/")[skipped:]) for path in paths))

    def open_message(self, msgid: int, buckets: Iterable[str]) -> Optional[OpenBody]:
        """Open the body of a message: where it ought to be, or else anywhere in the buckets.

        Raises AccessError when it is there and cannot be read.
        """
        buckets = tuple(buckets)
        refusal = None
        if "queue" in buckets:
            refusal = self._refusal_of_queue()
            for names in self._message_directories(msgid) if refusal is None else ():
                found = self._open_body(names, layout.MESSAGE)
                if found is not None:
                    return found
        own = ids.format_msgid(msgid)
        for unit in self.units(buckets):
            for path in self._directories_of(unit, own):
                found = self._open_body(path[:-1], path[-1])
                if found is not None:
                    return found
        if refusal is not None:  # where it may have been
            raise AccessError(f"{self._path(('queue',))}: {refusal}")
        return None

    def _open_body(self, names: tuple[str, ...], name: str) -> Optional[OpenBody]:
        path = self._path((*names, name))
        try:
            parent = self._descend(names)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise AccessError(f"{path}: {why(error)}") from None
        try:
            return OpenBody(open_file(name, parent), path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AccessError(f"{path}: {why(error)}") from None
        finally:
            os.close(parent)

    def _directories_of(self, unit: Unit, own: str) -> Iterator[tuple[str, ...]]:
        """Give the places below a unit where the body of a message may be."""
        if unit.bucket == "message":
            if self._shape == "message" and own == os.path.basename(os.path.realpath(self.path)):
                yield (layout.MESSAGE,)
            return
        if unit.names and unit.names[-1].partition(".")[0] == own:
            yield (*unit.names, layout.MESSAGE)
        try:
            fd = self._descend(unit.names)
        except OSError:
            return
        try:
            entries = entries_of(fd)
        except OSError:
            entries = []
        finally:
            os.close(fd)
        for entry in entries:
            if entry.name.partition(".")[0] == own:
                if is_directory(entry):
                    yield (*unit.names, entry.name, layout.MESSAGE)
                else:
                    yield (*unit.names, entry.name)
            elif unit.bucket == "purge" and is_directory(entry):
                yield (*unit.names, entry.name, own, layout.MESSAGE)
                yield (*unit.names, entry.name, own)


def _names_below(fd: int, bucket: str) -> list[str]:
    """List a bucket; an unreadable one is empty, and walking it will say why."""
    try:
        below = open_below(bucket, DIRECTORY_FLAGS, fd)
    except OSError:
        return []
    try:
        return [entry.name for entry in entries_of(below)]
    except OSError:
        return []
    finally:
        os.close(below)


def _is_521(fd: int, buckets: list[str]) -> bool:
    """Tell the layout of 5.2.1, whose buckets are named after the end of message ids."""
    for bucket in filter(layout.is_bucket_name, buckets):
        for name in filter(ids.is_msgid_name, _names_below(fd, bucket)):
            if name[:2] == bucket:
                return False
            if name[6:] == bucket:
                return True
    return False


def _units_521(fd: int, names: tuple[str, ...], buckets: list[str]) -> list[Unit]:
    """Give each message a unit of its own, since their order is not that of the buckets."""
    units = []
    for bucket in buckets:
        below = _names_below(fd, bucket)
        units += [Unit("queue", (*names, bucket, name)) for name in below]
        if not below:
            units.append(Unit("queue", (*names, bucket)))
    return sorted(units, key=lambda unit: unit.names[-1])


def _belongs_to_message(name: str) -> bool:
    return name in (layout.MESSAGE, layout.ENVELOPES_521) or ids.is_evpid_name(name)
