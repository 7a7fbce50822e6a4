"""POSIX extended regular expressions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.tables.posix import RegexError, compile_extended


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("^@$", ["@"], ["a@", "@\n", ""]),
        ("example\\.org$", ["example.org", "a.example.org"], ["examplexorg", "example.org."]),
        ("a|b", ["xa", "bx"], ["c"]),
        ("^[[:alpha:]_]+$", ["a_b"], ["a1", ""]),
        ("^[]a]$", ["]", "a"], ["b"]),
        ("^[^]a]$", ["b"], ["]", "a"]),
        ("^[a-]$", ["a", "-"], ["b"]),
        (r"^[\d]$", ["\\", "d"], ["1"]),
        ("^[[:digit:]-]+$", ["1-2"], ["a"]),
        ("^[+--]$", ["+", ",", "-"], ["."]),
        ("^a{2}$", ["aa"], ["a", "aaa"]),
        ("^a{,2}$", ["", "aa"], ["aaa"]),
        ("^a{1,}$", ["a", "aaa"], [""]),
        ("^a{x}$", ["a{x}"], ["a"]),
        ("^a**$", ["", "aa"], ["b"]),
        ("^a*+a$", ["a", "aa"], [""]),
        ("^a+?$", ["", "aa"], ["b"]),
        ("^(ab)+$", ["abab"], ["aba"]),
        (r"^(a|b)\1$", ["aa", "bb"], ["ab"]),
        (r"\<mail\>", ["a mail b"], ["email"]),
        (r"^\w+\.\w+$", ["a.b"], ["a-b"]),
        (r"^a\+b$", ["a+b"], ["aab"]),
        ("a.b", ["a\nb"], ["ab"]),
        ("", ["", "anything"], []),
    ],
)
def test_patterns(pattern: str, matching: list[str], other: list[str]) -> None:
    compiled = compile_extended(pattern)
    for subject in matching:
        assert compiled.search(subject), subject
    for subject in other:
        assert not compiled.search(subject), subject


def test_case_may_be_ignored() -> None:
    assert compile_extended("^A[b-c]$", ignore_case=True).search("aB")


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[a",
        "[]",
        "[[:nope:]]",
        "[[.a.]]",
        "[b-a]",
        "*a",
        "a\\",
        "(?P<x>a)",
        "a{2}{3}",
        "a{2}*",
        "a{3,2}",
        "x" * 1025,
        "(" * 500,
        "a{99999999999}",
    ],
)
def test_refusals(pattern: str) -> None:
    with pytest.raises(RegexError):
        compile_extended(pattern)


@given(st.text(alphabet="ab[]()^$.*+?{}\\|,01-:!d \n", max_size=20))
def test_any_text_is_a_pattern_or_refused(pattern: str) -> None:
    try:
        compile_extended(pattern)
    except RegexError:
        pass
