"""The lines of a table file: its kind, and its entries.

Kinder than the original in three points, none of which changes a file that the original reads as
its author meant: `key : value` loses the colon (as up to 6.8), an IPv6 address without brackets
is a key or an item and not a key and its value, and a line end may be CR LF.

Source: table(5) of OpenSMTPD 7.8.
"""

from __future__ import annotations

import ipaddress
import re
from typing import List, NamedTuple, Optional, Tuple

from smtpd_core.config.model import TableKind
from smtpd_core.errors import FormatError
from smtpd_core.text import decode

_KEY_END = re.compile(r"[ \t:]")
_SEPARATOR = re.compile(r"(?::|[ \t]+:(?=[ \t]))?[ \t]*")
_BRACKETS = re.compile(r"\[[^]]*\]")


class TableFileError(FormatError):
    """A table file with a line that is no entry; its text begins with the line's number."""


class TableFile(NamedTuple):
    """What a table file holds; the value of an entry is None in a list."""

    kind: TableKind
    entries: Tuple[Tuple[str, Optional[str]], ...]


def parse_table_file(octets: bytes) -> TableFile:
    """Read a table file, a list or a mapping as its first entry has it.

    A comment `# @list` before the first entry makes a list of it whatever it looks like. A file
    without entries is a mapping. Raises TableFileError.
    """
    kind = TableKind.UNKNOWN
    entries: List[Tuple[str, Optional[str]]] = []
    for number, raw in enumerate(decode(octets).split("\n"), 1):
        line = raw.strip(" \t\r\f\v")
        if line.startswith("#"):
            if kind is TableKind.UNKNOWN and line[1:].strip() == "@list":
                kind = TableKind.LIST
            continue
        if not line:
            continue
        key, value = _split(line, number)
        if kind is TableKind.UNKNOWN:
            kind = TableKind.MAPPING if len(key) < len(line) else TableKind.LIST
        if kind is TableKind.LIST:
            entries.append((line, None))
        elif value:
            entries.append((key, value))
        else:
            raise TableFileError(f"{number}: no value for {key!r}")
    return TableFile(
        kind if entries or kind is TableKind.LIST else TableKind.MAPPING, tuple(entries)
    )


def _split(line: str, number: int) -> Tuple[str, str]:
    """Part a line into a key and what follows it."""
    if line.startswith("["):
        bracketed = _BRACKETS.match(line)
        if bracketed is None:
            raise TableFileError(f"{number}: '[' without ']'")
        end = bracketed.end()
    else:
        end = _address_end(line)
        if not end:
            match = _KEY_END.search(line)
            end = match.start() if match else len(line)
    separator = _SEPARATOR.match(line, end)
    assert separator is not None
    return line[:end], line[separator.end() :]


def _address_end(line: str) -> int:
    """Tell where a bare IPv6 address or network at the start of a line ends; 0 if there is none."""
    word = line.replace("\t", " ").split(" ", 1)[0]
    if word.count(":") < 2:
        return 0
    for spelled in (word, word[:-1]):  # the second: `2001:db8::1: mail.example.org`
        try:
            ipaddress.IPv6Interface(spelled)
        except ValueError:
            continue
        return len(spelled)
    return 0
