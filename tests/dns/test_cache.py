"""Answers kept in bounded space and time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.dns import cache, wire
from smtpd_core.dns.cache import Cache
from smtpd_core.dns.resolve import Answer, Status
from smtpd_core.dns.wire import Question, Record

ANSWER = Answer(Status.FOUND, "a", (Record("a", wire.A, 1, "192.0.2.1"),))
NOTHING = Answer(Status.NO_DATA, "a")


def question(name: str) -> Question:
    return Question(name, wire.A)


def test_an_answer_holds_until_its_time() -> None:
    kept = Cache()
    kept.put(question("A"), ANSWER, 10, 100)
    assert kept.get(question("a"), 109) is ANSWER
    assert kept.get(Question("a", wire.MX), 100) is None
    assert kept.get(question("a"), 110) is None
    assert len(kept) == 0


def test_lifetimes_have_limits() -> None:
    kept = Cache()
    kept.put(question("a"), ANSWER, 1 << 31, 0)
    kept.put(question("b"), NOTHING, 1 << 31, 0)
    kept.put(question("c"), ANSWER, 0, 0)
    assert kept.get(question("a"), cache.MAX_TTL_SECONDS - 1) is ANSWER
    assert kept.get(question("a"), cache.MAX_TTL_SECONDS) is None
    assert kept.get(question("b"), cache.MAX_NEGATIVE_SECONDS - 1) is NOTHING
    assert kept.get(question("b"), cache.MAX_NEGATIVE_SECONDS) is None
    assert kept.get(question("c"), 0) is None


def test_the_one_used_longest_ago_makes_room() -> None:
    kept = Cache(2)
    kept.put(question("a"), ANSWER, 10, 0)
    kept.put(question("b"), ANSWER, 10, 0)
    assert kept.get(question("a"), 1) is ANSWER
    kept.put(question("c"), ANSWER, 10, 0)
    assert kept.get(question("b"), 1) is None
    assert kept.get(question("a"), 1) is ANSWER
    kept.clear()
    assert len(kept) == 0


@given(st.integers(0, 5), st.lists(st.tuples(st.text("abcdefgh", max_size=2), st.integers(-1, 9))))
def test_it_never_grows_past_its_limit(limit: int, entries: list[tuple[str, int]]) -> None:
    kept = Cache(limit)
    for now, (name, ttl) in enumerate(entries):
        kept.put(question(name), ANSWER, ttl, now)
        assert len(kept) <= limit
        assert (kept.get(question(name), now) is ANSWER) == (ttl > 0 and limit > 0)
