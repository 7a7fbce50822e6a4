"""The scheduler: a naive one over a dictionary agrees with it, whatever happens."""

from __future__ import annotations

import tracemalloc
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smtpd_core.errors import LocalError
from smtpd_core.ids import EVPID_MAX, Selector
from smtpd_core.queue import retry
from smtpd_core.queue.ordered import OrderedIds
from smtpd_core.queue.scheduled import dispatcher_of
from smtpd_core.queue.scheduler import HOLD_MAX, LINES, PROMOTE_MAX, Scheduler
from smtpd_core.queue.waiting import Waiting

NOW = 1_700_000_000
TTL = 4 * 86_400
ALL = Selector()


def waiting(evpid: int, kind: str = "mta", destination: str = "example.org") -> Waiting:
    made = Waiting(evpid, kind, "action", destination)
    made.ctime = NOW
    return made


def taken(scheduler: Scheduler, now: int = NOW) -> list[tuple[str, str, list[int]]]:
    return [(batch.line, batch.destination, batch.evpids) for batch in scheduler.take(now)]


# --- against a model


class Known:
    """What the model knows of an envelope."""

    def __init__(self, kind: str, destination: str, expiry: int, when: int) -> None:
        self.kind = kind
        self.destination = destination
        self.expiry = expiry
        self.when = when
        self.state = "pending"
        self.place = ""
        self.suspended = False
        self.removed = False

    @property
    def due(self) -> int:
        return min(self.when, self.expiry)


MSGIDS = (1, 2, 3)
evpids = st.builds(lambda msgid, low: msgid << 32 | low, st.sampled_from(MSGIDS), st.integers(1, 6))
selectors = st.one_of(
    st.just(ALL),
    st.builds(lambda msgid: Selector(msgid=msgid), st.sampled_from(MSGIDS)),
    st.builds(lambda evpid: Selector(evpid=evpid), evpids),
)
holdqs = st.sampled_from(["relay:a", "user:b"])


class Machine(RuleBasedStateMachine):
    @initialize(inflight=st.integers(2, 8), turn=st.integers(1, 5))
    def start(self, inflight: int, turn: int) -> None:
        self.real = Scheduler(inflight, turn)
        self.inflight_max, self.turn = inflight, turn
        self.known: dict[int, Known] = {}
        self.lines: dict[str, list[int]] = {line: [] for line in LINES}
        self.holds: dict[str, list[int]] = {}
        self.paused: set[str] = set()
        self.now = NOW

    # what the model does

    def leave(self, evpid: int) -> None:
        for line in self.lines.values():
            if evpid in line:
                line.remove(evpid)
        for held in self.holds.values():
            if evpid in held:
                held.remove(evpid)

    def move(self, evpid: int, state: str, place: str = "") -> None:
        self.leave(evpid)
        self.known[evpid].state, self.known[evpid].place = state, place
        if state == "ready":
            self.lines[place].append(evpid)
        elif state == "hold":
            self.holds.setdefault(place, []).append(evpid)

    def make_ready(self, evpid: int) -> None:
        known = self.known[evpid]
        self.move(evpid, "ready", "expire" if known.expiry <= self.now else known.kind)

    def settle(self, evpid: int) -> None:
        if self.known[evpid].removed:
            self.move(evpid, "ready", "remove")
        else:
            self.move(evpid, "pending")

    def selected(self, selector: Selector) -> list[int]:
        return [evpid for evpid in self.order(selector) if selector.matches(evpid)]

    def order(self, selector: Selector) -> list[int]:
        """Give all in the order of arrival for `all`, of their ids for one message."""
        return list(self.known) if selector.msgid is None else sorted(self.known)

    def in_flight(self) -> list[int]:
        return [evpid for evpid, known in self.known.items() if known.state == "inflight"]

    # the rules

    @rule(
        evpid=evpids,
        kind=st.sampled_from(["mta", "mda", "bounce"]),
        destination=st.sampled_from(["a", "b"]),
        count=st.integers(0, 3),
        ttl=st.integers(0, 3000),
    )
    def add(self, evpid: int, kind: str, destination: str, count: int, ttl: int) -> None:
        made = waiting(evpid, kind, destination)
        made.ctime, made.retry = self.now, count
        assert self.real.add(made, ttl) == (evpid not in self.known)
        if evpid not in self.known:
            when = self.now + {"mta": 400}.get(kind, 10) * count * count
            self.known[evpid] = Known(kind, destination, self.now + ttl, when)
            self.known[evpid].ctime = self.now  # type: ignore[attr-defined]

    @rule(seconds=st.integers(1, 500))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        due = [
            (known.due, evpid)
            for evpid, known in self.known.items()
            if known.state == "pending" and not known.suspended and known.due <= self.now
        ]
        for _, evpid in sorted(due):
            self.make_ready(evpid)
        expected: dict[tuple[str, str], list[int]] = {}
        room = min(self.turn, self.inflight_max - len(self.in_flight()))
        progress = True
        while room > 0 and progress:
            progress = False
            for line in LINES:
                if room <= 0 or line in self.paused or not self.lines[line]:
                    continue
                progress = True
                room -= 1
                evpid = self.lines[line][0]
                known = self.known[evpid]
                if line == known.kind and known.expiry <= self.now:
                    self.move(evpid, "ready", "expire")
                else:
                    self.move(evpid, "inflight")
                    expected.setdefault((line, known.destination), []).append(evpid)
        found = {(line, where): got for line, where, got in taken(self.real, self.now)}
        assert found == expected
        assert list(found) == list(expected)

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data(), how=st.sampled_from(["done", "later", "back"]), count=st.integers(0, 5))
    def come_back(self, data: st.DataObject, how: str, count: int) -> None:
        evpid = data.draw(st.sampled_from(self.in_flight()))
        known = self.known[evpid]
        if how == "done":
            self.real.done(evpid)
            self.real.done(evpid)  # no error
            self.leave(evpid)
            del self.known[evpid]
        elif how == "later":
            base = {"mta": 400}.get(known.kind, 10)
            known.when = retry.next_try(known.ctime, base, count, self.now)  # type: ignore[attr-defined]
            self.settle(evpid)
            assert self.real.try_later(evpid, count, self.now) == known.due
        else:
            known.when = min(known.when, self.now)
            self.settle(evpid)
            self.real.give_back(evpid, self.now)

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data(), holdq=holdqs)
    def hold(self, data: st.DataObject, holdq: str) -> None:
        evpid = data.draw(st.sampled_from(self.in_flight()))
        assert self.real.hold(evpid, holdq, self.now)
        if self.known[evpid].removed or self.known[evpid].suspended:
            self.settle(evpid)
        else:
            self.move(evpid, "hold", holdq)

    @rule(holdq=holdqs, count=st.integers(0, 3))
    def release(self, holdq: str, count: int) -> None:
        released = list(self.holds.get(holdq, []))[: count or None]
        assert self.real.release(holdq, count, self.now) == len(released)
        for evpid in released:
            self.make_ready(evpid)

    @rule(holdq=holdqs)
    def postpone_held(self, holdq: str) -> None:
        held = list(self.holds.get(holdq, []))
        assert self.real.postpone_held(holdq, self.now) == len(held)
        for evpid in held:
            known = self.known[evpid]
            base = {"mta": 400}.get(known.kind, 10)
            known.when = retry.next_try(known.ctime, base, 0, self.now)  # type: ignore[attr-defined]
            self.move(evpid, "pending")

    @rule(selector=selectors)
    def schedule(self, selector: Selector) -> None:
        count = 0
        for evpid in self.selected(selector):
            known = self.known[evpid]
            if known.state in ("pending", "hold") and not known.suspended:
                self.make_ready(evpid)
                count += 1
        assert self.real.schedule(selector, self.now) == count

    @rule(selector=selectors)
    def remove(self, selector: Selector) -> None:
        count = 0
        for evpid in self.selected(selector):
            known = self.known[evpid]
            if not known.removed:
                count += 1
                known.removed = True
                if known.state != "inflight":
                    self.move(evpid, "ready", "remove")
        assert self.real.remove(selector) == count

    @rule(selector=selectors)
    def suspend(self, selector: Selector) -> None:
        count = 0
        for evpid in self.selected(selector):
            known = self.known[evpid]
            if not known.suspended and not known.removed:
                count += 1
                known.suspended = True
                if known.state != "inflight":
                    self.move(evpid, "pending")
        assert self.real.suspend(selector) == count

    @rule(selector=selectors)
    def resume(self, selector: Selector) -> None:
        count = sum(self.known[evpid].suspended for evpid in self.selected(selector))
        for evpid in self.selected(selector):
            self.known[evpid].suspended = False
        assert self.real.resume(selector) == count

    @rule(kind=st.sampled_from(["mta", "mda"]), paused=st.booleans())
    def pause(self, kind: str, paused: bool) -> None:
        if paused:
            self.real.pause(kind)
            self.paused.add(kind)
        else:
            self.real.unpause(kind)
            self.paused.discard(kind)

    @rule(start=evpids, end=evpids)
    def walk(self, start: int, end: int) -> None:
        expected = [evpid for evpid in sorted(self.known) if start <= evpid < end]
        assert [listed.evpid for listed in self.real.walk(start, end)] == expected

    # what holds at all times

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "real"):
            return
        listed = {each.evpid: (each.state, each.due, each.suspended) for each in self.real.walk()}
        assert listed == {
            evpid: (known.state, known.due, known.suspended) for evpid, known in self.known.items()
        }
        assert list(listed) == sorted(self.known)
        assert len(self.real) == len(self.known)
        states = [known.state for known in self.known.values()]
        assert self.real.counts() == {
            state: states.count(state) for state in ("pending", "ready", "inflight", "hold")
        }

    @invariant()
    def wakes_when_it_should(self) -> None:
        if not hasattr(self, "real"):
            return
        times = [
            known.due
            for known in self.known.values()
            if known.state == "pending" and not known.suspended
        ]
        expected: Optional[int] = max(self.now, min(times)) if times else None
        if any(held for line, held in self.lines.items() if line not in self.paused):
            expected = self.now
        if len(self.in_flight()) >= self.inflight_max:
            expected = None
        assert self.real.wake_time(self.now) == expected


TestAgainstTheModel = Machine.TestCase
TestAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- one by one


def test_one_of_each_line_in_rotation() -> None:
    scheduler = Scheduler(schedule_max=5)
    for low in range(1, 5):
        scheduler.add(waiting(0x100000000 | low, "mta"), TTL)
        scheduler.add(waiting(0x200000000 | low, "mda", "bob"), TTL)
        scheduler.add(waiting(0x300000000 | low, "bounce", ""), TTL)
    scheduler.remove(Selector(evpid=0x100000001))
    assert taken(scheduler) == [
        ("remove", "example.org", [0x100000001]),
        ("bounce", "", [0x300000001, 0x300000002]),
        ("mda", "bob", [0x200000001]),
        ("mta", "example.org", [0x100000002]),
    ]


def test_what_goes_to_one_place_goes_together() -> None:
    scheduler = Scheduler()
    for low, domain in enumerate(["a.org", "b.org", "a.org", "b.org"], 1):
        scheduler.add(waiting(low, destination=domain), TTL)
    assert taken(scheduler) == [("mta", "a.org", [1, 3]), ("mta", "b.org", [2, 4])]


def test_nothing_more_when_too_much_is_in_flight() -> None:
    scheduler = Scheduler(inflight_max=3)
    for low in range(1, 10):
        scheduler.add(waiting(low), TTL)
    assert taken(scheduler) == [("mta", "example.org", [1, 2, 3])]
    assert taken(scheduler) == []
    assert scheduler.wake_time(NOW) is None
    scheduler.done(2)
    assert taken(scheduler) == [("mta", "example.org", [4])]


def test_an_envelope_that_is_too_old_expires() -> None:
    scheduler = Scheduler()
    scheduler.add(waiting(1), 1000)
    assert taken(scheduler) == [("mta", "example.org", [1])]
    assert scheduler.try_later(1, 2, NOW) == NOW + 1000
    assert scheduler.wake_time(NOW) == NOW + 1000
    assert taken(scheduler, NOW + 999) == []
    assert taken(scheduler, NOW + 1000) == [("expire", "example.org", [1])]


def test_a_hold_queue_that_is_full() -> None:
    scheduler = Scheduler(inflight_max=HOLD_MAX + 1, schedule_max=HOLD_MAX + 1)
    for low in range(1, HOLD_MAX + 2):
        scheduler.add(waiting(low), TTL)
    scheduler.take(NOW)  # the promotion of one turn
    for low in range(1, HOLD_MAX + 1):
        assert scheduler.hold(low, "relay", NOW)
    assert not scheduler.hold(HOLD_MAX + 1, "relay", NOW)
    found = scheduler.find(HOLD_MAX + 1)
    assert found is not None
    assert (found.state, found.due) == ("pending", NOW + 3)
    assert scheduler.release("relay", 10, NOW) == 10
    assert scheduler.release("relay", 0, NOW) == HOLD_MAX - 10
    assert scheduler.release("relay", 0, NOW) == 0
    assert scheduler.counts() == {"pending": 1, "ready": HOLD_MAX, "inflight": 0, "hold": 0}


def test_a_turn_promotes_a_bounded_number() -> None:
    scheduler = Scheduler()
    for low in range(1, PROMOTE_MAX + 100):
        scheduler.add(waiting(low), TTL)
    scheduler.take(NOW)
    assert scheduler.counts()["pending"] == 99


def test_the_kind_that_the_dispatcher_gives_counts() -> None:
    scheduler = Scheduler()
    scheduler.add(waiting(1, "mda", "bob"), TTL, "mta")
    assert taken(scheduler) == [("mta", "bob", [1])]
    assert scheduler.try_later(1, 1, NOW) == NOW + 400


def test_only_what_is_in_flight_comes_back() -> None:
    scheduler = Scheduler()
    scheduler.add(waiting(1), TTL)
    for act in (
        lambda: scheduler.try_later(1, 1, NOW),
        lambda: scheduler.give_back(2, NOW),
        lambda: scheduler.hold(1, "relay", NOW),
    ):
        with pytest.raises(LocalError):
            act()
    assert 1 in scheduler
    assert 2 not in scheduler
    assert scheduler.find(2) is None


def test_a_listing_goes_on_whatever_happens_meanwhile() -> None:
    scheduler = Scheduler(schedule_max=1000)
    for low in range(1, 2000):
        scheduler.add(waiting(low), TTL)
    scheduler.take(NOW)
    listing = scheduler.walk(500)
    assert next(listing).evpid == 500
    for low in range(400, 700):
        scheduler.done(low)
    scheduler.add(waiting(650), TTL)
    assert [next(listing).evpid, next(listing).evpid] == [650, 700]


def test_useless_items_do_not_pile_up() -> None:
    scheduler = Scheduler()
    for low in range(1, 11):
        scheduler.add(waiting(low), TTL)
    for _ in range(500):
        scheduler.suspend(ALL)
        scheduler.resume(ALL)
        scheduler.schedule(ALL, NOW)
    assert len(scheduler._heap) < 1000
    assert len(scheduler._lines["mta"]) < 1000
    assert taken(scheduler) == [("mta", "example.org", list(range(1, 11)))]


def test_a_destination_has_its_dispatcher() -> None:
    names = [f"d{number}.example.org" for number in range(400)]
    chosen = [dispatcher_of(name, 4) for name in names]
    assert chosen == [dispatcher_of(name, 4) for name in names]
    assert all(chosen.count(number) > 50 for number in range(4))
    assert dispatcher_of("caf\udce9", 1) == 0


def test_a_large_queue_needs_little_memory() -> None:
    count = 20_000
    domains = [f"d{number}.example.org" for number in range(50)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        scheduler = Scheduler()
        for number in range(count):
            made = Waiting(
                (number * 0x9E3779B97F4A7C15) & EVPID_MAX, "mta", "relay", domains[number % 50]
            )
            made.ctime = NOW + number
            made.retry = number % 7
            scheduler.add(made, TTL)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(scheduler) == count
    assert used / count < 450


# --- the ordered set


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2000)), max_size=60),
    st.integers(0, 2000),
    st.integers(0, 2000),
)
def test_ordered_ids(changes: list[tuple[bool, int]], start: int, end: int) -> None:
    ordered = OrderedIds()
    expected = set()
    for number in range(0, 2000, 2):  # more than a chunk
        ordered.add(number)
        expected.add(number)
    for added, number in changes:
        if added and number not in expected:
            ordered.add(number)
            expected.add(number)
        elif not added and number in expected:
            ordered.remove(number)
            expected.remove(number)
    assert list(ordered.between(0, 5000)) == sorted(expected)
    within = sorted(number for number in expected if start <= number < end)
    assert list(ordered.between(start, end)) == within
    for number in sorted(expected):
        ordered.remove(number)
    assert list(ordered.between(0, 5000)) == []
