from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.cli import summary
from smtpd_core.cli.summary import Summary
from smtpd_core.queue.entries import Entry
from smtpd_core.queue.envelope import Envelope
from smtpd_core.queue.sources import Item

NOW = 2_000_000_000
LIMITS = [5, 10, 20, 40, 80, 160, 320, 640, 1280]


def summed(mails: list[tuple[str, int]]) -> Summary:
    found = Summary(NOW)
    for address, age in mails:
        item = Item("envelope", "x", "queue", 1, b"")
        found.add(Entry(item, Envelope(dest=address, ctime=NOW - age)))
    return found


def numbers(line: str, width: int = 11) -> list[int]:
    return [int(word) for word in line.rstrip("# ").split()[-width:]]


ADDRESSES = st.sampled_from(["a@x.org", "b@X.org", "a@y.example", "a@", "@", "", "a@z\x1b[m"])
AGES = st.one_of(st.integers(-100, 100_000), st.sampled_from([m * 60 for m in LIMITS]))


@given(st.lists(st.tuples(ADDRESSES, AGES), min_size=1))
def test_numbers_are_those_counted_one_by_one(mails: list[tuple[str, int]]) -> None:
    text = summed(mails).format(200, 0)
    heading, total, *rows = text.splitlines()
    assert heading.split() == ["T", *map(str, LIMITS), "1280+"]
    assert total.split()[0] == "TOTAL"
    counted: collections.Counter[tuple[str, int]] = collections.Counter()
    for address, age in mails:
        domain = address.rpartition("@")[2].lower() or "(no domain)"
        column = next((n for n, limit in enumerate(LIMITS) if age < limit * 60), len(LIMITS))
        counted[domain, column] += 1
    domains = {domain for domain, _ in counted}
    wanted = {
        domain.replace("\x1b", "\\x1b"): [counted[domain, column] for column in range(10)]
        for domain in domains
    }
    assert {" ".join(row.rstrip("# ").split()[:-11]): numbers(row)[1:] for row in rows} == wanted
    for row in [total, *rows]:
        assert numbers(row)[0] == sum(numbers(row)[1:])
    assert numbers(total)[0] == len(mails)
    assert [numbers(row)[0] for row in rows] == sorted((numbers(r)[0] for r in rows), reverse=True)
    assert all(row.endswith("#") for row in rows)


@given(st.lists(st.tuples(ADDRESSES, AGES), min_size=1, max_size=20), st.integers(30, 150))
def test_lines_fit(mails: list[tuple[str, int]], columns: int) -> None:
    long = [("a@" + "long-name." * 20 + "example", 60), *mails]
    assert max(map(len, summed(long).format(columns, 0).splitlines())) <= columns


@pytest.mark.parametrize(
    ("columns", "headings", "bar"),
    [(30, "T 5 1280 1280+", False), (40, "T 5 20 80 320 1280 1280+", False),
     (52, "T 5 20 80 320 1280 1280+", True), (60, "T 5 10 20 40 80 160 320 640 1280 1280+", False),
     (80, "T 5 10 20 40 80 160 320 640 1280 1280+", True)],
)  # fmt: skip
def test_where_it_is_narrow_ages_are_put_together(columns: int, headings: str, bar: bool) -> None:
    mails = [("a@example.org", minutes * 60 - 1) for minutes in LIMITS] + [("a@x", 10**6)]
    heading, total, *rows = summed(mails).format(columns, 0).splitlines()
    assert heading.split() == headings.split()
    assert rows[0].endswith("#") is bar
    for row in (total, *rows):
        found = numbers(row, len(heading.split()))
        assert found[0] == sum(found[1:])
    assert max(map(len, [heading, total, *rows])) <= columns


@pytest.mark.parametrize("columns", [30, 50, 70])
def test_large_numbers_fit_too(columns: int) -> None:
    found = summed([("a@example.org", 0)])
    found._counts["example.org"][0] = found._counts["example.org"][1] = 123_456_789
    lines = found.format(columns, 0).splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[1].split()[:2] == ["TOTAL", "123456789"]


def test_the_end_of_a_long_domain_is_shown() -> None:
    text = summed([("a@" + "x" * 100 + ".example.org", 0)]).format(80, 0)
    assert ".example.org " in text.splitlines()[2]
    assert "+" in text.splitlines()[2]


def test_limit() -> None:
    mails = [("a@one", 0), ("a@two", 0), ("b@two", 0), ("a@three", 0)]
    text = summed(mails).format(80, 1)
    assert text.splitlines()[2].split()[0] == "two"
    assert text.splitlines()[3:] == ["(2 more domains)"]
    assert "more domains" not in summed(mails).format(80, 3)


def test_nothing() -> None:
    assert summed([]).format(80, 0) == ""


def test_domains_are_bounded() -> None:
    found = summed([(f"a@{number}", 0) for number in range(summary._DOMAINS_MAX + 5)])
    text = found.format(120, 1)
    assert numbers(text.splitlines()[1])[0] == summary._DOMAINS_MAX + 5
    assert text.splitlines()[2].split()[:2] == ["(others)", "5"]
