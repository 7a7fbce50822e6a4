"""The %{...} of commands and paths: what each stands for.

`%{token}`, `%{token[i]}`, `%{token[a:b]}`, each with `:modifier|modifier` behind it; `%%` is a
percent sign, and `~/` at the very beginning is the home directory. Two defects of the original
are not kept: an index and a modifier may stand together, and a result that is too long is an
error. Modifiers come first, then the replacing of characters, then the index.

Source: smtpd.conf(5), FORMAT SPECIFIERS; OpenSMTPD 7.8.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple, Union

from smtpd_core.errors import FormatError
from smtpd_core.tables.matching import fold
from smtpd_core.text import encode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Callable

MAX_TOKEN = 127  # octets between the braces
MAILER_DAEMON = "MAILER-DAEMON"  # who sent what has no sender
MAX_RESULT = 4095  # octets of a path, or of one value: what the system takes as a path

_REFERENCE = re.compile(r"%%|%\{([^}]*)\}")
_TOKEN = re.compile(
    r"(?P<name>[a-z.]+)"
    r"(?:\[(?P<begin>-?[0-9]{1,4})?(?P<colon>:)?(?P<end>-?[0-9]{1,4})?\])?"
    r"(?::(?P<modifiers>[a-z|]+))?",
    re.IGNORECASE,
)
# What a shell, a path or a user's script might take for more than a character of a name. Values
# never reach a shell as text here; this keeps the values those that the original gives.
_UNSAFE = str.maketrans(dict.fromkeys("!#$%&'*?`{|}~", ":"))
_PLAIN = frozenset(("user.directory", "mda"))  # not sanitised: not taken from mail


class VariableError(FormatError):
    """A command or path that cannot be expanded."""


class Values(NamedTuple):
    """What is known of a delivery; addresses are `local@domain`, a null sender is empty."""

    sender: str
    rcpt: str
    dest: str
    username: str
    directory: str
    delimiter: str = "+"


class Reference(NamedTuple):
    """One %{...}; begin and end count characters, end included, from the end when negative."""

    name: str
    begin: Optional[int] = None
    end: Optional[int] = None
    modifiers: Tuple[str, ...] = ()

    @property
    def raw(self) -> bool:
        """Tell whether every character stays as it is."""
        return "raw" in self.modifiers or self.name in _PLAIN


Piece = Union[str, Reference]


def split(pattern: str) -> List[Piece]:
    """Part a pattern into text and references; `%{` without `}` is text.

    Raises VariableError for a reference that is not understood.
    """
    pieces: List[Piece] = []
    if pattern.startswith("~/"):
        pieces.append(Reference("user.directory"))
        pattern = pattern[1:]
    position = 0
    for match in _REFERENCE.finditer(pattern):
        _add_text(pieces, pattern[position : match.start()])
        position = match.end()
        if match[1] is None:
            _add_text(pieces, "%")
        else:
            pieces.append(_parse(match[1]))
    _add_text(pieces, pattern[position:])
    return pieces


def _add_text(pieces: List[Piece], text: str) -> None:
    if text and pieces and isinstance(pieces[-1], str):
        pieces[-1] += text
    elif text:
        pieces.append(text)


def _parse(token: str) -> Reference:
    match = _TOKEN.fullmatch(token) if len(encode(token)) <= MAX_TOKEN else None
    if match is None:
        raise VariableError(f"%{{{token[:MAX_TOKEN]}}} is not understood")
    name = match["name"].lower()
    if name not in _NAMES:
        raise VariableError(f"%{{{token}}}: there is no {name!r}")
    begin = int(match["begin"]) if match["begin"] else None
    end = int(match["end"]) if match["end"] else None
    if "[" in token and begin is None and match["colon"] is None:
        raise VariableError(f"%{{{token}}}: an empty index")
    if begin is not None and match["colon"] is None:
        end = begin
    modifiers = tuple(match["modifiers"].lower().split("|")) if match["modifiers"] else ()
    for modifier in modifiers:
        if modifier not in _MODIFIERS:
            raise VariableError(f"%{{{token}}}: there is no modifier {modifier!r}")
    return Reference(name, begin, end, modifiers)


def value_of(reference: Reference, values: Values) -> str:
    """Give what a reference stands for; raises VariableError when its index begins too late."""
    if reference.name == "mda":
        raise VariableError("%{mda} is for wrappers")
    value = _NAMES[reference.name](values)
    for modifier in reference.modifiers:
        value = _MODIFIERS[modifier](value, values.delimiter)
    if not reference.raw:
        value = value.translate(_UNSAFE)
    value = _cut(value, reference)
    if "\0" in value or len(encode(value)) > MAX_RESULT:
        raise VariableError(f"%{{{reference.name}}}: {len(value)} characters, or a NUL")
    return value


def _cut(value: str, reference: Reference) -> str:
    size = len(value)
    if not size or (reference.begin is None and reference.end is None):
        return value
    begin = reference.begin or 0
    end = size - 1 if reference.end is None else reference.end
    begin = begin + size if begin < 0 else begin
    end = end + size if end < 0 else min(end, size - 1)
    if not 0 <= begin < size or end < begin:
        raise VariableError(f"%{{{reference.name}}}: an index outside {size} characters")
    return value[begin : end + 1]


def expand_path(pattern: str, values: Values) -> str:
    """Expand a path, or an LMTP destination.

    A value is one part of one component: a `/` in it, which may stand in a local part, becomes
    `:`; and no value may be, or make, a component `..`. Only the home directory is a path itself.
    Raises VariableError.
    """
    expanded = ""
    for piece in split(pattern):
        if isinstance(piece, str):
            expanded += piece
        elif piece.name in _PLAIN:
            expanded += value_of(piece, values)
        else:
            expanded += value_of(piece, values).replace("/", ":")
    if ".." in expanded.split("/") and ".." not in pattern.split("/"):
        raise VariableError("a path that leads upwards")
    if "\0" in expanded or len(encode(expanded)) > MAX_RESULT:
        raise VariableError(f"a path of {len(expanded)} characters, or with a NUL")
    return expanded


def _user(address: str) -> str:
    return address.rpartition("@")[0] if "@" in address else address


def _domain(address: str) -> str:
    return address.rpartition("@")[2] if "@" in address else ""


def _strip(value: str, delimiter: str) -> str:
    """Take the sub-address out of a user name or of an address."""
    user, at, domain = value.rpartition("@") if "@" in value else (value, "", "")
    return user.partition(delimiter)[0] + at + domain


_NAMES: Mapping[str, Callable[[Values], str]] = {
    "sender": lambda values: values.sender,
    "sender.user": lambda values: _user(values.sender),
    "sender.domain": lambda values: _domain(values.sender),
    "rcpt": lambda values: values.rcpt,
    "rcpt.user": lambda values: _user(values.rcpt),
    "rcpt.domain": lambda values: _domain(values.rcpt),
    "dest": lambda values: values.dest,
    "dest.user": lambda values: _user(values.dest),
    "dest.domain": lambda values: _domain(values.dest),
    "user.username": lambda values: values.username,
    "user.directory": lambda values: values.directory,
    "mbox.from": lambda values: values.sender or MAILER_DAEMON,
    "mda": lambda _: "",
}
_MODIFIERS: Mapping[str, Callable[[str, str], str]] = {
    "lowercase": lambda value, _: fold(value),
    "uppercase": lambda value, _: value.upper() if value.isascii() else value,
    "strip": _strip,
    "raw": lambda value, _: value,
}
