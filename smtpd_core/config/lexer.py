"""Cut configuration text into tokens, with macros, continuation lines and included files.

The rules are the original's, down to the line that an error is blamed on: that of the token read
last. A macro's value is read again where the macro stands, so it may hold several tokens or a
part of one; inside a value `$` does nothing, which also keeps expansion finite.

Source: smtpd.conf(5); the lexer shared by OpenBSD's configuration files.
"""

from __future__ import annotations

import re
import string
from typing import Callable, Dict, List, NamedTuple, Optional, Pattern, Set

MAX_QUOTED = 8094  # characters of a quoted word or a macro name, as the original
MAX_BARE = 8095  # characters of a bare word or a number, as the original
MAX_EXPANDED = 1 << 20  # characters out of macros in all: two octets can ask for MAX_QUOTED

STRING = "STRING"
NUMBER = "NUMBER"
NEWLINE = "\n"
ARROW = "=>"
BAD = "BAD"  # what the lexer has reported itself
END = ""

# Every word that is a keyword even where a name is expected; quotes make it a name. The last
# line belongs to no statement and is reserved all the same.
KEYWORDS = frozenset(
    """
    action admd alias any auth auth-optional backup bounce bypass ca cert chain chroot ciphers
    commit compression connect data dhe disconnect domain ehlo encryption expand-only fcrdns filter
    for forward-only from group helo helo-src host hostname hostnames include inet4 inet6 junk key
    limit listen lmtp local mail-from maildir mask-src masquerade match max-deferred
    max-message-size mbox mda mta mx no-dsn no-verify on phase pki port proc proc-exec protocols
    proxy-v2 queue rcpt-to rdns received-auth regex reject relay report rewrite scheduler senders
    smtp smtps socket src srs sub-addr-delim table tag tls tls-require ttl user userbase verify
    virtual warn-interval wrapper
    data-line noop quit recipient rset smtp-in smtp-out tagged
    """.split()  # noqa: SIM905 - words are read as words
)

_DIGITS = frozenset(string.digits)
_NAME = frozenset(string.ascii_letters + string.digits + "_")
_BARE_START = _NAME | {":"}
_BARE = frozenset(string.ascii_letters + string.digits + string.punctuation) - set("(){}<>!=#,")
_NUMBER_END = frozenset(" \t\n\v\f\r),/}=") | {END}
_MOST_DIGITS = 19  # of a number in 63 bits

# Runs that need no second look; what they stop at is read one character at a time.
_BARE_RUN = re.compile("[" + re.escape("".join(sorted(_BARE - {"\\"}))) + "]*")
_COMMENT_RUN = re.compile(r"[^\\\n]*")
_QUOTED_RUN = {quote: re.compile(rf"[^\\\n\0{quote}]*") for quote in "'\""}

_DONE = "end of macro"  # stands among single characters put back


class Token(NamedTuple):
    """A keyword or a sign by its own kind; a word is STRING with its text, a number NUMBER."""

    kind: str
    text: str = ""
    number: int = 0


class _Source:
    """A file being read."""

    __slots__ = ("ended", "line", "name", "position", "put_back", "text")

    def __init__(self, name: str, text: str, line: int) -> None:
        self.name = name
        self.text = text
        self.line = line
        self.position = 0
        self.put_back: List[str] = []  # next one last
        self.ended = False


class Lexer:
    """Tokens of a file and of the files it includes.

    line is the number of the line of the token read last, file the name of the file being read.
    What is wrong is told to report, then read over as the original does.
    """

    def __init__(self, text: str, name: str, report: Callable[[str], None]) -> None:
        self._sources = [_Source(name, text, 1)]
        self._report = report
        self._macros: Dict[str, str] = {}
        self._fixed: Set[str] = set()
        self._expanding = False
        self._expanded = 0
        self.line = 1

    @property
    def file(self) -> str:
        """The name of the file being read."""
        return self._sources[-1].name

    @property
    def depth(self) -> int:
        """How many files are open, the main one included."""
        return len(self._sources)

    def define(self, name: str, value: str, *, fixed: bool = False) -> None:
        """Set a macro; one that is fixed, from the command line, cannot be set again."""
        if name not in self._fixed:
            self._macros[name] = value
            if fixed:
                self._fixed.add(name)

    def include(self, name: str, text: str) -> None:
        """Go on in another file, then here; call it before the next token is read.

        The line of the include ends at once, so what follows it on its line is a statement.
        """
        self._sources.append(_Source(name, text, 0))
        self._unread("\n")

    def next(self) -> Token:
        """Read a token; END when everything has been read."""
        while True:
            char = self._char()
            while char in (" ", "\t"):
                char = self._char()
            self.line = self._sources[-1].line
            if char == "#":
                while char not in ("\n", END):
                    self._run(_COMMENT_RUN, len(self._sources[-1].text))
                    char = self._char()
            if char != "$" or self._expanding:
                return self._token(char)
            token = self._expand()
            if token is not None:
                return token

    def _token(self, char: str) -> Token:
        if char in ('"', "'"):
            return self._quoted(char)
        if char == "-" or char in _DIGITS:
            token = self._number(char)
            if token is not None:
                return token
        if char == "=":
            following = self._char()
            if following == ">":
                return Token(ARROW)
            self._unread(following)
            return Token(char)
        if char in _BARE_START:
            return self._bare(char)
        if char == "\n":
            source = self._sources[-1]
            self.line = source.line
            source.line += 1
        return Token(char)

    def _expand(self) -> Optional[Token]:
        """Read a macro's name and put its value back; a token only if that failed."""
        name = ""
        while True:
            char = self._char()
            if char == END:
                return Token(END)
            if len(name) >= MAX_QUOTED:
                return self._bad("string too long")
            if char not in _NAME:
                break
            name += char
        self._unread(char)
        value = self._macros.get(name)
        if value is None:
            return self._bad(f"macro '{name}' not defined")
        self._expanded += len(value)
        if self._expanded > MAX_EXPANDED:
            return self._bad(f"macros expand to more than {MAX_EXPANDED} characters")
        put_back = self._sources[-1].put_back
        put_back.append(_DONE)
        put_back.extend(reversed(value))
        self._expanding = True
        return None

    def _quoted(self, quote: str) -> Token:
        """Read a quoted word: line ends drop out, a backslash keeps itself but before a few."""
        parts: List[str] = []
        length = 0
        while True:
            run = self._run(_QUOTED_RUN[quote], MAX_QUOTED - length)
            parts.append(run)
            length += len(run)
            char = self._quoted_char(quote)
            if char == END:
                return Token(END)
            if char == quote:
                return Token(STRING, "".join(parts))
            if char == "\\":
                char = self._escaped(quote)
                if char == END:
                    return Token(END)
            if char == "\n":
                self._sources[-1].line += 1
            elif char == "\0":
                return self._bad("syntax error")
            elif length >= MAX_QUOTED:
                return self._bad("string too long")
            else:
                parts.append(char)
                length += 1

    def _escaped(self, quote: str) -> str:
        """Read what a backslash in quotes stands for, itself before most characters."""
        following = self._quoted_char(quote)
        if following in (END, "\n", quote, " ", "\t"):
            return following
        self._unread(following)
        return "\\"

    def _number(self, char: str) -> Optional[Token]:
        """Read a number; None when what follows makes it a word, with all but char put back."""
        digits = ""
        following = self._char()
        while following in _DIGITS:
            digits += following
            if len(digits) >= MAX_BARE:
                return self._bad("string too long")
            following = self._char()
        self._unread(following)
        if following not in _NUMBER_END or (char == "-" and not digits):
            for digit in reversed(digits):
                self._unread(digit)
            return None
        spelled = char + digits
        number = int(spelled) if len(spelled.lstrip("-0")) <= _MOST_DIGITS else 1 << 64
        if not -(1 << 63) <= number < 1 << 63:
            size = "small" if char == "-" else "large"
            return self._bad(f'"{spelled}" invalid number: too {size}')
        return Token(NUMBER, spelled, number)

    def _bare(self, char: str) -> Token:
        parts: List[str] = []
        length = 0
        while char in _BARE and char != END:
            parts.append(char)
            length += 1
            if length > MAX_BARE:
                return self._bad("string too long")
            run = self._run(_BARE_RUN, MAX_BARE - length)
            parts.append(run)
            length += len(run)
            char = self._char()
        self._unread(char)
        word = "".join(parts)
        return Token(word) if word in KEYWORDS else Token(STRING, word)

    def _bad(self, text: str) -> Token:
        """Report, and read over the rest of the line, its end included."""
        self._report(text)
        char = self._char()
        while char not in ("\n", END):
            char = self._char()
        if char == "\n":
            self._sources[-1].line += 1
        return Token(BAD)

    def _run(self, pattern: Pattern[str], most: int) -> str:
        """Take what the pattern takes of plain text, up to most characters."""
        source = self._sources[-1]
        if source.put_back:
            return ""
        match = pattern.match(source.text, source.position, source.position + most)
        assert match is not None
        source.position = match.end()
        return match.group()

    def _raw(self) -> str:
        """Read a character of the current file as it stands; END past its last one."""
        source = self._sources[-1]
        while source.put_back:
            char = source.put_back.pop()
            if char != _DONE:
                return char
            self._expanding = False
        if source.position >= len(source.text):
            return END
        source.position += 1
        return source.text[source.position - 1]

    def _unread(self, char: str) -> None:
        if char != END:
            self._sources[-1].put_back.append(char)

    def _char(self) -> str:
        """Read a character outside quotes: continuation lines joined, files one after another.

        A file without a last line end is given one.
        """
        char = self._raw()
        while char == "\\":
            char = self._raw()
            if char != "\n":
                break  # a backslash before anything else only vanishes
            source = self._sources[-1]
            self.line = source.line
            source.line += 1
            char = self._raw()
        if char == END:
            if not self._sources[-1].ended:
                self._sources[-1].ended = True
                return "\n"
            while char == END and len(self._sources) > 1:
                self._sources.pop()
                char = self._raw()
        return char

    def _quoted_char(self, quote: str) -> str:
        char = self._raw()
        if char != END:
            return char
        self._report("reached end of file while parsing quoted string")
        if len(self._sources) == 1:
            return END
        self._sources.pop()
        return quote
