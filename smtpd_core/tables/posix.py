"""POSIX extended regular expressions, spelled for Python's re.

Source: POSIX.1-2017 XBD section 9.4, with the extensions of the C libraries that rules in the
field use: word classes, word ends, back references.
"""

from __future__ import annotations

import re

from smtpd_core.errors import FormatError

MAX_PATTERN = 1024  # characters, as long as any table key
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t-\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_ESCAPES = {
    **{letter: "\\" + letter for letter in "wWsSbB123456789"},
    "<": r"\b(?=\w)",
    ">": r"\b(?<=\w)",
    "`": r"\A",
    "'": r"\Z",
}
_TOKEN = re.compile(
    r"""\\(?P<escape>.)
    | (?P<bracket>\[)
    | (?P<repeat>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\}|\{,[0-9]+\})+)
    | (?P<mark>[()|^$.])
    | (?P<plain>[^\\])""",
    re.DOTALL | re.VERBOSE,
)
_BRACKET = re.compile(
    r"""\[(?P<not>\^?)
    (?P<items>\]?(?:\[:[a-z]*:\]|\[(?![.=:])|[^\]\[])*)
    \]""",
    re.DOTALL | re.VERBOSE,
)
_CLASS = re.compile(r"\[:([a-z]*):\]")


class RegexError(FormatError):
    """A pattern that is no extended regular expression."""


def compile_extended(pattern: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile an extended regular expression; search() then matches as regexec() does.

    Raises RegexError. A pattern can be slow: it belongs to the administrator, and what it is
    searched in is short.
    """
    if len(pattern) > MAX_PATTERN:
        raise RegexError(f"a pattern of {len(pattern)} characters")
    flags = re.DOTALL | re.ASCII | (re.IGNORECASE if ignore_case else 0)
    try:
        return re.compile(_translate(pattern), flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise RegexError(f"{pattern!r}: {error}") from error


def _translate(pattern: str) -> str:
    pieces = []
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            raise RegexError(f"{pattern!r}: a backslash at the end")
        position = token.end()
        if token["escape"]:
            pieces.append(_ESCAPES.get(token["escape"]) or re.escape(token["escape"]))
        elif token["bracket"]:
            text, position = _bracket(pattern, token.start())
            pieces.append(text)
        elif token["repeat"]:
            pieces.append(_repeat(token["repeat"]))
        elif token["mark"]:
            pieces.append(_mark(pattern, token))
        else:
            pieces.append(re.escape(token["plain"]))
    return "".join(pieces)


def _mark(pattern: str, token: re.Match[str]) -> str:
    if token["mark"] == "(" and pattern.startswith("?", token.end()):
        raise RegexError(f"{pattern!r}: nothing to repeat after a parenthesis")
    return r"\Z" if token["mark"] == "$" else token["mark"]


def _repeat(text: str) -> str:
    """Join repetitions of repetitions, which mean other things to re, into one."""
    if len(set(text)) == 1:
        return text[0]
    if "{" not in text:
        return "*"
    if text.count("{") > 1 or not text.startswith("{") or not text.endswith("}"):
        raise RegexError(f"{text!r}: a repetition of a repetition")
    return "{0" + text[1:] if text.startswith("{,") else text


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    match = _BRACKET.match(pattern, start)
    if match is None or not match["items"]:
        raise RegexError(f"{pattern!r}: a bad bracket expression")
    pieces = []
    items = match["items"]
    position = 0
    while position < len(items):
        named = _CLASS.match(items, position)
        if named is not None:
            if named[1] not in _CLASSES:
                raise RegexError(f"{pattern!r}: no character class {named[1]!r}")
            pieces.append(_CLASSES[named[1]])
            position = named.end()
        elif items[position + 1 : position + 2] == "-" and position + 2 < len(items):
            pieces.append(f"{_literal(items[position])}-{_literal(items[position + 2])}")
            position += 3
        else:
            pieces.append(_literal(items[position]))
            position += 1
    return f"[{match['not']}{''.join(pieces)}]", match.end()


def _literal(character: str) -> str:
    return "\\" + character if character in "\\]^[-&~|" else character
