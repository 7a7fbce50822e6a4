"""One envelope in one file, whatever its name: a source of stored objects."""

from __future__ import annotations

import os

from smtpd_core.errors import AccessError
from smtpd_core.queue import access, layout
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX
from smtpd_core.queue.sources import Item, Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Optional, Union

    from smtpd_core.queue.sources import StoredBody, Unreadable


class FileSource:
    """One envelope in one file, whose name may be anything."""

    parallel = False
    on_read: Optional[Callable[[], None]] = None

    def __init__(self, path: str, descriptor: int) -> None:
        """Take over the descriptor of a regular file."""
        self.path = path
        self._descriptor = descriptor

    def units(self, buckets: Iterable[str]) -> list[Unit]:  # noqa: ARG002  (the one file is it)
        """Give the only unit."""
        return [Unit("queue", ())]

    def walk(self, unit: Unit, details: bool) -> Iterator[Union[Item, Unreadable]]:  # noqa: ARG002
        """Give the envelope."""
        place = layout.find_place(os.path.realpath(self.path))
        name = os.path.basename(self.path)
        evpid, wrong = layout.envelope_of(name, place.msgid if place else 0)
        try:
            octets = os.pread(self._descriptor, ENVELOPE_OCTETS_MAX + 1, 0)
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise AccessError(f"{self.path}: {access.why(error)}") from None
        item = Item("envelope", self.path, "queue", evpid, octets)
        item.mtime = int(status.st_mtime)
        item.size = status.st_size
        if wrong:
            item.notes = (wrong,)
        yield item

    def walk_message(self, msgid: int, details: bool) -> Iterator[Union[Item, Unreadable]]:  # noqa: ARG002
        """Give nothing: there is no place where it ought to be."""
        return iter(())

    def open_message(self, msgid: int, buckets: Iterable[str]) -> Optional[StoredBody]:  # noqa: ARG002
        """Give none: it is an envelope."""
        return None
