"""Tokens, and the line each is blamed on."""

from __future__ import annotations

from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.config.lexer import (
    BAD,
    END,
    KEYWORDS,
    MAX_BARE,
    MAX_QUOTED,
    NEWLINE,
    NUMBER,
    STRING,
    Lexer,
    Token,
)


def lex(text: str, **macros: str) -> Tuple[List[Token], List[str]]:
    """Read all tokens but the last line end that is always there."""
    problems: List[str] = []
    lexer = Lexer(text, "c", lambda problem: problems.append(f"{lexer.line}: {problem}"))
    for name, value in macros.items():
        lexer.define(name, value)
    tokens: List[Token] = []
    while not tokens or tokens[-1].kind != END:
        tokens.append(lexer.next())
    tokens.pop()
    if tokens and tokens[-1].kind == NEWLINE:
        tokens.pop()
    return tokens, problems


def spelled(text: str, **macros: str) -> List[str]:
    """Read text that is in order; words in parentheses."""
    tokens, problems = lex(text, **macros)
    assert not problems
    return [f"({token.text})" if token.kind == STRING else token.kind for token in tokens]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listen on lo", ["listen", "on", "(lo)"]),
        ("\"listen\" 'on'", ["(listen)", "(on)"]),
        ("Listen", ["(Listen)"]),
        ("a\tb  c", ["(a)", "(b)", "(c)"]),
        ("a # b", ["(a)"]),
        ("# a \\\n b\nc", [NEWLINE, "(c)"]),
        ("a \\\n b", ["(a)", "(b)"]),
        ("a\\\nb", ["(ab)"]),
        ("a \\\n\\\n b", ["(a)", "(b)"]),
        ("a\\ b", ["(a)", "(b)"]),
        ("a\\\\b", ["(a\\b)"]),
        ('"a\\"b"', ['(a"b)']),
        ('"a\\\'b"', ["(a\\'b)"]),
        ("'a\\'b\"'", ["(a'b\")"]),
        ('"a\\ b\\\tc"', ["(a b\tc)"]),
        ('"a\\nb"', ["(a\\nb)"]),
        ('"a\\\\b"', ["(a\\\\b)"]),
        ('"a\nb"', ["(ab)"]),
        ('"a\\\nb"', ["(ab)"]),
        ('"a # b"', ["(a # b)"]),
        ('""', ["()"]),
        ("a => b = c", ["(a)", "=>", "(b)", "=", "(c)"]),
        ("a=b", ["(a)", "=", "(b)"]),
        ("{a,b}", ["{", "(a)", ",", "(b)", "}"]),
        ("<a>", ["<", "(a)", ">"]),
        ("!tls", ["!", "tls"]),
        ("smtp+tls://u@h:587/x", ["(smtp+tls://u@h:587/x)"]),
        ('mail"x', ['(mail"x)']),
        ("::1 :: _a", ["(::1)", "(::)", "(_a)"]),
        ("@a", ["@", "(a)"]),
        ("/a", ["/", "(a)"]),
        ("-a", ["-", "(a)"]),
        ("5 -5", [NUMBER, NUMBER]),
        ("5,6}7)8=9", [NUMBER, ",", NUMBER, "}", NUMBER, ")", NUMBER, "=", NUMBER]),
        ("35M 4d 10.0.0.0/8", ["(35M)", "(4d)", "(10.0.0.0/8)"]),
        ("10/8", [NUMBER, "/", NUMBER]),
        ("1\\\n2", [NUMBER]),
        ("5\r", [NUMBER, "\r"]),
        ("é", ["é"]),
        ('"é"', ["(é)"]),
    ],
)
def test_tokens(text: str, expected: List[str]) -> None:
    assert spelled(text) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("$m", "a", ["(a)"]),
        ("$m", "listen on lo", ["listen", "on", "(lo)"]),
        ("$m", "'a b' c", ["(a b)", "(c)"]),
        ("$m", "", []),
        ("$m.b", "a", ["(a.b)"]),
        ("$m 6", "5", [NUMBER, NUMBER]),
        ("$m$m", "a", ["(a$m)"]),
        ("$m $m", "a ", ["(a)", "(a)"]),
        ("{$m}", "a", ["{", "(a)", "}"]),
        ("'$m'", "a", ["($m)"]),
        ("a$m", "a", ["(a$m)"]),
        ("$m", "$m", ["$", "(m)"]),
        ("$m", "# a", []),
        ("$m b'", "'a", ["(a b)"]),
    ],
)
def test_macros(text: str, value: str, expected: List[str]) -> None:
    assert spelled(text, m=value) == expected


@pytest.mark.parametrize(
    ("text", "kinds", "problems"),
    [
        # the rest of the line is read over with its end
        ("a $m b\nc", [STRING, BAD, STRING], ["1: macro 'm' not defined"]),
        ("a ${m}", [STRING, BAD], ["1: macro '' not defined"]),
        ('\nc "a\nb', [NEWLINE, STRING], ["2: reached end of file while parsing quoted string"]),
        ('"a\0b" c\nd', [BAD, STRING], ["1: syntax error"]),
        (f"{1 << 63}", [BAD], [f'1: "{1 << 63}" invalid number: too large']),
        (f"-{(1 << 63) + 1}", [BAD], [f'1: "-{(1 << 63) + 1}" invalid number: too small']),
        ("9" * 5000, [BAD], ['1: "' + "9" * 5000 + '" invalid number: too large']),
        ("9" * 9000, [BAD], ["1: string too long"]),
        ("a" * (MAX_BARE + 1), [BAD], ["1: string too long"]),
        ('"' + "a" * (MAX_QUOTED + 1) + '"', [BAD], ["1: string too long"]),
        ("$" + "a" * (MAX_QUOTED + 1), [BAD], ["1: string too long"]),
    ],
)
def test_what_is_no_token(text: str, kinds: List[str], problems: List[str]) -> None:
    tokens, found = lex(text)
    assert [token.kind for token in tokens] == kinds
    assert found == problems


def test_longest_words() -> None:
    assert spelled("a" * MAX_BARE) == ["(" + "a" * MAX_BARE + ")"]
    assert spelled('"' + "a" * MAX_QUOTED + '"') == ["(" + "a" * MAX_QUOTED + ")"]


def test_lines_of_tokens() -> None:
    lexer = Lexer("a \\\n b\n\n'c\nd' e\n# f\ng", "c", pytest.fail)
    lines = []
    for _ in range(10):
        token = lexer.next()
        lines.append((token.text or token.kind, lexer.line))
    assert lines == [
        ("a", 1),
        ("b", 2),
        ("\n", 2),
        ("\n", 3),
        ("cd", 4),
        ("e", 5),
        ("\n", 5),
        ("\n", 6),
        ("g", 7),
        ("\n", 7),
    ]
    assert lexer.next() == Token(END)


def test_a_quoted_word_ends_with_its_included_file() -> None:
    problems: List[str] = []
    lexer = Lexer(" b\n", "outer", problems.append)
    lexer.include("inner", '"a')
    kinds = [lexer.next().text for _ in range(3)]
    assert kinds == ["", "a", "b"]
    assert problems == ["reached end of file while parsing quoted string"]
    assert lexer.file == "outer"


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_round_trip(number: int) -> None:
    tokens, problems = lex(f"{number} {number:+d}" if number < 0 else f"{number} 0{number}")
    assert [token.number for token in tokens] == [number, number]
    assert not problems


@given(st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=50))
def test_quoted_words_round_trip(word: str) -> None:
    if "\\" not in word:
        assert spelled('"' + word.replace('"', '\\"') + '"') == [f"({word})"]


@given(st.text(max_size=200), st.text(max_size=40))
def test_any_text_ends(text: str, value: str) -> None:
    tokens, _ = lex(text, a=value)
    assert len(tokens) <= len(text) + 41 * text.count("$") + 2


def test_keywords_are_words() -> None:
    assert len(KEYWORDS) > 100
    for keyword in KEYWORDS:
        assert spelled(keyword) == [keyword]
