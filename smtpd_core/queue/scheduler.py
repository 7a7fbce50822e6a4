"""What is due, in flight and held: the queue in memory.

An envelope is in one of four states:

    pending     until its next attempt or its expiry, in a heap; or suspended, in none
    ready       in the line of what is to be done with it: remove, expire, bounce, mda, mta
    in flight   handed out; whoever got it says done, try_later, give_back or hold
    held        behind others for the same user or relay, until that is released

Heap and lines are not searched when an envelope leaves them early: what they then hold no longer
agrees with the envelope, and is passed over when it comes to the front. When more than half of
one is of that kind it is built anew, so all operations are logarithmic and memory is bounded.

The caller deletes envelopes from the spool: those of the lines remove and expire, and those that
were delivered. An envelope removed while in flight goes to the line remove when it comes back.
Source: OpenSMTPD 7.8, scheduler.c and scheduler_ramqueue.c.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from smtpd_core.errors import LocalError
from smtpd_core.ids import EVPID_MAX
from smtpd_core.queue import retry
from smtpd_core.queue.ordered import OrderedIds
from smtpd_core.queue.scheduled import (
    HELD,
    IN_FLIGHT,
    PENDING,
    READY,
    REMOVED,
    STATES,
    SUSPENDED,
    Batch,
    Listed,
    Scheduled,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

    from smtpd_core.ids import Selector
    from smtpd_core.queue.waiting import Waiting

REMOVE = "remove"
EXPIRE = "expire"
LINES = (REMOVE, EXPIRE, retry.BOUNCE, retry.LOCAL, retry.RELAY)  # in the order of a turn

DEFAULT_INFLIGHT_MAX = 5000
DEFAULT_SCHEDULE_MAX = 10
HOLD_MAX = 1000  # envelopes behind one user or relay
PROMOTE_MAX = 1024  # envelopes that become ready in one turn
_STALE_MAX = 256  # what a heap or a line may hold in vain, besides as much as it holds in earnest


class Scheduler:
    """The envelopes of a queue, by when something has to be done with them."""

    def __init__(
        self, inflight_max: int = DEFAULT_INFLIGHT_MAX, schedule_max: int = DEFAULT_SCHEDULE_MAX
    ) -> None:
        """Start empty: limits of envelopes in flight, and of those handed out in one turn."""
        self._inflight_max = inflight_max
        self._schedule_max = schedule_max
        self._entries: dict[int, Scheduled] = {}
        self._ids = OrderedIds()
        self._heap: list[int] = []  # due << 64 | evpid
        self._lines: dict[str, deque[int]] = {line: deque() for line in LINES}
        self._ready = dict.fromkeys(LINES, 0)
        self._states = dict.fromkeys(STATES, 0)
        self._holds: dict[str, dict[int, None]] = {}
        self._paused: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, evpid: int) -> bool:
        return evpid in self._entries

    # --- the life of an envelope

    def add(self, waiting: Waiting, ttl: int, kind: str = "") -> bool:
        """Take in an envelope with its lifetime; tell whether it is new.

        `kind` stands for what its dispatcher says it is, where that is known better.
        """
        if waiting.evpid in self._entries:
            return False
        entry = Scheduled(waiting, kind or waiting.kind, ttl)
        self._entries[entry.evpid] = entry
        self._ids.add(entry.evpid)
        self._states[PENDING] += 1
        self._push(entry)
        return True

    def take(self, now: int) -> list[Batch]:
        """Hand out what is to be done now: one of each line in rotation, a turn's worth.

        What goes to the same destination comes in one batch. Nothing when too much is in flight.
        """
        self._promote(now)
        batches: dict[tuple[str, str], Batch] = {}
        room = min(self._schedule_max, self._inflight_max - self._states[IN_FLIGHT])
        while room > 0:
            before = room
            for line in LINES:
                entry = self._first(line) if room > 0 else None
                if entry is None:
                    continue
                room -= 1
                if line == entry.kind and entry.expiry <= now:  # it was paused for too long
                    self._queue_up(entry, EXPIRE)
                    continue
                self._move(entry, IN_FLIGHT)
                key = line, entry.destination
                batches.setdefault(key, Batch(*key)).evpids.append(entry.evpid)
            if room == before:
                break
        return list(batches.values())

    def done(self, evpid: int) -> None:
        """Forget an envelope: it was delivered, bounced or removed, and is gone from the disk."""
        entry = self._entries.pop(evpid, None)
        if entry is None:
            return
        self._leave(entry)
        self._states[entry.state] -= 1
        self._ids.remove(evpid)
        if not self._entries:
            self._heap.clear()

    def try_later(self, evpid: int, count: int, now: int) -> int:
        """Take back an envelope that failed for the countth time; give when it is due again."""
        entry = self._taken(evpid)
        base = retry.BASE_SECONDS[entry.kind]
        entry.when = retry.next_try(entry.ctime, base, count, now)
        self._settle(entry)
        return entry.due

    def give_back(self, evpid: int, now: int) -> None:
        """Take back an envelope that nobody tried, to be handed out again at once."""
        entry = self._taken(evpid)
        entry.when = min(entry.when, now)
        self._settle(entry)

    def hold(self, evpid: int, holdq: str, now: int) -> bool:
        """Put an envelope behind others; False when there are too many, and it waits instead."""
        entry = self._taken(evpid)
        if entry.flags:
            self._settle(entry)
            return True
        held = self._holds.setdefault(holdq, {})
        if len(held) >= HOLD_MAX:
            base = retry.OVERFLOW_BASE_SECONDS
            entry.when = retry.next_try(entry.ctime, base, 0, now)
            self._settle(entry)
            return False
        held[evpid] = None
        self._move(entry, HELD, holdq)
        return True

    def release(self, holdq: str, count: int, now: int) -> int:
        """Make the first so many held envelopes ready, all when count is 0; tell how many."""
        evpids = list(self._holds.get(holdq, ()))
        if count:
            del evpids[count:]
        for evpid in evpids:
            self._make_ready(self._entries[evpid], now)
        return len(evpids)

    def postpone_held(self, holdq: str, now: int) -> int:
        """Give all held envelopes another time, since what they wait for failed."""
        evpids = list(self._holds.get(holdq, ()))
        for evpid in evpids:
            entry = self._entries[evpid]
            base = retry.BASE_SECONDS[entry.kind]
            entry.when = retry.next_try(entry.ctime, base, 0, now)
            self._move(entry, PENDING)
            self._push(entry)
        return len(evpids)

    # --- orders of the administrator; each tells how many envelopes it changed

    def schedule(self, selector: Selector, now: int) -> int:
        """Make envelopes ready, whenever they are due; not those suspended."""
        count = 0
        for entry in self._select(selector):
            if entry.state in (PENDING, HELD) and not entry.flags:
                self._make_ready(entry, now)
                count += 1
        return count

    def remove(self, selector: Selector) -> int:
        """Remove envelopes; one in flight when it comes back, unless it was delivered."""
        count = 0
        for entry in self._select(selector):
            if entry.flags & REMOVED:
                continue
            entry.flags |= REMOVED
            count += 1
            if entry.state != IN_FLIGHT:
                self._queue_up(entry, REMOVE)
        return count

    def suspend(self, selector: Selector) -> int:
        """Keep envelopes from being tried, and from expiring, until they are resumed."""
        count = 0
        for entry in self._select(selector):
            if entry.flags:
                continue
            entry.flags |= SUSPENDED
            count += 1
            if entry.state != IN_FLIGHT:
                self._move(entry, PENDING)
        return count

    def resume(self, selector: Selector) -> int:
        """Undo suspend."""
        count = 0
        for entry in self._select(selector):
            if entry.flags & SUSPENDED:
                entry.flags &= ~SUSPENDED
                count += 1
                if entry.state == PENDING:
                    self._push(entry)
        return count

    def pause(self, kind: str) -> None:
        """Hand out no envelope of a kind until unpause."""
        self._paused.add(kind)

    def unpause(self, kind: str) -> None:
        """Undo pause."""
        self._paused.discard(kind)

    # --- questions

    def wake_time(self, now: int) -> Optional[int]:
        """Say when take has something to give: now, later, or not before something changes."""
        if self._states[IN_FLIGHT] >= self._inflight_max:
            return None
        if any(self._first(line) for line in LINES):
            return now
        while self._heap and self._pending(self._heap[0]) is None:
            heappop(self._heap)
        return max(now, self._heap[0] >> 64) if self._heap else None

    def counts(self) -> dict[str, int]:
        """Tell how many envelopes are in each state."""
        return dict(self._states)

    def walk(self, start: int = 0, end: int = EVPID_MAX + 1) -> Iterator[Listed]:
        """List envelopes in the order of their ids, from one up to another, not included.

        Between two of them anything may happen to the queue.
        """
        for evpid in self._ids.between(start, end):
            yield Listed(self._entries[evpid])

    def find(self, evpid: int) -> Optional[Listed]:
        """Describe one envelope; None when it is not known."""
        entry = self._entries.get(evpid)
        return None if entry is None else Listed(entry)

    # --- how it is done

    def _select(self, selector: Selector) -> list[Scheduled]:
        if selector.evpid is not None:
            entry = self._entries.get(selector.evpid)
            return [] if entry is None else [entry]
        if selector.msgid is None:
            return list(self._entries.values())
        start = selector.msgid << 32
        return [self._entries[evpid] for evpid in self._ids.between(start, start + (1 << 32))]

    def _taken(self, evpid: int) -> Scheduled:
        entry = self._entries.get(evpid)
        if entry is None or entry.state != IN_FLIGHT:
            raise LocalError(f"envelope {evpid:016x} is not in flight")
        return entry

    def _settle(self, entry: Scheduled) -> None:
        """Let an envelope that came back wait, unless it was removed or suspended meanwhile."""
        if entry.flags & REMOVED:
            self._queue_up(entry, REMOVE)
            return
        self._move(entry, PENDING)
        if not entry.flags:
            self._push(entry)

    def _move(self, entry: Scheduled, state: str, place: str = "") -> None:
        self._leave(entry)
        self._states[entry.state] -= 1
        self._states[state] += 1
        entry.state = state
        entry.place = place

    def _leave(self, entry: Scheduled) -> None:
        """Take an envelope out of its line or hold queue."""
        if entry.state == READY:
            self._ready[entry.place] -= 1
        elif entry.state == HELD:
            held = self._holds[entry.place]
            del held[entry.evpid]
            if not held:
                del self._holds[entry.place]

    def _queue_up(self, entry: Scheduled, name: str) -> None:
        """Put an envelope at the end of a line."""
        self._move(entry, READY, name)
        self._ready[name] += 1
        line = self._lines[name]
        line.append(entry.evpid)
        if len(line) > 2 * self._ready[name] + _STALE_MAX:
            kept = [evpid for evpid in dict.fromkeys(line) if self._is_in(evpid, name)]
            self._lines[name] = deque(kept)

    def _make_ready(self, entry: Scheduled, now: int) -> None:
        self._queue_up(entry, EXPIRE if entry.expiry <= now else entry.kind)

    def _is_in(self, evpid: int, name: str) -> bool:
        entry = self._entries.get(evpid)
        return entry is not None and entry.state == READY and entry.place == name

    def _first(self, name: str) -> Optional[Scheduled]:
        """Give the first envelope of a line, and leave it there; None when it has to wait."""
        if name in self._paused:
            return None
        line = self._lines[name]
        while line and not self._is_in(line[0], name):
            line.popleft()
        return self._entries[line[0]] if line else None

    def _push(self, entry: Scheduled) -> None:
        """Put a pending envelope into the heap."""
        heappush(self._heap, entry.due << 64 | entry.evpid)
        if len(self._heap) > 2 * self._states[PENDING] + _STALE_MAX:
            self._heap = [key for key in set(self._heap) if self._pending(key) is not None]
            heapify(self._heap)

    def _pending(self, key: int) -> Optional[Scheduled]:
        """Give the envelope that an item of the heap is about; None when it no longer is."""
        entry = self._entries.get(key & EVPID_MAX)
        if entry is None or entry.state != PENDING or entry.flags or entry.due != key >> 64:
            return None
        return entry

    def _promote(self, now: int) -> None:
        """Make ready what is due."""
        count = 0
        while self._heap and self._heap[0] >> 64 <= now and count < PROMOTE_MAX:
            entry = self._pending(heappop(self._heap))
            if entry is not None:
                self._make_ready(entry, now)
                count += 1
