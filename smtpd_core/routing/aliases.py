"""The values of alias and virtual tables, and the lines of .forward and include files.

Source: aliases(5), forward(5); the forms and their order are those of the original.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple, Optional

from smtpd_core.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VALUE = 2047  # octets of one value or one line

_SPACE = " \t\n\v\f\r"
# A run of plain characters, an escaped one, a quote, a comma, or a backslash that ends it all.
_PIECE = re.compile(r"""([^\\"',]+)|\\(.)|(["'])|(,)|\\""", re.DOTALL)
_CONTENT = re.compile(r"(?P<text>(?:[^\\#]|\\.)*)(?:(?P<joined>\\\Z)|.*)", re.DOTALL)
_ERROR = re.compile(r":?error:([45][0-9]{2} [0-9A-Za-z].*)", re.IGNORECASE | re.DOTALL)
_INCLUDE = re.compile(r":?include:(/.*)", re.IGNORECASE | re.DOTALL)
_QUOTED_PIPE = re.compile(r'"\|(.*)"', re.DOTALL)
_ADDRESS = re.compile(r"[0-9A-Za-z!#$%*/?|^{}`~&'+\-=_.]+@[0-9A-Za-z.\-]+")
_USER = re.compile(r"[0-9A-Za-z_.\-+]+")


class AliasError(FormatError):
    """A value that cannot be understood: the whole of it, since a part may be worse than none."""


class Kind(enum.Enum):
    """What an item leads to."""

    ERROR = "error"
    INCLUDE = "include"
    PIPE = "pipe"
    FILE = "file"
    ADDRESS = "address"
    USER = "user"


class Item(NamedTuple):
    """One item; the text is the reply, path, command, address or user alone."""

    kind: Kind
    text: str


def parse_item(text: str) -> Item:
    """Tell what one item is. Raises AliasError when it is nothing."""
    match: Optional[re.Match[str]]
    if match := _ERROR.fullmatch(text):
        return Item(Kind.ERROR, match[1])
    if match := _INCLUDE.fullmatch(text):
        return Item(Kind.INCLUDE, match[1])
    if match := _QUOTED_PIPE.fullmatch(text):
        return Item(Kind.PIPE, match[1])
    if text.startswith("|"):
        return Item(Kind.PIPE, text[1:])
    if text.startswith("/"):
        return Item(Kind.FILE, text)
    if _ADDRESS.fullmatch(text):
        return Item(Kind.ADDRESS, text)
    if _USER.fullmatch(text):
        return Item(Kind.USER, text)
    raise AliasError(f"{text[:80]!r} is no user, address, command or file")


def split_value(value: str) -> list[str]:
    """Split at commas outside quotes; quotes stay in the items, backslashes go.

    Raises AliasError for an open quote, a backslash at the end, and a value that is too long.
    """
    if len(value) > MAX_VALUE or len(value.encode("utf-8", "replace")) > MAX_VALUE:
        raise AliasError(f"a value of {len(value)} characters")
    items = [""]
    quote = ""
    for plain, escaped, mark, comma in _PIECE.findall(value):
        if comma and not quote:
            items.append("")
            continue
        if mark and quote in ("", mark):
            quote = "" if quote else mark
        elif not (plain or escaped or mark or comma):
            raise AliasError("a backslash at the end")
        items[-1] += plain or escaped or mark or comma
    if quote:
        raise AliasError(f"an open quote {quote}")
    return [item for item in (item.strip(_SPACE) for item in items) if item]


def parse_value(value: str) -> list[Item]:
    """Read the comma list of one value."""
    return [parse_item(item) for item in split_value(value)]


def logical_lines(text: str) -> Iterator[str]:
    """Give the lines of a file: `#` starts a comment, a backslash at an end joins the next line.

    A `#` after a backslash starts none; the backslash stays for split_value to remove.
    """
    line = ""
    for physical in text.split("\n"):
        content = _CONTENT.match(physical)
        assert content is not None  # it matches every text
        if content["joined"]:
            line += content["text"]
        else:
            yield line + content["text"]
            line = ""
    if line:
        yield line


def parse_forward(text: str) -> list[Item]:
    """Read a .forward file; includes in it are left out, as documented. Raises AliasError."""
    items: list[Item] = []
    for line in logical_lines(text):
        items += (item for item in parse_value(line) if item.kind is not Kind.INCLUDE)
    return items


def parse_include(text: str) -> tuple[list[Item], list[str]]:
    """Read an include file: its items, and why lines were passed over; includes are left out.

    One bad line of a list must not stop the mail to all others on it.
    """
    items: list[Item] = []
    refused = []
    for line in logical_lines(text):
        try:
            items += parse_forward(line)
        except AliasError as error:
            refused.append(str(error))
    return items, refused
