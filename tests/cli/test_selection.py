from __future__ import annotations

from typing import Any

import pytest

from smtpd_core.cli.options import Options
from smtpd_core.cli.selection import SORT_KEYS, Selection, domain_of
from smtpd_core.errors import UsageError
from smtpd_core.queue.entries import Entry
from smtpd_core.queue.envelope import Envelope
from smtpd_core.queue.sources import Item

NOW = 1_000_000


def entry(size: int = -1, evpid: int = 1, **values: Any) -> Entry:
    item = Item("envelope", "x", "queue", evpid, b"")
    item.message_size = size
    return Entry(item, Envelope(**{"version": 3, "type": "mta", **values}))


def accepts(option: str, value: str, subject: Entry) -> bool:
    selection = Selection(Options({option: [value]}), NOW)
    assert selection
    return selection.accepts(subject)


ADDRESSES = [
    ("alice@example.org", "alice@example.org", True),
    ("ALICE@Example.ORG", "alice@example.org", True),
    ("alice", "alice@example.org", True),
    ("ali", "alice@example.org", False),
    ("ali*", "alice@example.org", True),
    ("@example.org", "alice@example.org", True),
    ("@example.org", "alice@sub.example.org", False),
    ("@*.example.org", "alice@sub.example.org", True),
    ("*example.org", "alice@example.org", True),
    ("*", "alice@example.org", True),
    ("*", "@", True),
    ("a?ice@*", "alice@example.org", True),
    ("[ab]lice", "alice@example.org", True),
    ("root", "root@", True),
    ("root@", "root@", True),
    ("r*", "root@", True),
    ("*oot", "root@", True),
    ("example.org", "alice@example.org", False),
    ("", "@", True),
    ("<>", "@", True),
    ("@", "@", True),
    ("<>", "", True),
    ("<>", "alice@example.org", False),
    ("a+b.c(d)@x", "a+b.c(d)@x", True),
    ("x@y@z", "x@y@z", True),
    ("\udce9*", "\udce9t\udce9@x", True),
]


@pytest.mark.parametrize(("pattern", "address", "wanted"), ADDRESSES)
def test_addresses(pattern: str, address: str, wanted: bool) -> None:
    assert accepts("sender", pattern, entry(sender=address)) == wanted
    assert accepts("recipient", pattern, entry(rcpt=address, dest="other@z")) == wanted or (
        pattern == "*"
    )
    assert accepts("recipient", pattern, entry(rcpt="other@z", dest=address)) == wanted or (
        pattern == "*"
    )


@pytest.mark.parametrize(
    ("option", "value", "subject", "wanted"),
    [
        ("domain", "example.org", entry(dest="a@Example.org"), True),
        ("domain", "@example.org", entry(dest="a@example.org"), True),
        ("domain", "*.org", entry(dest="a@example.org"), True),
        ("domain", "example.org", entry(rcpt="a@example.org", dest="b@c"), True),
        ("domain", "example", entry(dest="a@example.org"), False),
        ("error", "greylist", entry(errorline="450 Greylisted, come back"), True),
        ("error", "450*", entry(errorline="450 Greylisted"), True),
        ("error", "450*", entry(errorline="x 450"), False),
        ("error", "", entry(errorline=""), True),
        ("error", "timeout", entry(errorline="450 Greylisted"), False),
        ("type", "mta", entry(type="mta"), True),
        ("type", "mda", entry(type="mta"), False),
        ("flag", "auth", entry(flags=1), True),
        ("flag", "Authenticated", entry(flags=5), True),
        ("flag", "bounce", entry(flags=5), False),
        ("flag", "internal", entry(flags=4), True),
        ("older", "1h", entry(ctime=NOW - 3601), True),
        ("older", "1h", entry(ctime=NOW - 3600), False),
        ("newer", "1h", entry(ctime=NOW - 3599), True),
        ("newer", "1h", entry(ctime=NOW - 3600), False),
        ("tries", "3", entry(retry=3), True),
        ("tries", "=3", entry(retry=3), True),
        ("tries", "+3", entry(retry=3), False),
        ("tries", "+3", entry(retry=4), True),
        ("tries", "-3", entry(retry=2), True),
        ("tries", "-3", entry(retry=3), False),
        ("tries", ">=3", entry(retry=3), True),
        ("tries", "<=3", entry(retry=4), False),
        ("tries", ">3", entry(retry=4), True),
        ("tries", "<3", entry(retry=2), True),
        ("size", "+1k", entry(size=1025), True),
        ("size", "+1k", entry(size=1024), False),
        ("size", "-1k", entry(size=0), True),
        ("size", ">=1.5k", entry(size=1536), True),
        ("size", "-1k", entry(size=-1), False),
    ],
)
def test_options(option: str, value: str, subject: Entry, wanted: bool) -> None:
    assert accepts(option, value, subject) == wanted


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("flag", "spam", "--flag: 'spam' is not one of auth, authenticated, bounce, internal"),
        ("older", "soon", "--older: 'soon' is not a duration"),
        ("newer", "", "--newer: '' is not a duration"),
        ("tries", "x", "--tries: 'x' is not a number"),
        ("tries", "+", "--tries: '' is not a number"),
        ("tries", "70000", "--tries: '70000' is not between 0 and 65535"),
        ("size", "big", "--size: 'big' is not a size"),
    ],
)
def test_values_that_mean_nothing(option: str, value: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Selection(Options({option: [value]}), NOW)


def test_all_tests_must_pass() -> None:
    selection = Selection(Options({"sender": ["a*", "*c@d"], "tries": [">0"]}), NOW)
    assert selection.accepts(entry(sender="abc@d", retry=1))
    assert not selection.accepts(entry(sender="abc@d"))
    assert not selection.accepts(entry(sender="abx@d", retry=1))
    assert not selection.details
    assert Selection(Options({"size": ["1"]}), NOW).details
    assert not Selection(Options(), NOW)
    assert Selection(Options(), NOW).accepts(entry())


def test_domains() -> None:
    assert [domain_of(address) for address in ("a@B.c", "a@b@C", "x@", "", "@")] == [
        "b.c", "c", "", "", "",
    ]  # fmt: skip


SUBJECTS = [
    entry(evpid=1, size=5, ctime=30, sender="b@z", dest="Y@a", retry=2, errorline="z"),
    entry(evpid=2, size=-1, ctime=10, sender="C@a", dest="x@C", retry=9, errorline=""),
    entry(evpid=3, size=50, ctime=20, sender="a@y", dest="z@b", retry=0, errorline="a"),
]


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("id", [1, 2, 3]),
        ("age", [2, 3, 1]),
        ("size", [3, 1, 2]),
        ("sender", [3, 1, 2]),
        ("recipient", [2, 1, 3]),
        ("domain", [1, 3, 2]),
        ("tries", [2, 1, 3]),
        ("error", [2, 3, 1]),
    ],
)
def test_orders(key: str, order: list[int]) -> None:
    assert [subject.evpid for subject in sorted(SUBJECTS, key=SORT_KEYS[key])] == order
    assert set(SORT_KEYS) == {
        "id",
        "age",
        "size",
        "sender",
        "recipient",
        "domain",
        "tries",
        "error",
    }
