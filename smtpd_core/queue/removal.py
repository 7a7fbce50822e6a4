"""Envelopes and messages that leave the queue, and what of that is not on the disk yet."""

from __future__ import annotations

from smtpd_core import ids
from smtpd_core.queue import layout
from smtpd_core.queue.disk import quietly, refused
from smtpd_core.queue.transaction import Flusher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from smtpd_core.queue.disk import Disk
    from smtpd_core.queue.transaction import Runner


class Removal:
    """Removes what is done with; see spool.py for the order of the steps."""

    __slots__ = ("_disk", "_retired", "_unsynced", "generation")

    def __init__(self, disk: Disk, generation: str) -> None:
        """Take the directory in purge/ that completed messages go to."""
        self._disk = disk
        self.generation = generation
        self._unsynced: set[str] = set()  # directories in queue/ that envelopes left
        self._retired: dict[str, list[tuple[str, str]]] = {}  # bucket: path in purge/, last name

    def remove(self, evpid: int) -> None:
        """Take an envelope out of the queue, and its message with the last one.

        Any other name beside them, as of an envelope that was set aside, keeps the message.
        Raises SpoolError.
        """
        name = ids.format_evpid(evpid)
        directory = layout.message_path(ids.msgid_of(evpid))
        try:
            names = self._disk.names(directory)
            if name not in names:
                return
            if all(other in (name, layout.MESSAGE) for other in names):
                self._retire(directory, name)
            else:
                self._disk.unlink(f"{directory}/{name}")
                self._unsynced.add(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise refused(f"{directory}/{name}", error) from None

    def _retire(self, directory: str, name: str) -> None:
        """Take a message out of the queue whose last envelope has this name."""
        bucket, _, message = directory.rpartition("/")
        path = f"{self.generation}/{message}"
        try:
            self._disk.rename(directory, path)
        except OSError:
            # No room for a name in purge/: a full disk must not keep what would make room.
            self._disk.unlink(f"{directory}/{name}")
            self._disk.flush_directory(directory)
            quietly(self._disk.unlink, f"{directory}/{layout.MESSAGE}")
            quietly(self._disk.rmdir, directory)
            return
        self._unsynced.discard(directory)
        self._retired.setdefault(bucket, []).append((path, name))

    def sync(self, run: Runner) -> None:
        """Flush what envelopes and messages left, then delete the messages. Raises SpoolError."""
        pending = [_Pending(path) for path in sorted({*self._unsynced, *self._retired})]
        flusher = Flusher(self._disk, run)
        flusher.directories({each.path: [each] for each in pending})
        failed = None
        for each in pending:
            if each.error is not None:
                failed = failed or refused(each.path, each.error)
                continue
            self._unsynced.discard(each.path)
            for path, name in self._retired.pop(each.path, ()):
                quietly(self._disk.unlink, f"{path}/{name}")
                quietly(self._disk.unlink, f"{path}/{layout.MESSAGE}")
                quietly(self._disk.rmdir, path)
        if failed is not None:
            raise failed


class _Pending:
    """A directory waiting for its flush."""

    __slots__ = ("error", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.error: Optional[OSError] = None

    def fail(self, path: str, error: OSError) -> None:
        # A directory that went meanwhile has nothing left to lose.
        if path == self.path and not isinstance(error, FileNotFoundError):
            self.error = error
