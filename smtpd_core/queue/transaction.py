"""A message on its way into the queue: written, flushed, published, or taken back."""

from __future__ import annotations

from smtpd_core import ids
from smtpd_core.queue import layout
from smtpd_core.queue.disk import DIRECTORY_MODE, FILE_MODE, SpoolError, quietly, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Optional, Protocol

    from smtpd_core.queue.disk import Disk

    class Runner(Protocol):
        """Applies a function to each item, and gives the results in order.

        That is map, or the one of a pool of threads, in which the flushes of several files share
        the work of the disk.
        """

        def __call__(  # noqa: D102
            self, function: Callable[[Any], Optional[OSError]], items: Iterable[Any], /
        ) -> Iterable[Optional[OSError]]: ...

    class Owner(Protocol):
        """Whom a failed flush concerns."""

        def fail(self, path: str, error: OSError) -> None: ...  # noqa: D102


FILES_MAX = 192  # open at once while waiting for their flush: well below a limit of 1024


class Flusher:
    """Gathers what has to reach the disk, so that many flushes can run side by side."""

    __slots__ = ("_disk", "_files", "_run")

    def __init__(self, disk: Disk, run: Runner) -> None:
        """Start with nothing to flush."""
        self._disk = disk
        self._run = run
        self._files: list[tuple[Owner, str, int]] = []

    def add(self, owner: Owner, path: str, handle: int) -> None:
        """Take over an open file; perhaps flush those gathered so far."""
        self._files.append((owner, path, handle))
        if len(self._files) >= FILES_MAX:
            self.files()

    def files(self) -> None:
        """Flush and close the gathered files; tell the owners of those that failed."""
        files, self._files = self._files, []
        try:
            errors = list(self._run(self._flush, [handle for _, _, handle in files]))
        finally:
            for _, _, handle in files:
                self._disk.close(handle)
        for (owner, path, _), error in zip(files, errors):
            if error is not None:
                owner.fail(path, error)

    def directories(self, owners: dict[str, list[Owner]]) -> None:
        """Flush directories; tell the owners of those that failed."""
        paths = list(owners)
        for path, error in zip(paths, self._run(self._flush_directory, paths)):
            if error is not None:
                for owner in owners[path]:
                    owner.fail(path, error)

    def _flush(self, handle: int) -> Optional[OSError]:
        try:
            self._disk.flush(handle)
        except OSError as error:
            return error
        return None

    def _flush_directory(self, path: str) -> Optional[OSError]:
        try:
            self._disk.flush_directory(path)
        except OSError as error:
            return error
        return None


class Transaction:
    """A message on its way into the queue."""

    __slots__ = (
        "_disk",
        "_made",
        "_names",
        "_published",
        "bucket",
        "directory",
        "error",
        "evpids",
        "place",
    )

    def __init__(self, disk: Disk, msgid: int) -> None:
        """Start with nothing on the disk."""
        self._disk = disk
        self._made = False
        self._names: list[str] = []
        self._published = False
        self.directory = f"incoming/{ids.format_msgid(msgid)}"
        self.place = layout.message_path(msgid)
        self.bucket = self.place[: self.place.rindex("/")]
        self.evpids: list[int] = []
        self.error: Optional[SpoolError] = None

    def fail(self, path: str, error: OSError) -> None:
        """Remember the first reason why there will be no message."""
        if self.error is None:
            self.error = refused(path, error)

    def begin(self) -> None:
        """Make the directory; raises OSError."""
        self._disk.mkdir(self.directory, DIRECTORY_MODE)
        self._made = True

    def create(self, name: str, octets: bytes) -> int:
        """Write a file and leave it open; raises OSError."""
        handle = self._disk.create(f"{self.directory}/{name}", FILE_MODE)
        self._names.append(name)
        try:
            self._disk.write(handle, octets)
        except OSError:
            self._disk.close(handle)
            raise
        return handle

    def adopt(self, path: str) -> None:
        """Move a body in that was received into a file; raises OSError."""
        self._disk.rename(path, f"{self.directory}/{layout.MESSAGE}")
        self._names.append(layout.MESSAGE)

    def publish(self, new_buckets: set[str]) -> None:
        """Move the message into the queue; note a bucket that had to be made.

        Raises OSError.
        """
        try:
            self._disk.rename(self.directory, self.place)
        except FileNotFoundError:
            self._disk.mkdir(self.bucket, DIRECTORY_MODE)
            new_buckets.add(self.bucket)  # even when the next step fails
            self._disk.rename(self.directory, self.place)
        self._published = True

    def discard(self) -> None:
        """Take back whatever was done, as far as the disk allows.

        What cannot be removed stays in incoming/, where the next start finds it; what cannot
        even be taken out of the queue is whole, and will be delivered though the sender was told
        to try again.
        """
        try:
            if self._published:
                self._disk.rename(self.place, self.directory)
                self._published = False
        except OSError:
            return
        if not self._made:
            return
        for name in self._names:
            quietly(self._disk.unlink, f"{self.directory}/{name}")
        quietly(self._disk.rmdir, self.directory)
        self._made = False
