"""What a source of stored objects offers, and how a file of a spool is opened safely.

A source offers *units*, the pieces of a spool that can be walked on their own and one after the
other in the order of message ids (a bucket of queue/, or one of the other directories), and
walk() gives what a unit holds: an Item for each object, an Unreadable for each thing that could
not be read or does not belong there. Nothing is an exception that would end the listing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Optional, Protocol, Union

    class StoredBody(Protocol):
        """The body of a message as it is stored, open at its beginning; see codec.Stored."""

        path: str

        def peek(self) -> bytes:
            """Give the first octets, at least two if there are, and stay at the beginning."""

        def read(self, size: int, /) -> bytes:
            """Read at most so many octets; none at the end. Raises AccessError."""

        def seekable(self) -> bool:
            """Tell whether it can be read twice."""

        def seek(self, offset: int, /) -> int:
            """Go back to the beginning, or elsewhere."""

        def close(self) -> None:
            """Let go of it."""

    class Source(Protocol):
        """What directories and archives offer alike."""

        path: str  # as the operator named it
        on_read: Optional[Callable[[], None]]  # called while nothing can be given yet
        parallel: bool  # whether units can be walked by several processes at once

        def units(self, buckets: Iterable[str]) -> list[Unit]:
            """List the pieces to walk, in the order in which to walk them."""

        def walk(self, unit: Unit, details: bool) -> Iterator[Union[Item, Unreadable]]:
            """Give what a unit holds; with details, also times and sizes."""

        def walk_message(self, msgid: int, details: bool) -> Iterator[Union[Item, Unreadable]]:
            """Give what queue/ holds of one message, where it ought to be; perhaps nothing."""

        def open_message(self, msgid: int, buckets: Iterable[str]) -> Optional[StoredBody]:
            """Open the body of a message; None when there is none. Raises AccessError."""


class Item:
    """One object of a spool, as it is stored.

    `kind` is `envelope`; `stray`, a file whose name is not an envelope's but that may be one;
    `offline`, a mail handed in while the daemon was down; or `body`, one without envelopes
    beside it. `octets` are the stored form of an envelope, the beginning of an offline file,
    empty for a body. `mtime` and `size` are 0 without details; `message_size` is the stored size
    of the message, -1 when it is not known. `notes` say what is wrong with name and place.
    """

    __slots__ = (
        "bucket",
        "evpid",
        "kind",
        "message_size",
        "mtime",
        "notes",
        "octets",
        "path",
        "size",
    )

    def __init__(self, kind: str, path: str, bucket: str, evpid: int, octets: bytes) -> None:
        """Describe an object without anything wrong and without details."""
        self.kind = kind
        self.path = path
        self.bucket = bucket
        self.evpid = evpid
        self.octets = octets
        self.mtime = 0
        self.size = 0
        self.message_size = -1
        self.notes: tuple[str, ...] = ()


class Unreadable:
    """Something that could not be read, or is not where a spool would have it."""

    __slots__ = ("path", "reason")

    def __init__(self, path: str, reason: str) -> None:
        """Take the path as the operator can find it, and one clause that says why."""
        self.path = path
        self.reason = reason


class Unit:
    """A piece of a spool: which bucket it is of, and its directories below the source."""

    __slots__ = ("bucket", "names")

    def __init__(self, bucket: str, names: tuple[str, ...]) -> None:
        """Name the bucket and the way to the directory."""
        self.bucket = bucket
        self.names = names
