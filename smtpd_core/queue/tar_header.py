"""The fields of tar archives: header blocks, their numbers, pax records.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Basic Tar Format".
"""

from __future__ import annotations

from zlib import adler32

from smtpd_core.text import decode

BLOCK = 512
_MAX_DIGITS = 18  # of a decimal number: fits a file offset, and keeps int() from hostile lengths

_CHECKSUM = slice(148, 156)
_ASCII = bytes(range(128))
_PAX_NUMBERS = frozenset((b"size", b"uid", b"gid", b"GNU.sparse.size", b"GNU.sparse.realsize"))
_PAX_TEXTS = frozenset((b"path", b"linkpath", b"GNU.sparse.name", b"GNU.sparse.map"))
_PAX_RUNS = frozenset((b"GNU.sparse.offset", b"GNU.sparse.numbytes"))  # many: the map in pieces


def is_header(block: bytes) -> bool:
    """Tell whether a block is a header: its checksum is right.

    The sum counts the checksum itself as blanks; some writers summed signed octets.
    """
    if len(block) < BLOCK:
        return False
    field = block[_CHECKSUM]
    try:
        stored = parse_number(field)
    except ValueError:
        return False
    if block.isascii():
        # The lower half of Adler-32 is the sum of octets plus 1, modulo 65521, which 512 octets
        # of ASCII do not reach: thirteen times the speed of sum().
        return (adler32(block) - adler32(field) & 0xFFFF) + 8 * 0x20 == stored
    total = sum(block) - sum(field) + 8 * 0x20
    return stored in (total, total - 256 * len(block.translate(None, _ASCII)))


def parse_number(field: bytes) -> int:
    """Read a number of a header: octal digits, or base 256 when the first bit is set; else 0.

    Raises ValueError.
    """
    digits = field.rstrip(b" \0")
    if digits.isdigit():
        return int(digits, 8)
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        number = int.from_bytes(field, "big") & (1 << bits) - 1
        return number - (1 << bits) if number >> bits - 1 else number
    digits = field.partition(b"\0")[0].strip(b" ").partition(b" ")[0]
    if digits and not digits.isdigit():
        raise ValueError("not a number")
    return int(digits or b"0", 8)


def parse_decimal(text: bytes) -> int:
    """Read a number of a pax record; ValueError when it is none."""
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ValueError("not a number")
    return int(text)


def parse_seconds(text: bytes) -> int:
    """Read the whole seconds of a time in a pax record; ValueError when it is none."""
    whole, _, part = text.partition(b".")
    if part and not part.isdigit():
        raise ValueError("not a time")
    return -parse_decimal(whole[1:]) if whole[:1] == b"-" else parse_decimal(whole)


def parse_pax(octets: bytes) -> tuple[dict[bytes, bytes], str]:
    """Read the records that matter here, and what is wrong with the others or "".

    A record is its own length, a blank, the key, `=`, the value, and a line end.
    """
    records: dict[bytes, bytes] = {}
    runs = []
    problem = ""
    position = 0
    while octets[position : position + 1].strip(b"\0"):  # zeros fill up what some writers left
        blank = octets.find(b" ", position, position + _MAX_DIGITS)
        digits = octets[position:blank] if blank > 0 else b""
        end = position + (int(digits) if digits.isdigit() else 0)
        if not position + len(digits) < end <= len(octets) or octets[end - 1] != 0x0A:
            return records, f"no record at octet {position}"
        key, _, value = octets[blank + 1 : end - 1].partition(b"=")
        if key in _PAX_RUNS:
            runs.append(value)
        elif _is_pax_value(key, value):
            records[key] = value
        elif key in _PAX_NUMBERS or key == b"mtime":
            problem = f"{decode(key)} is not a number"
        position = end
    if runs:
        records[b"GNU.sparse.map"] = b",".join(runs)
    return records, problem


def _is_pax_value(key: bytes, value: bytes) -> bool:
    """Tell whether a record is to be kept; an empty value takes back what a global one said."""
    try:
        if key == b"mtime":
            return not value or parse_seconds(value) is not None
        if key in _PAX_NUMBERS:
            return not value or parse_decimal(value) >= 0
    except ValueError:
        return False
    return key in _PAX_TEXTS
