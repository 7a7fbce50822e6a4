"""What a start finds in a spool: leftovers are put away, the queue is walked, trouble is told.

Nothing is deleted at once. What was in incoming/ and temporary/ was never promised to anybody,
but may be all that is left of a mail, so it goes to purge/N as in the releases, and is deleted
only PURGE_KEPT_SECONDS later.
"""

from __future__ import annotations

from smtpd_core import ids
from smtpd_core.queue import codec, layout
from smtpd_core.queue.disk import DIRECTORY_MODE, quietly, reason
from smtpd_core.queue.envelope import EnvelopeError
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX
from smtpd_core.queue.waiting import WaitingReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Optional, Union

    from smtpd_core.queue.codec import Key
    from smtpd_core.queue.disk import Disk, Status
    from smtpd_core.queue.waiting import Waiting

PURGE_KEPT_SECONDS = 3600  # time for an operator to notice that a mail is missing
PURGE_NAMES_MAX = 256  # removed before whoever called may do something else
DAMAGED = ".damaged"  # ending of an envelope that was set aside; no release looks at such a name
_DEPTH_MAX = 3  # N/MSGID/envelopes/EVPID
_TRIES_MAX = 20
_WRAPPED = (b"\x01", b"\x1f")  # how encrypted and compressed objects begin


class Trouble:
    """Something in queue/ that is not as it should be; it is left as it is.

    `evpid` is that of an envelope whose content is damaged and that may be set aside, else 0.
    """

    __slots__ = ("evpid", "path", "reason")

    def __init__(self, path: str, reason: str, evpid: int = 0) -> None:
        """Take a path below the spool and one clause that says what is wrong."""
        self.path = path
        self.reason = reason
        self.evpid = evpid


def new_generation(disk: Disk, entropy: Callable[[int], bytes]) -> str:
    """Make a new directory in purge/; raises OSError."""
    for _ in range(_TRIES_MAX):
        path = f"purge/{int.from_bytes(entropy(4), 'big')}"
        try:
            disk.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"no free name in purge/ in {_TRIES_MAX} tries")


def put_away(disk: Disk, entropy: Callable[[int], bytes]) -> None:
    """Move what is in incoming/ and temporary/ to purge/; raises OSError.

    The half-written texts of envelopes go: each envelope is still as it was.
    """
    for bucket in ("temporary", "incoming"):
        generation = ""
        for name in sorted(disk.names(bucket)):
            path = f"{bucket}/{name}"
            if bucket == "incoming" and name.startswith(layout.ENVELOPE_TMP):
                disk.unlink(path)
                continue
            generation = generation or new_generation(disk, entropy)
            disk.rename(path, f"{generation}/{name}")


def purge(disk: Disk, now: int, own: str) -> Iterator[None]:
    """Delete what earlier starts put away long enough ago; `own` is what this start puts away.

    Comes back after every PURGE_NAMES_MAX names. What cannot be deleted is left for another time.
    """
    removed = 0
    for number in _names(disk, "purge"):
        path = f"purge/{number}"
        status = _status(disk, path)
        if not number.isdigit() or path == own or status is None:
            continue
        if status.mtime > now - PURGE_KEPT_SECONDS or not _confirm(disk, path):
            continue
        for _ in _delete(disk, path, 0):
            removed += 1
            if removed % PURGE_NAMES_MAX == 0:
                yield


def _confirm(disk: Disk, generation: str) -> bool:
    """Make sure that messages which were moved here cannot reappear in the queue without body."""
    names = filter(ids.is_msgid_name, _names(disk, generation))
    try:
        for bucket in sorted({f"queue/{name[:2]}" for name in names}):
            if disk.status(bucket) is not None:
                disk.flush_directory(bucket)
    except OSError:
        return False
    return True


def _delete(disk: Disk, path: str, depth: int) -> Iterator[None]:
    """Delete a file or a tree; comes back after each name."""
    status = _status(disk, path)
    if status is None or status.kind != "directory":
        quietly(disk.unlink, path)
    elif depth <= _DEPTH_MAX:
        for name in _names(disk, path):
            yield from _delete(disk, f"{path}/{name}", depth + 1)
        quietly(disk.rmdir, path)
    yield


def _names(disk: Disk, path: str) -> list[str]:
    try:
        return sorted(disk.names(path))
    except OSError:
        return []


def _status(disk: Disk, path: str) -> Optional[Status]:
    try:
        return disk.status(path)
    except OSError:
        return None


class QueueWalk:
    """One walk through queue/, in the order of ids; memory does not grow with the queue."""

    __slots__ = ("_disk", "_key", "_reader")

    def __init__(self, disk: Disk, key: Optional[Key]) -> None:
        """Prepare; the key opens envelopes that are encrypted."""
        self._disk = disk
        self._key = key
        self._reader = WaitingReader()

    def walk(self) -> Iterator[Union[Waiting, Trouble]]:
        """Give each envelope that waits, and each thing that is wrong; raises nothing."""
        for bucket in self._list("queue"):
            if isinstance(bucket, Trouble):
                yield bucket
                continue
            path = f"queue/{bucket}"
            if not layout.is_bucket_name(bucket):
                yield Trouble(path, "it does not belong to a spool")
                continue
            for name in self._list(path):
                if isinstance(name, Trouble):
                    yield name
                elif not ids.is_msgid_name(name):
                    yield Trouble(f"{path}/{name}", "its name is not a message id")
                elif not name.startswith(bucket):
                    yield Trouble(f"{path}/{name}", "it is in the wrong bucket")
                else:
                    yield from self._message(name)

    def message(self, msgid: int) -> Iterator[Union[Waiting, Trouble]]:
        """Give the same for one message; nothing when there is none."""
        return self._message(ids.format_msgid(msgid))

    def _list(self, path: str) -> Iterator[Union[str, Trouble]]:
        try:
            yield from sorted(self._disk.names(path))
        except FileNotFoundError:
            pass  # it was completed meanwhile
        except OSError as error:
            yield Trouble(path, reason(error))

    def _message(self, message: str) -> Iterator[Union[Waiting, Trouble]]:
        path = f"queue/{message[:2]}/{message}"
        body = False
        found = False
        others = False
        for name in self._list(path):
            if isinstance(name, Trouble):
                yield name
                return
            if name == layout.MESSAGE:
                body = True
            elif ids.is_evpid_name(name) and name.startswith(message):
                found = True
                item = self._read(f"{path}/{name}", int(name, 16))
                if item is not None:
                    yield item
            else:
                others = True
                yield Trouble(f"{path}/{name}", _why_passed_over(name))
        if found and not body:
            yield Trouble(path, "the message of these envelopes is missing")
        elif body and not found and not others:
            yield Trouble(path, "a message without any envelope")
        elif not body and not found and not others:
            quietly(self._disk.rmdir, path)  # nothing is lost with it

    def _read(self, path: str, evpid: int) -> Union[Waiting, Trouble, None]:
        try:
            octets = self._disk.load(path, ENVELOPE_OCTETS_MAX + 1)
        except FileNotFoundError:
            return None  # it was completed meanwhile
        except OSError as error:
            return Trouble(path, reason(error))
        if octets.startswith(_WRAPPED):
            try:
                octets, _ = codec.decode_envelope(octets, self._key, ENVELOPE_OCTETS_MAX)
            except codec.CodecError as error:  # perhaps not damaged: the key may be wrong
                return Trouble(path, str(error))
        if len(octets) > ENVELOPE_OCTETS_MAX:
            return Trouble(path, f"too large: more than {ENVELOPE_OCTETS_MAX} octets", evpid)
        try:
            return self._reader.read(evpid, octets)
        except EnvelopeError as error:
            return Trouble(path, str(error), evpid)


def _why_passed_over(name: str) -> str:
    if DAMAGED in name:
        return "a damaged envelope that was set aside"
    if name == layout.ENVELOPES_521:
        return "the envelopes of release 5.2.1: convert the spool to deliver them"
    return "its name is not that of an envelope of this message"
