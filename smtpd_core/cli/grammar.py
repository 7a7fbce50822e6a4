"""Match the words of a command line against the command table.

The patterns form a tree of words. Each word of the command line picks one child of the node
reached so far: the first child that it equals (a keyword) or satisfies (a parameter), else the
only keyword that it abbreviates. Source: OpenSMTPD parser.c cmd_check, cmd_run.
"""

from __future__ import annotations

from smtpd_core import ids
from smtpd_core.cli import commands
from smtpd_core.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

_ROUTEID_MAX = (1 << 63) - 1
_ROUTEID_DIGITS = 19  # of the largest route id; keeps int() away from hostile lengths
_SCOPE_MAX = 0xFFFFFFFF  # an interface index is 32 bits wide
_SCOPE_DIGITS = 10
_ANY_WORDS = "..."


class GrammarError(FormatError):
    """Words that are no command; says what could have stood where they went wrong."""

    def __init__(self, words: list[str], path: tuple[str, ...], children: list[str]) -> None:
        """Take the words as typed, the pattern words they matched, and what may follow those."""
        known = len(path)
        self.word = words[known] if len(words) > known else None  # the first that has no meaning
        super().__init__("unfinished command" if self.word is None else "no such command")
        self.words = words
        self.path = path
        self.children = children

    def lines(self) -> list[str]:
        """Spell the refusal in the original's words, one item a line."""
        if not self.children:
            return ["invalid command"]
        return ["possibilities are:", *(" ".join((*self.path, child)) for child in self.children)]


class Position:
    """How far words led: the pattern words passed, and the table's rows still possible."""

    __slots__ = ("arguments", "path", "rows")

    def __init__(
        self, path: tuple[str, ...], arguments: list[str], rows: list[tuple[list[str], str]]
    ) -> None:
        """Hold pattern words, parameter values as typed, and (pattern words, handler) rows."""
        self.path = path
        self.arguments = arguments
        self.rows = rows

    def children(self) -> list[str]:
        """Give the pattern words that may come next, each once, in the table's order."""
        depth = len(self.path)
        return list(dict.fromkeys(words[depth] for words, _ in self.rows if len(words) > depth))

    def shown_children(self) -> list[str]:
        """Give the same as the original would: at the first level without our own words."""
        return [child for child in self.children() if self.path or child not in commands.OURS]

    def handler(self) -> Optional[str]:
        """Give the handler of the command that is complete here, if one is."""
        depth = len(self.path)
        for words, handler in self.rows:
            if len(words) == depth or words[depth] == _ANY_WORDS:
                return handler
        return None


def start() -> Position:
    """Give the position before the first word."""
    return Position((), [], [(pattern.split(), handler) for pattern, handler in commands.COMMANDS])


def walk(words: list[str]) -> Position:
    """Follow words as far as they go, to a command or not; raises GrammarError."""
    position = start()
    for number, word in enumerate(words):
        depth = len(position.path)
        children = position.children()
        if _ANY_WORDS in children:
            return Position(position.path, words[number:], position.rows)
        child = _choose(position.path, children, word)
        if child is None:
            raise GrammarError(words, position.path, position.shown_children())
        rows = [row for row in position.rows if len(row[0]) > depth and row[0][depth] == child]
        arguments = [*position.arguments, word] if child[0] == "<" else position.arguments
        position = Position((*position.path, child), arguments, rows)
    return position


def match(words: list[str]) -> tuple[str, str, list[str]]:
    """Find the command that words mean: its handler, its key and its arguments as typed.

    Raises GrammarError when they are no command, or only the beginning of some.
    """
    position = walk(words)
    handler = position.handler()
    if handler is None:
        raise GrammarError(words, position.path, position.shown_children())
    return handler, key(position.path), position.arguments


def key(path: tuple[str, ...]) -> str:
    """Name the command a path belongs to: its words up to the first parameter.

    `all` stands where an id could, so `remove all` and `remove <msgid>` are one command.
    """
    words: list[str] = []
    for word in path:
        if word[0] == "<" or word == _ANY_WORDS or (word == "all" and words):
            break
        words.append(word)
    return " ".join(words)


def candidates(path: tuple[str, ...], children: list[str], word: str) -> list[str]:
    """Give the keywords that a word abbreviates here; the manual's words come before ours."""
    found = [child for child in children if child[0] != "<" and child.startswith(word)]
    if not path:
        return [child for child in found if child not in commands.OURS] or found
    return found


def _choose(path: tuple[str, ...], children: list[str], word: str) -> Optional[str]:
    for child in children:
        if child == word or (child[0] == "<" and accepts(child, word)):
            return child
    if (path, word) in commands.TIE_BREAKS:
        return commands.TIE_BREAKS[path, word]
    found = candidates(path, children, word)
    return found[0] if len(found) == 1 else None


def accepts(parameter: str, word: str) -> bool:
    """Tell whether a word has the form of a parameter such as `<msgid>`."""
    return _TESTS[parameter](word)


def _is_msgid(word: str) -> bool:
    try:
        ids.parse_msgid(word)
    except ids.IdError:
        return False
    return True


def _is_evpid(word: str) -> bool:
    try:
        ids.parse_evpid(word)
    except ids.IdError:
        return False
    return True


def _is_routeid(word: str) -> bool:
    digits = word.lstrip(" \t\n\v\f\r")  # strtonum(3) passes over blanks and one sign
    digits = (digits[1:] if digits[:1] == "+" else digits).lstrip("0")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _ROUTEID_DIGITS:
        return False
    return int(digits) <= _ROUTEID_MAX


def _is_address(word: str) -> bool:
    """Tell whether a word is an IPv4 address, or an IPv6 address with or without a scope."""
    import _socket

    address, percent, scope = word.partition("%")
    try:
        if not percent:
            try:
                _socket.inet_pton(_socket.AF_INET, word)
            except OSError:
                _socket.inet_pton(_socket.AF_INET6, word)
            return True
        octets = _socket.inet_pton(_socket.AF_INET6, address)
    except (OSError, ValueError):  # ValueError: a NUL, or text that is not UTF-8
        return False
    if scope.isascii() and scope.isdigit() and len(scope) <= _SCOPE_DIGITS:
        return int(scope) <= _SCOPE_MAX
    return _is_local(octets) and _is_interface(scope)


def _is_local(octets: bytes) -> bool:
    """Tell whether an IPv6 address means something on one link only. Source: RFC 4291."""
    if octets[0] == 0xFF:
        return octets[1] & 0x0F in (1, 2)  # multicast, interface-local or link-local
    return octets[0] == 0xFE and octets[1] & 0xC0 == 0x80


def _is_interface(name: str) -> bool:
    import _socket

    try:
        _socket.if_nametoindex(name)
    except (OSError, ValueError):
        return False
    return True


_TESTS: dict[str, Callable[[str], bool]] = {
    "<msgid>": _is_msgid,
    "<evpid>": _is_evpid,
    "<routeid>": _is_routeid,
    "<addr>": _is_address,
    "<str>": lambda _: True,
}
