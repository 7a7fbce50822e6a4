"""What last happened by domain, and what waits for better times."""

from __future__ import annotations

from smtpd_core.mta.hoststats import KEEP_SECONDS, MAX_DOMAINS, HostStats, Last

NOW = 1_000_000


def test_the_last_text_of_each_domain() -> None:
    stats = HostStats(100)
    stats.note("B.example", "old", NOW)
    stats.note("a.example", "new", NOW + 1)
    stats.note("b.example", "newer", NOW + 2)
    assert stats.entries(NOW + 2) == [
        ("a.example", Last(NOW + 1, "new")),
        ("b.example", Last(NOW + 2, "newer")),
    ]
    assert [domain for domain, _ in stats.entries(NOW + 1 + KEEP_SECONDS)] == ["b.example"]


def test_domains_are_bounded() -> None:
    stats = HostStats(100)
    for number in range(MAX_DOMAINS + 5):
        stats.note(f"{number}.example", "x", NOW)
        stats.defer(f"{number}.example", number)
    assert len(stats.entries(NOW)) == MAX_DOMAINS
    assert stats.better("0.example") == []


def test_deferred_envelopes() -> None:
    stats = HostStats(2)
    for evpid in (1, 2, 2, 3):
        stats.defer("A.example", evpid)
    assert stats.better("a.EXAMPLE") == [1, 2]
    assert stats.better("a.example") == []
