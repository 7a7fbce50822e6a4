"""SPF records, and the walk over a small zone."""

from __future__ import annotations

from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.ask import answer
from smtpd_core.dns import spf, wire
from smtpd_core.dns.spf import Looked, SpfError, Target, Term, Walked, parse_record, parse_target
from smtpd_core.dns.wire import Exchange, Question, Record

A, AAAA, MX, TXT = wire.A, wire.AAAA, wire.MX, wire.TXT


class Zone:
    """Finish lookups one by one; choose picks which of those under way is next."""

    def __init__(self, records: list[Record], choose: Callable[[int], int] = lambda _: 0) -> None:
        self.records = records
        self.choose = choose
        self.pending: list[Question] = []
        self.asked: list[Question] = []

    def __call__(self, questions: tuple[Question, ...]) -> Looked:
        self.asked += questions
        self.pending += questions
        question = self.pending.pop(self.choose(len(self.pending)))
        found = tuple(
            record
            for record in self.records
            if (record.name, record.rtype) == (question.name, question.rtype)
        )
        return Looked(question, found)


def txt(name: str, *texts: str) -> Record:
    return Record(name, TXT, 60, tuple(text.encode() for text in texts))


def a(name: str, address: str) -> Record:
    return Record(name, AAAA if ":" in address else A, 60, address)


def walk(records: list[Record], *lines: str) -> Walked:
    return answer(spf.walk(lines or ("x.example",)), Zone(records))


HOSTS = [
    a("x.example", "192.0.2.1"),
    a("x.example", "2001:db8::1"),
    a("h.example", "192.0.2.2"),
    a("h.example", "2001:db8::2"),
    Record("x.example", MX, 60, Exchange(10, "h.example")),
    Record("n.example", MX, 60, Exchange(0, ".")),
]


@pytest.mark.parametrize(
    ("record", "networks"),
    [
        ("v=spf1 ip4:192.0.2.0/24 ip6:2001:DB8::/32 -all", ["192.0.2.0/24", "2001:DB8::/32"]),
        ("V=SPF1 IP4:192.0.2.7", ["192.0.2.7"]),
        ("v=spf1", []),
        ("v=spf2 ip4:192.0.2.7", []),
        ("x v=spf1 ip4:192.0.2.7", []),
        ("v=spf1 ip4:192.0.2.256 ip4:2001:db8:: ip6:192.0.2.1 ip4:192.0.2.1/33 ip4:", []),
        ("v=spf1 ip4:192.0.2.1/255.255.255.0 ip4:192.0.2.1\x1b[m", []),
        (
            "v=spf1 +ip4:192.0.2.1 ?ip4:192.0.2.2 -ip4:192.0.2.3 ~ip4:192.0.2.4",
            ["192.0.2.1", "192.0.2.2"],
        ),
        ("v=spf1 ip4:192.0.2.1. ip4:192.0.2.1 ip4:192.0.2.1", ["192.0.2.1"]),
        ("v=spf1 a", ["192.0.2.1", "2001:db8::1"]),
        ("v=spf1 mx", ["192.0.2.2", "2001:db8::2"]),
        ("v=spf1 a:h.example.", ["192.0.2.2", "2001:db8::2"]),
        ("v=spf1 a:h.example/24", ["192.0.2.2/24", "2001:db8::2"]),
        ("v=spf1 mx:x.example/24/64", ["192.0.2.2/24", "2001:db8::2/64"]),
        ("v=spf1 a:h.example/24//64", ["192.0.2.2/24", "2001:db8::2/64"]),
        ("v=spf1 a:h.example//64", ["192.0.2.2", "2001:db8::2/64"]),
        (
            "v=spf1 a:h.example/33 a:h.example/x a:h.example/1/129 a:h.example/",
            ["192.0.2.2", "2001:db8::2"],
        ),
        ("v=spf1 mx:n.example mx:none.example", []),
        ("v=spf1 exists:h.example", ["192.0.2.2"]),
        ("v=spf1 a/24 mx/24 ptr ptr:h.example all exp=h.example a=h.example include=x", []),
    ],
)
def test_terms(record: str, networks: list[str]) -> None:
    assert walk([*HOSTS, txt("x.example", record)]) == Walked(networks, [])


def test_records_lead_on() -> None:
    records = [
        txt("x.example", "v=spf1 include:y.example ", "ip4:192.0.2.1 redirect=z.example"),
        txt("y.example", "v=spf1 ip4:192.0.2.2 include:x.example -all"),
        txt("y.example", "something else"),
        txt("z.example", "v=spf1 ip4:192.0.2.3 ip4:192.0.2.1 include:y.example"),
    ]
    assert walk(records).networks == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    zone = Zone(records, lambda count: count - 1)
    assert answer(spf.walk(["x.example"]), zone).networks == ["192.0.2.1", "192.0.2.3", "192.0.2.2"]
    assert len(zone.asked) == 4  # x is asked once more, and all its terms are known


def test_lines() -> None:
    records = [txt("x.example", "v=spf1 ip4:192.0.2.1"), txt("y", "v=spf1 ip4:192.0.2.2")]
    assert walk(records, "x.example \t\n", "\n", "y\n").networks == ["192.0.2.1"]
    assert answer(spf.walk([]), Zone([])) == Walked([], [])


def test_macros_are_warned_of() -> None:
    walked = walk([txt("x.example", "v=spf1 exists:%{i}.x\xe9.example ip4:192.0.2.1")])
    assert walked.networks == ["192.0.2.1"]
    assert walked.warnings == [
        "lookup_record: %{i}.x??.example contains macros and can't be resolved"
    ]


def test_a_walk_without_end_ends() -> None:
    count = 0

    def grow(questions: tuple[Question, ...]) -> Looked:
        nonlocal count
        pending.extend(questions)
        question = pending.pop()
        count += 1
        return Looked(
            question, (txt(question.name, f"v=spf1 include:{count}.x include:{count}.y"),)
        )

    pending: list[Question] = []
    walked = answer(spf.walk(["x.example"]), grow)
    assert count == spf.MAX_LOOKUPS
    assert len(walked.warnings) == 1


def test_the_same_question_is_under_way_once() -> None:
    zone = Zone([*HOSTS, txt("x.example", "v=spf1 a:h.example/24 a:h.example")])
    walked = answer(spf.walk(["x.example"]), zone)
    assert len(zone.asked) == 3
    assert walked.networks == ["192.0.2.2/24", "192.0.2.2", "2001:db8::2", "2001:db8::2"]


def test_the_parser() -> None:
    assert parse_record("v=spf1 ?Include:a.b -all  a/24 x=1.") == [
        Term("?Include:a.b", "?", "include", ":", "a.b"),
        Term("-all", "-", "all"),
        Term("a/24", "", "a", bits="/24"),
        Term("x=1", "", "x", "=", "1"),
    ]
    with pytest.raises(SpfError):
        parse_record("v=spf1 " + "x" * 4096)
    assert parse_target("a.b/24//64") == Target("a.b", 24, 64)


@given(st.text() | st.text("aimxp46:/.%+-~?=include 12", max_size=60))
def test_any_text_is_walked(text: str) -> None:
    record = Record("x.example", TXT, 60, ((b"v=spf1 " + text.encode("utf-8", "replace")),))
    walk([*HOSTS, record])
    try:
        parse_record(text)
        parse_target(text)
    except SpfError:
        pass
