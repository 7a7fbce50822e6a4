"""Lines of table files."""

from __future__ import annotations

from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.config.model import TableKind
from smtpd_core.config.tablefile import TableFileError, parse_table_file
from smtpd_core.text import encode


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("a b", [("a", "b")]),
        ("a: b", [("a", "b")]),
        ("a:b", [("a", "b")]),
        ("a : b", [("a", "b")]),
        ("a :b", [("a", ":b")]),
        ("a: :error:550 no", [("a", ":error:550 no")]),
        ("a :include:/x", [("a", ":include:/x")]),
        ("\t a\t\tb c \r\n", [("a", "b c")]),
        ("a b # c", [("a", "b # c")]),
        ("# c\n\na b\n  # d\ne f", [("a", "b"), ("e", "f")]),
        ("[::1] mx", [("[::1]", "mx")]),
        ("2001:db8::1 mx", [("2001:db8::1", "mx")]),
        ("2001:db8::1: mx", [("2001:db8::1", "mx")]),
        ("a b\na c", [("a", "b"), ("a", "c")]),
        ("", []),
        ("# only\n", []),
    ],
)
def test_mappings(text: str, entries: List[Tuple[str, str]]) -> None:
    found = parse_table_file(encode(text))
    assert found.kind is TableKind.MAPPING
    assert list(found.entries) == entries


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a\nb c\n", ["a", "b c"]),
        ("10.0.0.0/8\n", ["10.0.0.0/8"]),
        ("[::1]\n", ["[::1]"]),
        ("::1\n2001:db8::/32\n", ["::1", "2001:db8::/32"]),
        ("#@list\na b\n", ["a b"]),
        ("# @list\n", []),
        ("a\n# @list\nb", ["a", "b"]),
    ],
)
def test_lists(text: str, items: List[str]) -> None:
    found = parse_table_file(encode(text))
    assert found.kind is TableKind.LIST
    assert list(found.entries) == [(item, None) for item in items]


@pytest.mark.parametrize(
    ("text", "line"), [("a b\n\nc\n", 3), ("a:\n", 1), ("[::1 a", 1), ("x\n[y", 2)]
)
def test_refusals_tell_the_line(text: str, line: int) -> None:
    with pytest.raises(TableFileError, match=f"^{line}: "):
        parse_table_file(encode(text))


@given(st.binary(max_size=200))
def test_any_octets_are_a_table_or_refused(octets: bytes) -> None:
    try:
        found = parse_table_file(octets)
    except TableFileError:
        return
    values = {value is None for _, value in found.entries}
    assert values <= {found.kind is TableKind.LIST}


WORDS = st.text("abcdef.@-_", min_size=1, max_size=8)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1))
def test_mappings_round_trip(entries: List[Tuple[str, str]]) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in entries)
    assert parse_table_file(encode(text)) == (TableKind.MAPPING, tuple(entries))
