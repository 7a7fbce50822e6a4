"""Whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.config.settings import MdaLimits
from smtpd_core.errors import LocalError
from smtpd_core.mda.turns import RELEASE_ALL, Turns

A, B = ("a", "<getpwnam>"), ("b", "<getpwnam>")


def begun(turns: Turns[int]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while True:
        next_one = turns.begin()
        if next_one is None:
            return found
        found.append((next_one[0].key[0], next_one[1]))


def test_users_take_turns_whoever_came_first_with_how_much() -> None:
    turns: Turns[int] = Turns(MdaLimits(max_session=5, max_session_per_user=3))
    for item in range(9):
        assert turns.add(A, item)
    assert turns.add(B, 100)
    assert turns.add(B, 101)
    assert begun(turns) == [("a", 0), ("b", 100), ("a", 1), ("b", 101), ("a", 2)]
    assert (turns.running, turns.waiting, turns.users) == (5, 6, 2)
    assert turns.end(A) is None
    assert begun(turns) == [("a", 3)]
    turns.end(B)
    turns.end(B)
    assert begun(turns) == []  # a has its three
    assert not turns.knows(B)


def test_a_user_with_too_much_is_held_and_released_in_portions() -> None:
    limits = MdaLimits(max_session_per_user=1, task_hiwat=5, task_lowat=3, task_release=2)
    turns: Turns[int] = Turns(limits)
    for item in range(9):
        turns.add(A, item)  # 5 taken, 4 held
    released = []
    for _ in range(5):
        assert turns.begin() is not None
        released.append(turns.end(A))
    assert released == [None, 2, 2, 2, RELEASE_ALL]
    assert turns.users == 0


def test_nobody_is_released_who_was_not_held() -> None:
    turns: Turns[int] = Turns(MdaLimits())
    turns.add(A, 1)
    turns.begin()
    assert turns.end(A) is None


def test_ending_what_does_not_run_is_our_mistake() -> None:
    turns: Turns[int] = Turns(MdaLimits())
    with pytest.raises(LocalError):
        turns.end(A)
    turns.add(A, 1)
    with pytest.raises(LocalError):
        turns.end(A)


def test_what_has_not_begun_is_dropped() -> None:
    turns: Turns[int] = Turns(MdaLimits(max_session=1))
    turns.add(A, 1)
    turns.add(B, 2)
    turns.begin()
    assert turns.drop_waiting() == 1
    assert (turns.users, turns.running, turns.waiting) == (1, 1, 0)
    assert turns.begin() is None
    assert turns.end(A) is None
    assert turns.users == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80))
def test_no_limit_is_ever_passed_and_nothing_is_lost(steps: list[tuple[str, bool]]) -> None:
    limits = MdaLimits(max_session=4, max_session_per_user=2, task_hiwat=5, task_lowat=2)
    turns: Turns[int] = Turns(limits)
    taken, held = 0, 0
    running: list[tuple[str, str]] = []
    done = 0

    def begin_all() -> None:
        while True:
            found = turns.begin()
            if found is None:
                return
            running.append(found[0].key)

    for name, add in steps:
        if add:
            accepted = turns.add((name, ""), 1)
            taken, held = taken + accepted, held + (not accepted)
        elif running:
            turns.end(running.pop(0))
            done += 1
        begin_all()
        assert turns.running == len(running) <= 4
        assert all(running.count(key) <= 2 for key in running)
        assert turns.envelopes == taken - done
    while running:
        turns.end(running.pop())
        done += 1
        begin_all()
    assert done == taken
    assert turns.users == 0
