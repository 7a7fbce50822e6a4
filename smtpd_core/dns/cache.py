"""Answers kept for as long as they are valid, in bounded space."""

from __future__ import annotations

from typing import NamedTuple

from smtpd_core.dns.wire import Question, fold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from smtpd_core.dns.resolve import Answer

MAX_ENTRIES = 10_000  # some 20 MB at the sizes mail asks for
MAX_TTL_SECONDS = 86_400  # a record is asked again after a day, whatever it says
MAX_NEGATIVE_SECONDS = 3_600  # RFC 2308 section 5 suggests one to three hours


class _Entry(NamedTuple):
    answer: Answer
    until: int


class Cache:
    """Answers by question; the one used longest ago makes room for a new one."""

    __slots__ = ("_entries", "_limit")

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        """Keep at most so many answers."""
        self._limit = limit
        self._entries: dict[Question, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Question, now: int) -> Optional[Answer]:
        """Give a valid answer, or None."""
        key = Question(fold(question.name), question.rtype)
        entry = self._entries.pop(key, None)
        if entry is None or entry.until <= now:
            return None
        self._entries[key] = entry  # a dict keeps the order of arrival: oldest use first
        return entry.answer

    def put(self, question: Question, answer: Answer, ttl_seconds: int, now: int) -> None:
        """Keep an answer for its lifetime, cut to the limits above; none at all is not kept."""
        longest = MAX_TTL_SECONDS if answer.records else MAX_NEGATIVE_SECONDS
        ttl_seconds = min(ttl_seconds, longest)
        key = Question(fold(question.name), question.rtype)
        self._entries.pop(key, None)
        if ttl_seconds <= 0 or self._limit <= 0:
            return
        while len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = _Entry(answer, now + ttl_seconds)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
