"""What last happened with mail for each domain, and which envelopes wait for it to get better."""

from __future__ import annotations

from typing import NamedTuple

KEEP_SECONDS = 4 * 3600
MAX_DOMAINS = 10_000  # the one not heard of for longest makes room


class Last(NamedTuple):
    """The last text, and when it came."""

    when: int
    text: str


class HostStats:
    """By recipient domain, in small letters."""

    def __init__(self, max_deferred: int) -> None:
        """Remember at most so many envelopes for each domain."""
        self._max_deferred = max_deferred
        self._last: dict[str, Last] = {}
        self._deferred: dict[str, dict[int, None]] = {}

    def note(self, domain: str, text: str, now: int) -> None:
        """Note the text of an attempt."""
        domain = domain.lower()
        self._last.pop(domain, None)  # so that the oldest stands first
        self._last[domain] = Last(now, text)
        if len(self._last) > MAX_DOMAINS:
            del self._last[next(iter(self._last))]

    def entries(self, now: int) -> list[tuple[str, Last]]:
        """Give what is not too old, by domain."""
        while self._last:
            domain = next(iter(self._last))
            if self._last[domain].when + KEEP_SECONDS > now:
                break
            del self._last[domain]
        return sorted(self._last.items())

    def defer(self, domain: str, evpid: int) -> None:
        """Remember an envelope that failed because all routes were disabled."""
        deferred = self._deferred.setdefault(domain.lower(), {})
        if len(deferred) < self._max_deferred:
            deferred[evpid] = None
        if len(self._deferred) > MAX_DOMAINS:
            del self._deferred[next(iter(self._deferred))]

    def better(self, domain: str) -> list[int]:
        """Give the envelopes to try again because mail for the domain went through; forget them."""
        return list(self._deferred.pop(domain.lower(), ()))
