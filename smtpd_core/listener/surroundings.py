"""What every part of a listener needs of the daemon around it: clock, chance, log, counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Protocol, Tuple


class Stats(Protocol):
    """Where counters live."""

    def add(self, key: str, by: int = 1) -> None:
        """Count; by may be negative."""


@dataclass(frozen=True)
class Surroundings:
    """Given by the daemon; a test gives numbers and lists.

    clock is seconds since the epoch; zone gives, for a moment, how many seconds local time is
    east of UTC and what it is called; entropy gives so many random octets. log takes a level
    (info, warn, err, crit, debug) and a line; confess is told of our own mistakes.
    """

    clock: Callable[[], int]
    zone: Callable[[int], Tuple[int, str]]
    entropy: Callable[[int], bytes]
    log: Callable[[str, str], None]
    confess: Callable[[BaseException], None]
    stats: Stats

    def new_id(self) -> int:
        """Draw the id of a session or of a message's Message-ID field."""
        return int.from_bytes(self.entropy(8), "big")
