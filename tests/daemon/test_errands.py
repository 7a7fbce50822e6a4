"""Errands: real processes, of a few lines."""

from __future__ import annotations

import os
import selectors
import time
from typing import Callable, List, Optional

import pytest

from smtpd_core.daemon.errands import MAX_RESULT, MAX_WAITING, Errands, Kind

QUICK = Kind("quick", 2, 30)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.selector = selectors.DefaultSelector()
        self.errands = Errands(self.selector, self.clock, lambda: None)
        self.results: List[Optional[bytes]] = []

    def run(self, work: Callable[[], bytes], kind: Kind = QUICK) -> None:
        self.errands.run(kind, work, self.results.append)

    def wait(self, count: int) -> None:
        while len(self.results) < count:
            for key, _ in self.selector.select(10):
                key.data(key.fd)


@pytest.fixture
def world() -> World:
    return World()


def fail() -> bytes:
    raise RuntimeError("no answer")


def hang() -> bytes:
    time.sleep(600)
    return b"too late"


def test_results(world: World) -> None:
    parent = os.getpid()
    world.run(lambda: b"%d" % (os.getppid() == parent))
    world.run(lambda: b"x" * MAX_RESULT)
    world.wait(2)
    assert sorted(world.results, key=lambda octets: len(octets or b"")) == [b"1", b"x" * MAX_RESULT]


@pytest.mark.parametrize("work", [fail, lambda: b"x" * (MAX_RESULT + 1), lambda: os._exit(3)])
def test_no_result(world: World, work: Callable[[], bytes]) -> None:
    world.run(work)
    world.wait(1)
    assert world.results == [None]


def test_some_wait_and_the_rest_is_turned_away(world: World) -> None:
    for _ in range(QUICK.at_once + MAX_WAITING + 1):
        world.run(lambda: b"done")
    assert world.results == [None]
    world.wait(1 + QUICK.at_once + MAX_WAITING)
    assert world.results[1:] == [b"done"] * (QUICK.at_once + MAX_WAITING)


def test_one_that_hangs_is_killed(world: World) -> None:
    world.run(hang)
    assert world.errands.next_deadline() == QUICK.seconds
    world.errands.expire()
    assert world.results == []
    world.clock.now = QUICK.seconds
    world.errands.expire()
    assert world.results == [None]
    assert world.errands.next_deadline() is None


def test_a_child_that_was_seen_to_end(world: World) -> None:
    world.run(lambda: b"done")
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert world.errands.ended(found.si_pid)
    assert world.results == [b"done"]
    assert not world.errands.ended(found.si_pid)
