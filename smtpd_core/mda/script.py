"""Shell commands with %{...} in them, made so that no value is ever read by the shell as code.

The original puts the values into the command line and then gives the line to a shell, where an
address can become a command. Here each %{...} becomes a reference to an environment variable,
MDA_1 and so on, that holds the value; what the shell parses is what the configuration, or the
user's .forward, says and nothing else.

The reference is quoted to fit the place it stands in: `%{sender}` becomes `"${MDA_1}"`, inside
double quotes `${MDA_1}`, inside single quotes `'"${MDA_1}"'`. What a command sees differs from
the original in this: a value is always one word, even an empty one or one with blanks in it; and
quotes that a value holds are part of it. The variables are exported, so that the command inside
a wrapper's `sh -c '%{mda}'` finds them too: there %{mda} is text, quoted for its place.
Two places are beyond this: in a here-document the quotes remain, and inside a substitution that
is itself in quotes, `"$(x "%{sender}")"`, blanks part the value into words. Neither is code.

Source: smtpd.conf(5).
"""

from __future__ import annotations

import enum
import re
from typing import List, NamedTuple, Optional, Tuple

from smtpd_core.mda.variables import Reference, Values, VariableError, split, value_of
from smtpd_core.text import encode

MAX_REFERENCES = 24  # in one command with its wrapper
MAX_SCRIPT = 8000  # octets; a command and a wrapper have 2047 each before they are quoted
VARIABLE = "MDA_"

_UNQUOTED = re.compile(r"""\\.?|['"]|(?<=[\s;&|()])#""", re.DOTALL)
_DOUBLE = re.compile(r'\\.?|"', re.DOTALL)
_FOR_DOUBLE = re.compile(r'[\\"$`]')


class _Place(enum.Enum):
    """Where in a shell's text one is."""

    UNQUOTED = "unquoted"
    SINGLE = "'"
    DOUBLE = '"'
    COMMENT = "#"


class Script(NamedTuple):
    """What `/bin/sh -c` gets, and the variables it refers to."""

    text: str
    variables: Tuple[Tuple[str, str], ...] = ()


def shell_script(command: str, values: Values, wrapper: Optional[str] = None) -> Script:
    """Make the script of a command, inside its wrapper if there is one.

    Raises VariableError when anything cannot be expanded, or the result is too long.
    """
    writer = _Writer(values)
    text = writer.write(command)
    if wrapper is not None:
        text = writer.write(wrapper, text)
    if "\0" in text or len(encode(text)) > MAX_SCRIPT:
        raise VariableError(f"a command of {len(text)} characters, or with a NUL")
    return Script(text, tuple(writer.variables))


class _Writer:
    """One script being made, and the variables it has so far."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.variables: List[Tuple[str, str]] = []

    def write(self, pattern: str, inner: Optional[str] = None) -> str:
        place = _Place.COMMENT if pattern.startswith("#") else _Place.UNQUOTED
        script = ""
        for piece in split(pattern):
            if isinstance(piece, str):
                place, kept = _walk(place, piece)
                script += kept
            elif piece.name == "mda" and inner is not None:
                script += _quote_code(inner, place)
            else:
                script += self._refer(piece, place)
        return script

    def _refer(self, reference: Reference, place: _Place) -> str:
        if len(self.variables) >= MAX_REFERENCES:
            raise VariableError(f"more than {MAX_REFERENCES} variables in a command")
        name = f"{VARIABLE}{len(self.variables) + 1}"
        self.variables.append((name, value_of(reference, self.values)))
        return _QUOTED_REFERENCE[place] % name


_QUOTED_REFERENCE = {
    _Place.UNQUOTED: '"${%s}"',
    _Place.SINGLE: "'\"${%s}\"'",
    _Place.DOUBLE: "${%s}",
    _Place.COMMENT: '"${%s}"',
}


def _quote_code(inner: str, place: _Place) -> str:
    if place is _Place.SINGLE:
        return inner.replace("'", "'\\''")
    if place is _Place.DOUBLE:
        return _FOR_DOUBLE.sub(lambda match: "\\" + match[0], inner)
    return inner if place is _Place.UNQUOTED else ""


def _walk(place: _Place, text: str) -> Tuple[_Place, str]:
    """Tell where a text leads from a place, and give it without a backslash at its very end.

    That one would take the quote of what follows away.
    """
    position = 0
    while position < len(text):
        if place is _Place.SINGLE or place is _Place.COMMENT:
            end = text.find("'" if place is _Place.SINGLE else "\n", position)
            if end < 0:
                break
            place, position = _Place.UNQUOTED, end + 1
            continue
        pattern = _DOUBLE if place is _Place.DOUBLE else _UNQUOTED
        match = pattern.search(text, position)
        if match is None:
            break
        if match[0] == "\\":
            return place, text[:-1]
        position = match.end()
        if place is _Place.DOUBLE:
            place = _Place.UNQUOTED if match[0] == '"' else place
        elif not match[0].startswith("\\"):
            place = _Place(match[0])
    return place, text
