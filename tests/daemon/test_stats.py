"""Counters."""

from __future__ import annotations

from smtpd_core.daemon.stats import GAUGES, KEYS, MAX_KEYS, Stats


def test_all_begin_at_zero() -> None:
    stats = Stats()
    assert dict(stats.items()) == dict.fromkeys(KEYS, 0)
    assert list(KEYS) == sorted(KEYS)
    assert set(KEYS) >= GAUGES


def test_changes_are_told_once() -> None:
    stats = Stats()
    stats.add("smtp.session")
    stats.add("smtp.session")
    stats.set("mta.route", 5)
    assert dict(stats.changes()) == {"smtp.session": 2, "mta.route": 5}
    stats.add("smtp.session", -1)
    stats.set("mta.route", 5)
    assert stats.changes() == (("smtp.session", -1),)
    assert stats.changes() == ()
    assert stats.get("smtp.session") == 1


def test_names_cannot_be_made_up_without_end() -> None:
    stats = Stats()
    for number in range(2 * MAX_KEYS):
        stats.add(f"made.up.{number}")
    stats.add("x" * 1000)
    assert len(list(stats.items())) == MAX_KEYS
