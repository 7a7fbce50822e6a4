"""When an envelope is tried again, given up, warned about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.queue import retry

NOW = 1_700_000_000


def test_relayed_mail_is_tried_on_the_documented_grid() -> None:
    """Attempts 0, 400, 1600, 3600, 6400 ... seconds after creation; 29 or so in four days."""
    now, attempts = NOW, [0]
    while now < retry.expiry(NOW, retry.DEFAULT_TTL_SECONDS):
        now = retry.next_try(NOW, retry.BASE_SECONDS[retry.RELAY], len(attempts), now)
        attempts.append(now - NOW)
    assert attempts[:5] == [0, 400, 1600, 3600, 6400]
    assert len(attempts) == 31  # the last of them after the end


def test_local_mail_is_tried_on_its_own_grid() -> None:
    now, attempts = NOW, [0]
    while now < retry.expiry(NOW, retry.DEFAULT_TTL_SECONDS):
        now = retry.next_try(NOW, retry.BASE_SECONDS[retry.LOCAL], len(attempts), now)
        attempts.append(now - NOW)
    assert attempts[:4] == [0, 10, 40, 90]
    assert len(attempts) == 187


@given(
    ctime=st.integers(0, 2**40),
    base=st.sampled_from([3, 10, 400]),
    count=st.integers(0, retry.RETRY_MAX),
    passed=st.integers(-(10**6), 10**9),
)
def test_the_next_try_is_the_first_of_the_grid_that_lies_ahead(
    ctime: int, base: int, count: int, passed: int
) -> None:
    now = ctime + passed
    due = retry.next_try(ctime, base, count, now)
    step = count
    if due != ctime + base * count * count:
        step = round(((due - ctime) / base) ** 0.5)
        assert ctime + base * (step - 1) ** 2 <= now
    assert due == ctime + base * step * step
    assert due > now


def test_after_a_restart_what_is_overdue_is_due_at_once() -> None:
    assert retry.first_try(NOW, 400, 0) == NOW
    assert retry.first_try(NOW, 400, 5) == NOW + 10_000


def test_the_count_of_failures_stays_in_its_field() -> None:
    assert retry.count_retry(0) == 1
    assert retry.count_retry(65_535) == 65_535


@pytest.mark.parametrize(
    ("last_bounce", "next_attempt", "expected"),
    [
        (0, NOW + 3_599, None),
        (0, NOW + 3_600, 3_600),
        (NOW + 3_600, NOW + 3_700, None),  # sent already
        (NOW + 3_600, NOW + 14_400, 14_400),
        (0, NOW + 99_999, 3_600),  # one at a time, the first that matches
        (NOW + 14_400, NOW + 99_999, None),
    ],
)
def test_a_sender_is_warned_once_for_each_interval(
    last_bounce: int, next_attempt: int, expected: int
) -> None:
    assert retry.warning_due(NOW, last_bounce, next_attempt, (3_600, 14_400)) == expected


def test_intervals_are_taken_as_they_are_configured() -> None:
    assert retry.warning_due(NOW, 0, NOW + 99_999, (14_400, 3_600)) == 14_400
    assert retry.warning_due(NOW, 0, NOW + 99_999, ()) is None
