from __future__ import annotations

import fcntl
import os
import resource
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core.cli import workers
from tests import running

if TYPE_CHECKING:
    from collections.abc import Iterator

Step = tuple[bytes, bytes]


def steps_of(unit: int, sizes: list[int]) -> list[Step]:
    """Make the steps of a unit: all different, some large."""
    return [
        (b"r" if number % 3 else b"w", b"%d.%d " % (unit, number) + b"x" * size)
        for number, size in enumerate(sizes)
    ]


def shared(work: list[list[int]], die_at: int = -1) -> list[Step]:
    """Let two processes make all steps, the child ending all of a sudden before one of its own."""
    parent = os.getpid()
    made = 0

    def produce(unit: int) -> Iterator[Step]:
        nonlocal made
        for step in steps_of(unit, work[unit]):
            if os.getpid() != parent:
                if made == die_at:
                    os._exit(3)
                made += 1
            yield step
        if os.getpid() != parent and made == die_at:
            os._exit(3)

    consumed: list[Step] = []
    workers.run_shared(list(range(len(work))), produce, lambda *step: consumed.append(step))
    return consumed


def alone(work: list[list[int]]) -> list[Step]:
    return [step for unit, sizes in enumerate(work) for step in steps_of(unit, sizes)]


def assert_no_child_is_left() -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


WORKS = st.lists(st.lists(st.sampled_from([0, 1, 50, 70_000]), max_size=4), max_size=6)


@settings(max_examples=25)
@given(WORKS)
def test_order_is_kept(work: list[list[int]]) -> None:
    assert shared(work) == alone(work)
    assert_no_child_is_left()


@settings(max_examples=25)
@given(WORKS, st.integers(0, 10))
def test_nothing_is_lost_or_doubled_when_the_child_dies(work: list[list[int]], at: int) -> None:
    assert shared(work, at) == alone(work)
    assert_no_child_is_left()


@pytest.mark.parametrize("at", range(9))
def test_child_dies_at_each_of_its_steps(at: int) -> None:
    work = [[5] * 4, [5] * 4, [5] * 4, [200_000] * 4]
    assert shared(work, at) == alone(work)
    assert_no_child_is_left()


def test_child_that_raises() -> None:
    parent = os.getpid()

    def produce(unit: int) -> Iterator[Step]:
        yield b"r", b"first of %d" % unit
        if os.getpid() != parent:
            raise ZeroDivisionError
        yield b"r", b"second of %d" % unit

    consumed: list[Step] = []
    workers.run_shared([0, 1], produce, lambda *step: consumed.append(step))
    assert [text for _, text in consumed] == [
        b"first of 0", b"second of 0", b"first of 1", b"second of 1",
    ]  # fmt: skip
    assert_no_child_is_left()


def test_child_that_works_far_ahead_waits() -> None:
    """More than any pipe holds comes from the child while the parent is still at its own."""
    work = [[1], [60_000] * 80, [1], [60_000] * 80]
    assert shared(work) == alone(work)
    assert_no_child_is_left()


def test_pipe_of_little_room() -> None:
    receiving, sending = os.pipe()
    room = fcntl.fcntl(sending, 1031, 4096)  # F_SETPIPE_SZ, as a user with many pipes gets
    assert room == 4096
    pid = os.fork()
    if not pid:
        try:
            for number in range(50):
                workers._send(sending, b"r", b"%d" % number * 3000)
            workers._send(sending, b".", b"")
        finally:
            os._exit(0)
    os.close(sending)
    assert list(workers._receive_unit(receiving)) == [
        (b"r", b"%d" % number * 3000) for number in range(50)
    ]
    os.close(receiving)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    "octets",
    [b"", b"r", b"r\0\0\0\1", b"r\0\0\0\5abc", b"r\xff\xff\xff\xffabc"],
    ids=["nothing", "half a head", "a head", "half a step", "no frame of ours"],
)
def test_cut_frames_are_noticed(octets: bytes) -> None:
    receiving, sending = os.pipe()
    os.write(sending, octets)
    os.close(sending)
    with pytest.raises(workers._ChildGoneError):
        list(workers._receive_unit(receiving))
    os.close(receiving)


class StopError(Exception):
    """What a consumer ends a listing with."""


@pytest.mark.parametrize("at", range(6))
def test_consumer_that_stops_leaves_nothing_behind(at: int) -> None:
    before = os.listdir("/proc/self/fd")
    seen = 0

    def consume(kind: bytes, result: bytes) -> None:
        nonlocal seen
        if seen == at:
            raise StopError
        seen += 1

    with pytest.raises(StopError):
        workers.run_shared([0, 1, 2], lambda unit: iter(steps_of(unit, [9, 300_000])), consume)
    assert_no_child_is_left()
    assert os.listdir("/proc/self/fd") == before


def test_without_a_second_process() -> None:
    """Where the system allows no more processes, this one does it all."""

    def work() -> bytes:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        consumed: list[Step] = []
        workers.run_shared(
            [0, 1], lambda unit: iter(steps_of(unit, [1, 2])), (lambda *step: consumed.append(step))
        )
        assert consumed == alone([[1, 2], [1, 2]])
        return b"done"

    assert running.in_child(work, running.NOBODY) == b"done"
