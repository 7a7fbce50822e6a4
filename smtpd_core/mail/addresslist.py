"""Edit the address lists of To, Cc and From fields without touching anything else in them.

A list is octets with its folding. It is cut at commas that stand outside quotes, comments and
angle brackets; a piece that cannot be understood (open quotes or comments, groups) stays as it
is: a list that was not changed is the same octets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Callable, Optional

_BLANKS = b" \t\r\n"

# The octets at which the state of the scan can change, or a word that is none of them.
_TOKEN = re.compile(rb'\\[\s\S]?|["(),<>:;@]|[^\\"(),<>:;@]+')


@dataclass
class _Piece:
    """One element of a list: where it starts, and what stands where in it."""

    start: int
    end: int = 0
    open_bracket: Optional[int] = None  # offset behind `<`
    close_bracket: Optional[int] = None  # offset of `>`
    inside_end: int = 0  # behind the last word in the brackets, or behind `<`
    word_end: Optional[int] = None  # behind the last octet outside comments that is not blank
    has_domain: bool = False
    in_group: bool = False


@dataclass
class _Scan:
    """The state of one walk over a list."""

    value: bytes
    pieces: list[_Piece] = field(default_factory=list)
    depth: int = 0  # of comments
    quoted: bool = False
    in_group: bool = False
    escaping: bool = False  # a backslash with nothing behind it

    @property
    def current(self) -> _Piece:
        return self.pieces[-1]

    @property
    def in_bracket(self) -> bool:
        return self.current.open_bracket is not None and self.current.close_bracket is None

    def run(self) -> Optional[list[_Piece]]:
        """Cut the list; None when quotes, comments, brackets or an escape stay open."""
        self.pieces.append(_Piece(0))
        for match in _TOKEN.finditer(self.value):
            self._take(match)
        self.current.end = len(self.value)
        if self.quoted or self.depth or self.in_bracket or self.escaping:
            return None
        return self.pieces

    def _take(self, match: re.Match[bytes]) -> None:
        token = match[0]
        self.escaping = token == b"\\"
        if self.depth:
            self.depth += (token == b"(") - (token == b")")
            return
        if token == b"(" and not self.quoted:
            self.depth = 1
            return
        if token == b'"':
            self.quoted = not self.quoted
        elif not self.quoted and len(token) == 1:
            self._special(token, match.start())
        words = token if token.startswith(b"\\") else token.rstrip(_BLANKS)
        if words and (token != b"," or self.quoted or self.in_bracket):
            self.current.word_end = match.start() + len(words)

    def _special(self, token: bytes, at: int) -> None:
        piece = self.current
        if token == b"<" and piece.open_bracket is None:
            piece.open_bracket = at + 1
        elif token == b">" and self.in_bracket:
            piece.close_bracket = at
            piece.inside_end = piece.word_end or 0
        elif token == b"@":
            piece.has_domain = True
        elif token == b":" and not self.in_bracket:
            piece.in_group = self.in_group = True
        elif token == b";" and not self.in_bracket:
            self.in_group = False
        elif token == b"," and not self.in_bracket:
            piece.end = at
            self.pieces.append(_Piece(at + 1, in_group=self.in_group))


def _edit(value: bytes, change: Callable[[bytes, _Piece], bytes]) -> bytes:
    """Replace each element by what change makes of it; nothing is changed when a scan fails."""
    pieces = _Scan(value).run()
    if pieces is None:
        return value
    return b",".join(
        value[piece.start : piece.end] if piece.in_group else change(value, piece)
        for piece in pieces
    )


def append_domain(value: bytes, domain: bytes) -> bytes:
    """Complete each address that has no `@` with `@domain`.

    It goes inside `<...>` when there is one, else behind the last word outside comments.
    """

    def complete(value: bytes, piece: _Piece) -> bytes:
        original = value[piece.start : piece.end]
        at = piece.word_end
        if piece.open_bracket is not None and piece.close_bracket is not None:
            at = piece.inside_end if piece.inside_end > piece.open_bracket else None
        if piece.has_domain or at is None:
            return original
        return value[piece.start : at] + b"@" + domain + value[at : piece.end]

    return _edit(value, complete)


def masquerade(value: bytes, address: bytes) -> bytes:
    """Put one address in the place of each; a display name before `<...>` is kept."""

    def replace(value: bytes, piece: _Piece) -> bytes:
        if piece.open_bracket is not None and piece.close_bracket is not None:
            before = value[piece.start : piece.open_bracket]
            return before + address + value[piece.close_bracket : piece.end]
        original = value[piece.start : piece.end]
        if piece.word_end is None:
            return original
        words = original.lstrip(_BLANKS)
        blanks = original[: len(original) - len(words)]
        return blanks + address + value[piece.word_end : piece.end]

    return _edit(value, replace)
