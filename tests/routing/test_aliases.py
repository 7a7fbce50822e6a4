"""Alias values, .forward and include files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.routing import aliases
from smtpd_core.routing.aliases import AliasError, Item, Kind


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("bob", [Item(Kind.USER, "bob")]),
        (" bob ,, alice+x ", [Item(Kind.USER, "bob"), Item(Kind.USER, "alice+x")]),
        ("", []),
        (" , ", []),
        ("bob@example.org", [Item(Kind.ADDRESS, "bob@example.org")]),
        ("a|b@c-d.e", [Item(Kind.ADDRESS, "a|b@c-d.e")]),
        ("/var/mail/x", [Item(Kind.FILE, "/var/mail/x")]),
        ("|/bin/cmd -a", [Item(Kind.PIPE, "/bin/cmd -a")]),
        ('"|cmd a, b", bob', [Item(Kind.PIPE, "cmd a, b"), Item(Kind.USER, "bob")]),
        ("|cmd 'a, \"b'", [Item(Kind.PIPE, "cmd 'a, \"b'")]),
        (r"|cmd a\, b", [Item(Kind.PIPE, "cmd a, b")]),
        (r"\bob", [Item(Kind.USER, "bob")]),
        (r"|a\\b", [Item(Kind.PIPE, r"a\b")]),
        ("error:550 No such user", [Item(Kind.ERROR, "550 No such user")]),
        (":ERROR:451 later", [Item(Kind.ERROR, "451 later")]),
        (":include:/etc/list", [Item(Kind.INCLUDE, "/etc/list")]),
        ("include:/etc/list", [Item(Kind.INCLUDE, "/etc/list")]),
    ],
)
def test_values(value: str, items: list[Item]) -> None:
    assert aliases.parse_value(value) == items


@pytest.mark.parametrize(
    "value",
    [
        "foo bar",
        '"alice"',
        "error:600 x",
        "error:55 x",
        "error:550 ",
        "u@[1.2.3.4]",
        "@b",
        "a@",
        "a@b@c",
        "include:relative",
        "'bob",
        'bob"',
        '"|cmd',
        "bob\\",
        "b\xf6b",
        "x" * 2048,
        "\u20ac" * 700,
        "bob\n@example.org",
        "bob, , fo o",
    ],
)
def test_refusals(value: str) -> None:
    with pytest.raises(AliasError):
        aliases.parse_value(value)


def test_a_forward_file() -> None:
    text = "# to both\nbob, \\\n  alice # comment\n\n|cmd \\# 1\ninclude:/etc/x\n/file"
    assert aliases.parse_forward(text) == [
        Item(Kind.USER, "bob"),
        Item(Kind.USER, "alice"),
        Item(Kind.PIPE, "cmd # 1"),
        Item(Kind.FILE, "/file"),
    ]
    with pytest.raises(AliasError):
        aliases.parse_forward("bob\nfoo bar\n")
    assert list(aliases.logical_lines("a\\\nb\\")) == ["ab"]


def test_a_bad_line_does_not_spoil_a_list() -> None:
    items, refused = aliases.parse_include("bob\nfoo bar\nalice@example.org\n:include:/x\n")
    assert items == [Item(Kind.USER, "bob"), Item(Kind.ADDRESS, "alice@example.org")]
    assert len(refused) == 1


texts = st.text(alphabet="ab@.,\\\"'|/: #\nerror5 include", max_size=40) | st.text()


@given(texts)
def test_any_text_is_understood_or_refused(text: str) -> None:
    for parse in (aliases.parse_value, aliases.parse_forward):
        try:
            items = parse(text)
        except AliasError:
            continue
        assert all(isinstance(item, Item) for item in items)
    aliases.parse_include(text)


@given(st.lists(st.text(alphabet="ab,\\ |\"'x", min_size=1, max_size=6).map(str.strip), max_size=4))
def test_escaped_items_come_back(items: list[str]) -> None:
    items = [item for item in items if item]
    escaped = [
        "".join("\\" + letter if letter in "\\\"'," else letter for letter in item)
        for item in items
    ]
    assert aliases.split_value(",".join(escaped)) == items
