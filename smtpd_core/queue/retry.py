"""When an envelope is tried again, when it is given up, when its sender is warned.

All times count from the creation of the envelope, not from the last attempt: the attempts lie on
a grid `ctime + base * n * n`, so that a restart or a clock that was wrong for a while changes
nothing about them. Source: OpenSMTPD 7.8, scheduler_ramqueue.c and queue.c.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Optional

LOCAL = "mda"  # the words of the envelope's field `type`
RELAY = "mta"
BOUNCE = "bounce"
KINDS = (BOUNCE, LOCAL, RELAY)

BASE_SECONDS = {LOCAL: 10, BOUNCE: 10, RELAY: 400}
OVERFLOW_BASE_SECONDS = 3  # for an envelope that found its hold queue full
RETRY_MAX = 0xFFFF  # what the envelope's field holds

DEFAULT_TTL_SECONDS = 4 * 86_400
DEFAULT_WARN_SECONDS = (4 * 3_600,)


def first_try(ctime: int, base_seconds: int, retry: int) -> int:
    """Say when an envelope is due that was just created or just loaded; perhaps in the past."""
    return ctime + base_seconds * retry * retry


def next_try(ctime: int, base_seconds: int, retry: int, now: int) -> int:
    """Say when an envelope is due that failed for the `retry`th time: always later than now."""
    step = max(retry, int((max(0, now - ctime) / base_seconds) ** 0.5) - 1)
    while ctime + base_seconds * step * step <= now:
        step += 1
    return ctime + base_seconds * step * step


def count_retry(retry: int) -> int:
    """Count one more failure, as far as the envelope can hold it."""
    return min(retry + 1, RETRY_MAX)


def expiry(ctime: int, ttl_seconds: int) -> int:
    """Say when an envelope is given up; the lifetime is that of its dispatcher or of the queue."""
    return ctime + ttl_seconds


def warning_due(
    ctime: int, last_bounce: int, next_attempt: int, intervals: Iterable[int]
) -> Optional[int]:
    """Give the interval to warn about after a failure, or None.

    It is the first, as configured, that will have passed before the next attempt, and that no
    warning was sent for. Whoever warns stores `ctime + interval` as the new last_bounce.
    """
    for interval in intervals:
        if last_bounce < ctime + interval <= next_attempt:
            return interval
    return None
