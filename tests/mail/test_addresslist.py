"""Address lists; most cases are vectors of the header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail.addresslist import append_domain, masquerade


@pytest.mark.parametrize(
    ("given_list", "expected"),
    [
        (b" a@b", b" m@n"),
        (b' Me <a@b>, "x, y" <c>', b' Me <m@n>, "x, y" <m@n>'),
        (b" a@b,\n\tc", b" m@n,\n\tm@n"),
        (b" a@b (comment)", b" m@n (comment)"),
        (b" g: a, b;", b" g: a, b;"),
        (b' "open <a@b>', b' "open <a@b>'),
        (b"", b""),
        (b" , ", b" , "),
    ],
)
def test_masquerade(given_list: bytes, expected: bytes) -> None:
    assert masquerade(given_list, b"m@n") == expected


@pytest.mark.parametrize(
    ("given_list", "expected"),
    [
        (b" <joe (x) >", b" <joe@D (x) >"),
        (b" <(x)>", b" <(x)>"),
        (b" < >", b" < >"),
        (b" <\\ >", b" <\\ @D>"),
        (b" a\\", b" a\\"),
    ],
)
def test_completing(given_list: bytes, expected: bytes) -> None:
    assert append_domain(given_list, b"D") == expected


_LISTS = st.text('ab@<>(),:;"\\ \t', max_size=40).map(str.encode)


@given(_LISTS)
def test_completing_only_adds_the_domain(value: bytes) -> None:
    changed = append_domain(value, b"D")
    assert changed.replace(b"@D", b"") == value.replace(b"@D", b"")


@given(_LISTS)
def test_completing_twice_changes_nothing_more(value: bytes) -> None:
    once = append_domain(value, b"D")
    assert append_domain(once, b"D") == once


@given(st.binary(max_size=60))
def test_any_octets(value: bytes) -> None:
    append_domain(value, b"D")
    masquerade(value, b"m@n")
