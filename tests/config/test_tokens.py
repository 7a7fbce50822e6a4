"""What is blamed after an error, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List

import pytest

from smtpd_core.config.lexer import END, NEWLINE, NUMBER
from smtpd_core.config.tokens import StatementError, TokenStream

if TYPE_CHECKING:
    from smtpd_core.config.model import Config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a syntax error within three tokens of one is not told, line ends counted
        ("foo bar\nfoo bar\n", ["1: syntax error"]),
        ("foo bar\npki p foo\n", ["1: syntax error", "2: syntax error"]),
        ("foo bar\n\n\nfoo bar\n", ["1: syntax error", "4: syntax error"]),
        ("foo bar\n{\n{\nadmd a\n{\n", ["1: syntax error", "5: syntax error"]),
        # another refusal hushes the next syntax error, and is always told
        (
            'admd "\x7f"\n{\nadmd "\x7f"\n',
            ["1: not a valid admd", "3: not a valid admd"],
        ),
        # what was declared before the error stays declared
        ("action x mbox foo\nmatch for any action x\n", ["1: syntax error"]),
        ("match for any reject reject\n", ["1: syntax error"]),
        ("table t { a = b c }\naction x mbox alias <t>\n", ["1: syntax error"]),
        ("ca q\nlisten on lo ca q\n", ["1: syntax error"]),
        ("filter f phase connect foo\nlisten on lo filter f\n", ["1: syntax error"]),
        # and what was not is missing
        (
            "action x foo\nmatch for any action x\n",
            ["1: syntax error", "2: no such dispatcher: x"],
        ),
        # a macro that is not defined takes the line after it along
        (
            "match for any action $x\nfoo bar baz\nadmd x 5\n",
            ["1: macro 'x' not defined", "1: syntax error", "3: syntax error"],
        ),
        ("admd 5 $x\nfoo bar baz\n", ["1: syntax error", "1: macro 'x' not defined"]),
        # the line is that of the token read last
        ("admd \\\n 5\n", ["2: syntax error"]),
        ("table t {\na,\n}\nadmd x\n", ["3: syntax error"]),
        ("admd\nadmd x y\n", ["1: syntax error", "2: syntax error"]),
        (
            'action x relay\naction x \\\n"relay"',
            ["2: dispatcher already declared with that name: x"],
        ),
        # a carriage return is no blank
        ("admd x\r\n", ["1: syntax error"]),
    ],
)
def test_blame(text: str, expected: List[str], refused: Callable[..., List[str]]) -> None:
    assert refused(text) == expected


def test_a_list_breaks_into_lines_anywhere_but_before_a_comma(
    parse: Callable[..., Config], refused: Callable[..., List[str]]
) -> None:
    for text in ("{a,b}", "{ a b }", "{\n\na\n\nb\n\n}", "{ a,\n\n b }", "{ a\nb, c }"):
        assert parse(f"table t {text}").tables["t"].entries[:2] == (("a", None), ("b", None))
    for text in ("{ }", "{\n}", "{ a, }", "{ a\n, b }", "{ a,, b }", "{ , a }"):
        assert "syntax error" in refused(f"table t {text}")[0]


def test_numbers_are_not_negative() -> None:
    tokens = TokenStream("5 -5", "c", {})
    assert tokens.number() == 5
    with pytest.raises(StatementError):
        tokens.number()
    assert [str(problem) for problem in tokens.problems] == ["c:1: invalid number: -5"]


def test_peeking_reads_once() -> None:
    tokens = TokenStream("a 5", "c", {})
    assert tokens.begin() == "STRING"
    assert tokens.statement == ("c", 1)
    assert tokens.optional_string() == "a"
    assert tokens.optional_string() is None
    assert tokens.peek() == NUMBER
    assert tokens.accept(NUMBER)
    assert not tokens.accept(NUMBER)
    tokens.skip_newlines()
    assert tokens.peek() == END


def test_recovery_stops_at_the_end_of_the_line() -> None:
    tokens = TokenStream("a b c\nd", "c", {})
    tokens.take()
    tokens.recover()
    assert tokens.accept(NEWLINE)
    assert tokens.string() == "d"
