"""New texts of envelopes, put into the place of older ones or beside them, never in part."""

from __future__ import annotations

import errno

from smtpd_core import ids
from smtpd_core.queue import layout
from smtpd_core.queue.disk import FILE_MODE, SpoolError, quietly, refused
from smtpd_core.queue.transaction import Flusher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional, Union

    from smtpd_core.queue.disk import Disk
    from smtpd_core.queue.transaction import Owner, Runner


class Replacement:
    """A new text of an envelope on its way to its place."""

    __slots__ = ("_added", "_placed", "_stored", "directory", "error", "evpid", "path", "temporary")

    def __init__(self, evpid: int, stored: Union[bytes, SpoolError], added: bool = False) -> None:
        """Take what is to be stored, or why there is nothing; for an envelope, or a new one."""
        name = ids.format_evpid(evpid)
        self._added = added
        self._placed = False
        self._stored = b""
        self.evpid = evpid
        self.directory = layout.message_path(ids.msgid_of(evpid))
        self.path = f"{self.directory}/{name}"
        self.temporary = f"incoming/{layout.ENVELOPE_TMP}.{name}"
        self.error: Optional[SpoolError] = None
        if isinstance(stored, SpoolError):
            self.error = stored
        else:
            self._stored = stored

    def fail(self, path: str, error: OSError) -> None:
        """Remember the first reason why the envelope was not replaced."""
        if self.error is None:
            self.error = refused(path, error)

    def write(self, disk: Disk, flusher: Flusher) -> None:
        """Write the text beside the queue, to be flushed; raises OSError and SpoolError."""
        exists = disk.status(self.path) is not None
        if not exists and not self._added:
            raise SpoolError(f"{self.path}: there is no such envelope", temporary=False)
        if exists and self._added:
            raise OSError(errno.EEXIST, "an envelope of this id exists")
        try:
            handle = disk.create(self.temporary, FILE_MODE)
        except FileExistsError:  # one that could not be taken back
            disk.unlink(self.temporary)
            handle = disk.create(self.temporary, FILE_MODE)
        try:
            disk.write(handle, self._stored)
        except OSError:
            disk.close(handle)
            raise
        flusher.add(self, self.path, handle)

    def place(self, disk: Disk) -> None:
        """Give the text its name in the queue; raises OSError."""
        disk.rename(self.temporary, self.path)
        self._placed = True

    def discard(self, disk: Disk) -> None:
        """Take an envelope out again that was added; never one that was there before."""
        if self._added and self._placed:
            quietly(disk.unlink, self.path)


def replace_envelopes(disk: Disk, replacements: Sequence[Replacement], run: Runner) -> None:
    """Write, flush, rename, flush; each that fails carries its error and changed nothing.

    An error of the very last step may leave the new text in place: whole, perhaps not for good.
    """
    flusher = Flusher(disk, run)
    for each in replacements:
        if each.error is None:
            try:
                each.write(disk, flusher)
            except OSError as error:
                each.fail(each.path, error)
            except SpoolError as error:
                each.error = error
    flusher.files()
    owners: dict[str, list[Owner]] = {}
    for each in replacements:
        if each.error is None:
            try:
                each.place(disk)
                owners.setdefault(each.directory, []).append(each)
            except OSError as error:
                each.fail(each.path, error)
    flusher.directories(owners)
    for each in replacements:
        if each.error is not None:
            quietly(disk.unlink, each.temporary)
