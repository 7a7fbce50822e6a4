"""Tasks that wait, and when there are enough of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail.address import Address
from smtpd_core.mta.backlog import Backlog, Place
from smtpd_core.mta.task import MAX_RECIPIENTS, Item, TaskKey
from smtpd_core.queue.envelope import Envelope
from tests.fakes.relaying import AT_ONCE

LIMITS = replace(AT_ONCE, task_hiwat=4, task_lowat=2, task_release=3)


def add(backlog: Backlog, msgid: int) -> Place:
    key = TaskKey(msgid, Address("s", "x"), "", "", utf8=False)
    return backlog.add(Item(msgid << 32, Envelope()), key)


def test_tasks_come_out_in_order_and_are_not_joined_any_more() -> None:
    backlog = Backlog(LIMITS)
    assert [add(backlog, msgid) for msgid in (1, 2, 1)] == [Place.NEW, Place.NEW, Place.JOINED]
    taken = backlog.take()
    assert taken is not None
    assert (taken.task.key.msgid, len(taken.task.items)) == (1, 2)
    assert add(backlog, 1) is Place.NEW
    assert [task.key.msgid for task in backlog.clear()] == [2, 1]
    assert backlog.take() is None


def test_a_full_task_is_followed_by_another() -> None:
    backlog = Backlog(LIMITS)
    for _ in range(MAX_RECIPIENTS + 1):
        add(backlog, 1)
    assert [len(task.items) for task in backlog.clear()] == [MAX_RECIPIENTS, 1]


def test_hold_and_release() -> None:
    backlog = Backlog(LIMITS)
    places = [add(backlog, msgid) for msgid in range(1, 7)]
    assert places == [Place.NEW] * 4 + [Place.HELD] * 2
    assert add(backlog, 1) is Place.JOINED  # it costs no task
    releases: list[tuple[bool, Optional[int]]] = []
    for _ in range(4):
        taken = backlog.take()
        assert taken is not None
        releases.append((taken.off_hold, taken.release))
    assert releases == [(False, None), (True, 3), (False, None), (False, 0)]
    assert not backlog.any_held


def test_nothing_is_asked_for_when_nothing_is_held() -> None:
    backlog = Backlog(LIMITS)
    for msgid in range(1, 5):
        add(backlog, msgid)
    taken = [backlog.take() for _ in range(4)]
    assert all(each is not None and each.release is None for each in taken)


@given(st.lists(st.one_of(st.integers(1, 9), st.none()), max_size=120))
def test_what_is_held_is_always_asked_for(steps: list[Optional[int]]) -> None:
    """A queue that hands released envelopes over again never keeps one for ever."""
    backlog, held = Backlog(LIMITS), 0
    for msgid in steps:
        if msgid is not None:
            held += add(backlog, msgid) is Place.HELD
        assert len(backlog) <= LIMITS.task_hiwat
        if msgid is None:
            backlog.take()
    for _ in range(10 * len(steps) + 10):
        taken = backlog.take()
        if taken is None:
            break
        count = held if taken.release == 0 else min(held, taken.release or 0)
        held -= count
        for number in range(count):
            held += add(backlog, 1000 + number) is Place.HELD
    assert held == 0 or not backlog.any_held
    assert len(backlog) == 0
