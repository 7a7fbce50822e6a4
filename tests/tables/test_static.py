"""Tables whose entries are all here."""

from __future__ import annotations

import pytest

from smtpd_core.config.model import TableKind
from smtpd_core.tables.matching import MAX_KEY, MatchError
from smtpd_core.tables.static import StaticTable, TableError

USERS = StaticTable(
    TableKind.MAPPING,
    [("Bob", "1:1:/a"), ("alice", "2:2:/b"), ("bob", "3:3:/c"), ("::1", "six"), ("192.0.2.1", "4")],
)


def listed(*entries: str) -> StaticTable:
    return StaticTable(TableKind.LIST, [(entry, None) for entry in entries])


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("userinfo", "ALICE", "2:2:/b"),
        ("userinfo", "bob", "3:3:/c"),  # the later one
        ("userinfo", "ali", None),
        ("addrname", "192.0.2.1", "4"),
        ("addrname", "[::1]", "six"),
        ("addrname", "::1", "six"),
        ("addrname", "192.0.2.2", None),
    ],
)
def test_values(service: str, key: str, value: str) -> None:
    assert USERS.fetch(service, key) == value
    assert USERS.match(service, key) is (value is not None)


@pytest.mark.parametrize(
    ("service", "entry", "key", "matches"),
    [
        ("domain", "*.example.org", "a.example.org", True),
        ("netaddr", "10.0.0.0/8", "10.1.2.3", True),
        ("mailaddr", "@example.org", "a@example.org", True),
        ("regex", "^a.c$", "ABC", True),
        ("string", "*.example.org", "a.example.org", False),
        ("credentials", "Bob", "bob", True),
    ],
)
def test_matches(service: str, entry: str, key: str, matches: bool) -> None:
    assert listed("x", entry).match(service, key) is matches


def test_of_patterns_that_match_the_first_written_counts() -> None:
    table = StaticTable(TableKind.MAPPING, [("*.z", "first"), ("a.z", "second")])
    assert table.fetch("domain", "a.z") == "first"


def test_a_sub_address_has_the_delimiter_of_the_server() -> None:
    entries = [("bob@example.org", None)]
    dash = StaticTable(TableKind.LIST, entries, delimiter="-")
    assert dash.match("mailaddr", "bob-x@example.org")
    assert not StaticTable(TableKind.LIST, entries).match("mailaddr", "bob-x@example.org")


def test_a_list_has_no_values() -> None:
    with pytest.raises(TableError):
        listed("bob").fetch("credentials", "bob")
    assert listed("bob").any_value() is None
    assert USERS.any_value() == "3:3:/c"


def test_entries_in_turn() -> None:
    table = listed("a", "b")
    assert [table.pick("relayhost") for _ in range(3)] == ["a", "b", "a"]
    assert table.pick("source") == "b"  # one row for all
    assert listed().pick("source") is None


def test_a_key_that_is_too_long() -> None:
    with pytest.raises(MatchError):
        USERS.match("string", "x" * (MAX_KEY + 1))
