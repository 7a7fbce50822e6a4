"""Stopping a process, in one of its own."""

from __future__ import annotations

import os
import signal
from typing import Callable

import pytest

from smtpd_core.mda.stopping import StoppedError, arm, block, settle, unblock


def status_of(act: Callable[[], int]) -> int:
    """Run something in a child and give its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = act()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stopped_by(number: int) -> int:
    arm(10)
    try:
        os.kill(os.getpid(), number)
    except StoppedError as stopped:
        os.kill(os.getpid(), signal.SIGTERM)  # comes to nothing
        return 1 if stopped.by_timeout else 2
    return 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGALRM, 1), (signal.SIGTERM, 2)])
def test_a_signal_stops_once(number: int, status: int) -> None:
    assert status_of(lambda: stopped_by(number)) == status


def settled() -> int:
    arm(10)
    settle()
    os.kill(os.getpid(), signal.SIGTERM)
    return signal.alarm(0)


def test_what_is_settled_is_not_stopped() -> None:
    assert status_of(settled) == 0


def kept_back() -> int:
    arm(10)
    block()
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        unblock()
    except StoppedError:
        return 4
    return 5


def test_what_is_kept_back_comes_later() -> None:
    assert status_of(kept_back) == 4
