"""Counters of the running daemon; each role counts, the queue role adds up.

Source: the statistics of OpenSMTPD 7.8; unlike there, a key is present before it is touched.
"""

from __future__ import annotations

from typing import Dict, Iterable, Tuple

KEYS = (
    "bounce.envelope",
    "bounce.message",
    "bounce.session",
    "control.session",
    "mda.envelope",
    "mda.pending",
    "mda.running",
    "mda.user",
    "mta.connector",
    "mta.domain",
    "mta.envelope",
    "mta.host",
    "mta.relay",
    "mta.route",
    "mta.session",
    "mta.source",
    "mta.task",
    "mta.task.running",
    "queue.bounce",
    "queue.evpcache.load.hit",
    "queue.evpcache.load.missed",
    "queue.evpcache.size",
    "queue.evpcache.update.hit",
    "queue.evpcache.update.missed",
    "scheduler.delivery.loop",
    "scheduler.delivery.ok",
    "scheduler.delivery.permfail",
    "scheduler.delivery.tempfail",
    "scheduler.envelope",
    "scheduler.envelope.expired",
    "scheduler.envelope.incoming",
    "scheduler.envelope.inflight",
    "scheduler.envelope.removed",
    "scheduler.envelope.updated",
    "scheduler.ramqueue.envelope",
    "scheduler.ramqueue.hold",
    "scheduler.ramqueue.hold-overflow",
    "scheduler.ramqueue.holdq",
    "scheduler.ramqueue.message",
    "scheduler.ramqueue.update",
    "smtp.session",
    "smtp.session.inet4",
    "smtp.session.inet6",
    "smtp.session.local",
    "smtp.smtps",
    "smtp.tls",
)
# Those of a dispatcher that also go down: when it ends, there are none of its things any more.
GAUGES = frozenset(
    key
    for key in KEYS
    if key.startswith(("mda.", "mta.")) or key in ("smtp.session", "smtp.smtps", "smtp.tls")
)
MAX_KEYS = 500  # a role that was taken over must not make up names without end
MAX_KEY = 63


class Stats:
    """Numbers by name; gauges are counters that also go down."""

    def __init__(self) -> None:
        """Start all at zero."""
        self._values: Dict[str, int] = dict.fromkeys(KEYS, 0)
        self._told: Dict[str, int] = dict(self._values)

    def add(self, key: str, by: int = 1) -> None:
        """Count; by may be negative. A new key is left out when there are too many."""
        if self.takes(key):
            self._values[key] = self._values.get(key, 0) + by

    def takes(self, key: str) -> bool:
        """Tell whether a key is known, or there is room for one more."""
        return key in self._values or (len(self._values) < MAX_KEYS and len(key) <= MAX_KEY)

    def set(self, key: str, value: int) -> None:
        """Set a gauge."""
        self.add(key, value - self._values.get(key, 0))

    def get(self, key: str) -> int:
        """Give a value; a key never heard of is 0."""
        return self._values.get(key, 0)

    def items(self) -> Iterable[Tuple[str, int]]:
        """Give all, in the order of their names."""
        return sorted(self._values.items())

    def changes(self) -> Tuple[Tuple[str, int], ...]:
        """Give what changed since the last call."""
        changed = []
        for key, value in self._values.items():
            before = self._told.get(key, 0)
            if value != before:
                changed.append((key, value - before))
                self._told[key] = value
        return tuple(changed)
