"""An envelope as the scheduler holds it, hands it out and lists it."""

from __future__ import annotations

from zlib import crc32

from smtpd_core.queue import retry
from smtpd_core.text import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from smtpd_core.queue.waiting import Waiting

PENDING = "pending"
READY = "ready"
IN_FLIGHT = "inflight"
HELD = "hold"
STATES = (PENDING, READY, IN_FLIGHT, HELD)

SUSPENDED = 1
REMOVED = 2  # by the administrator, and not gone yet


def dispatcher_of(destination: str, count: int) -> int:
    """Choose one of so many dispatchers: always the same for one destination.

    So the limits and penalties of a destination are known in one place.
    """
    return crc32(encode(destination)) % count


class Batch:
    """What goes together: one line, one destination."""

    __slots__ = ("destination", "evpids", "line")

    def __init__(self, line: str, destination: str) -> None:
        """Start without envelopes."""
        self.line = line
        self.destination = destination
        self.evpids: list[int] = []


class Scheduled:
    """An envelope; `place` is its line when ready, its hold queue when held."""

    __slots__ = ("ctime", "destination", "evpid", "expiry", "flags", "kind", "place", "state",
                 "when")  # fmt: skip

    def __init__(self, waiting: Waiting, kind: str, ttl: int) -> None:
        """Let an envelope wait for its first attempt, or the one after those it had."""
        self.evpid = waiting.evpid
        self.kind = kind
        self.destination = waiting.destination
        self.ctime = waiting.ctime
        self.expiry = retry.expiry(waiting.ctime, ttl)
        base = retry.BASE_SECONDS[kind]
        # The same object where it is the same number: there are a great many of these.
        self.when = waiting.ctime
        if waiting.retry:
            self.when = retry.first_try(waiting.ctime, base, waiting.retry)
        self.flags = 0
        self.state = PENDING
        self.place = ""

    @property
    def due(self) -> int:
        """Say when something has to be done with it."""
        return min(self.when, self.expiry)


class Listed:
    """An envelope in a listing: its state, when it is due, and whether it is suspended."""

    __slots__ = ("due", "evpid", "state", "suspended")

    def __init__(self, entry: Scheduled) -> None:
        """Take a picture of an entry."""
        self.evpid = entry.evpid
        self.state = entry.state
        self.due = entry.due
        self.suspended = bool(entry.flags & SUSPENDED)
